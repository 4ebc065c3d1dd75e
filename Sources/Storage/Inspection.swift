import MPaxosConsensus
import MPaxosPersistentMemory

/// What a pool holds, for people and programs to read.
package struct PoolReport: Codable, Sendable {
    package var path: String
    /// "acceptor" or "state".
    package var kind: String
    package var fileSize: Int
    package var cluster: String
    package var replica: UInt16
    /// The incarnation in hexadecimal digits.
    package var incarnation: String
    /// What it was formatted for.
    package var charter: Charter
    /// A replica had it open: what is reported is not of one moment.
    package var inUse: Bool
    package var acceptor: AcceptorReport?
    package var state: StateReport?
    /// Whether every checksum and every object was looked at.
    package var verified: Bool
    /// What is wrong, in sentences.
    package var damage: [String]
}

package struct AcceptorReport: Codable, Sendable {
    package struct Vote: Codable, Sendable {
        package var instance: UInt64
        /// The view of the vote; nil where the instance is known to be decided.
        package var view: UInt64?
        package var length: UInt32
        package var offset: UInt64
        /// CRC32C, hexadecimal.
        package var checksum: String
        /// Whether the bytes have that checksum.
        package var intact: Bool
    }

    /// Whether all members of the cluster are known to have met.
    package var founded: Bool
    package var promised: UInt64
    package var establishedView: UInt64
    package var establishedBase: UInt64
    package var floor: UInt64
    package var slots: Int
    package var arenaUsed: Int
    package var arenaSize: Int
    /// Torn leftovers of the last group commit, which the next open removes.
    package var torn: Int
    package var votes: [Vote]
}

package struct StateReport: Codable, Sendable {
    package struct Session: Codable, Sendable {
        package var id: UInt64
        package var sequence: UInt64
        package var position: UInt64
        /// Of the last command: 0 OK, 8 FULL.
        package var status: UInt8
        package var replyLength: UInt32
        /// A stamp: the larger, the later the session was used.
        package var lastUse: UInt64
    }

    package struct LastEnd: Codable, Sendable {
        package var position: UInt64
        package var isQuery: Bool
        /// How many starts in a row found it.
        package var times: UInt64
    }

    package var position: UInt64
    package var executed: UInt64
    /// Records of the next instance that are executed already.
    package var executedCommands: Int
    /// The digest in hexadecimal digits.
    package var digest: String
    package var opened: UInt64
    package var sessionCapacity: Int
    package var used: Int
    package var size: Int
    /// Commits that the next open replays.
    package var replayedCommits: Int
    /// What a replica was executing when it ended, or is; nil for nothing.
    package var executing: Breadcrumbs.Crumb?
    /// What the last start found there.
    package var lastEnd: LastEnd?
    /// The last positions whose commands were skipped, the latest first.
    package var skipped: [UInt64]
    package var sessions: [Session]
}

package enum PoolInspection {
    /// Reads a pool file of either kind, without opening it for writing; a replica may be using it.
    /// - Parameter verify: checks every checksum and walks every object; then damage that does not prevent reading is
    ///   reported, not thrown.
    package static func report(path: String, verify: Bool) throws(PoolError) -> PoolReport {
        var attempts = 0
        while true {
            attempts += 1
            let file = try PoolFile(reading: path)
            defer { file.pool.close() }
            let report = try inspect(file, verify: verify)
            // While it is in use a commit may run through the copy: then the next copy will do.
            if file.isTakenUp || (!report.damage.isEmpty && file.isInUse), attempts < 5 { continue }
            return report
        }
    }

    private static func inspect(_ file: PoolFile, verify: Bool) throws(PoolError) -> PoolReport {
        let identity = file.page.identity
        var report = PoolReport(
            path: file.path, kind: file.kind.rawValue, fileSize: file.fileSize, cluster: identity.cluster,
            replica: identity.replica, incarnation: String(identity.incarnation, radix: 16),
            charter: identity.charter, inUse: file.isInUse, verified: verify, damage: [])
        do throws(PoolError) {
            switch file.kind {
            case .acceptor:
                let pool = try AcceptorPool(
                    in: file.pool, expecting: identity.cluster, replica: identity.replica,
                    boot: file.isInUse ? 0 : Boot.current)
                report.acceptor = describe(pool, damage: &report.damage)
            case .state:
                let pool = try StatePool(in: file.pool, isMoving: file.isInUse)
                report.state = describe(pool)
                if verify {
                    _ = try pool.verify()
                    // Through a copy of one moment alone; a replica that runs does it by itself.
                    if !file.isInUse { try pool.verifyDigest() }
                }
            }
        } catch {
            guard error.kind == .damaged else { throw error }
            let what = error.description
            report.damage.append(
                file.isInUse
                    ? "\(what) (in use: a commit may have run through the reading; stop the replica to be sure)" : what)
        }
        return report
    }

    private static func describe(_ pool: AcceptorPool, damage: inout [String]) -> AcceptorReport {
        var votes: [AcceptorReport.Vote] = []
        pool.forEachEntry { instance, view, batch in
            votes.append(
                AcceptorReport.Vote(
                    instance: instance, view: view == decidedView ? nil : view, length: batch.length,
                    offset: batch.offset,
                    checksum: String(batch.checksum, radix: 16), intact: pool.verify(batch)))
        }
        for vote in votes where !vote.intact { damage.append("the batch of instance \(vote.instance) is damaged") }
        return AcceptorReport(
            founded: pool.founding == .founded, promised: pool.promised, establishedView: pool.established.view,
            establishedBase: pool.established.base,
            floor: pool.floor, slots: pool.slotCount, arenaUsed: pool.used, arenaSize: pool.capacity,
            torn: pool.torn.count, votes: votes)
    }

    private static func describe(_ pool: StatePool) -> StateReport {
        let digest = pool.currentDigest()
        var sessions: [StateReport.Session] = []
        for slot in 0..<Int(pool.root.usedSlots) {
            let session = pool.table.read(slot)
            guard session.id != 0 else { continue }
            sessions.append(
                StateReport.Session(
                    id: session.id, sequence: session.sequence, position: session.position, status: session.status,
                    replyLength: session.replyLength, lastUse: pool.table.stamp(slot)))
        }
        let end = pool.breadcrumbs.lastEnd
        return StateReport(
            position: pool.position, executed: pool.executed, executedCommands: pool.executedCommands,
            digest: hexadecimal(digest.value), opened: pool.root.openings, sessionCapacity: pool.sessionCapacity,
            used: pool.used, size: pool.size, replayedCommits: pool.heap.replayedCommits,
            executing: pool.breadcrumbs.crumb(at: pool.position),
            lastEnd: end.map { .init(position: $0.position, isQuery: $0.isQuery, times: $0.times) },
            skipped: pool.breadcrumbs.skipped, sessions: sessions)
    }

    /// The number in 16 digits.
    package static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// The digest of a state.pool that no replica is using.
    /// - Throws: `.inUse` when one is.
    package static func digest(path: String) throws(PoolError) -> (position: UInt64, value: UInt64) {
        let folder = try FolderLock(folderOf: path, shared: true)
        defer { folder.release() }
        let file = try PoolFile(reading: path, ifInUse: .refuse)
        guard file.kind == .state else {
            throw PoolError(.foreign, "\(path): an acceptor.pool, which has no digest; give the path of a state.pool")
        }
        let pool = try StatePool(in: file.pool)
        defer { pool.close() }
        return (pool.position, pool.heap.recomputedDigest())
    }
}
