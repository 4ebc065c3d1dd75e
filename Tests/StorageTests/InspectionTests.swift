import Foundation
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

@Suite struct InspectionTests {
    private func acceptor(in folder: Folder) throws -> (path: String, pool: AcceptorPool) {
        let path = folder.file("acceptor.pool")
        try AcceptorPool.format(path: path, identity: identity, size: 8 << 20)
        let pool = try AcceptorPool(opening: path, expecting: "test cluster", replica: 7)
        pool.record(promise: 6)
        pool.record(instance: 1, view: .max, batch: try #require(pool.store(bytes("first"))))
        pool.record(instance: 2, view: 6, batch: try #require(pool.store(bytes("second"))))
        pool.record(instance: 3, view: 6, batch: .noop)
        pool.fence()
        return (path, pool)
    }

    private func state(in folder: Folder) throws -> (path: String, pool: StatePool, session: UInt64) {
        let path = folder.file("state.pool")
        try StatePool.format(path: path, identity: identity, size: 32 << 20, sessions: 16)
        let pool = try StatePool(opening: path, expecting: "test cluster", replica: 7)
        var session: UInt64 = 0
        if case .answer(let answer) = pool.begin(kind: .open, session: 0, sequence: 0) { session = answer.session }
        _ = pool.begin(kind: .submit, session: session, sequence: 5)
        let reply = Array(repeating: UInt8(3), count: 200)
        _ = reply.withUnsafeBytes { pool.finish(reply: $0) }
        pool.endInstance(1)
        pool.commit()
        return (path, pool, session)
    }

    @Test func describesAnAcceptorPoolInUseAndNot() throws {
        let folder = Folder()
        let (path, pool) = try acceptor(in: folder)
        let open = try PoolInspection.report(path: path, verify: true)
        #expect(open.inUse && open.damage.isEmpty)
        pool.close()
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        let report = try PoolInspection.report(path: path, verify: true)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before, "looking changes nothing")
        #expect(!report.inUse && report.damage.isEmpty && report.verified)
        #expect(report.kind == "acceptor" && report.cluster == "test cluster" && report.replica == 7)
        let described = try #require(report.acceptor)
        #expect(described.promised == 6 && described.floor == 1)
        #expect(described.votes.map(\.instance) == [1, 2, 3])
        #expect(described.votes.map(\.view) == [nil, 6, 6])
        #expect(described.votes.map(\.length) == [5, 6, 0])
        for word in [
            "acceptor pool of replica 7", "max_request = 1 MiB", "machine = 'Machine' version 2", "promised view 6",
            "instance 1: decided", "no-op", "no damage found",
        ] {
            #expect(report.description.contains(word))
        }
        let json = try JSONEncoder().encode(report)
        #expect(try JSONDecoder().decode(PoolReport.self, from: json).acceptor?.votes.count == 3)
        #expect(report.charter == charter)
    }

    @Test func findsADamagedBatch() throws {
        let folder = Folder()
        let (path, pool) = try acceptor(in: folder)
        let arena = pool.pool.fileOffsetOfRegion + pool.geometry.arenaOffset
        pool.close()
        flipBit(in: path, at: arena + 64)
        let report = try PoolInspection.report(path: path, verify: true)
        #expect(report.damage.count == 1 && report.damage[0].contains("instance 2"))
        #expect(report.description.contains("DAMAGED"))
    }

    @Test func describesAStatePoolInUseAndNot() throws {
        let folder = Folder()
        let (path, pool, session) = try state(in: folder)
        let open = try PoolInspection.report(path: path, verify: true)
        #expect(open.inUse && open.damage.isEmpty)
        #expect(error(of: { _ = try PoolInspection.digest(path: path) })?.kind == .inUse)
        let digest = pool.currentDigest()
        pool.close()
        let report = try PoolInspection.report(path: path, verify: true)
        #expect(!report.inUse && report.damage.isEmpty)
        let described = try #require(report.state)
        #expect(described.position == 2 && described.executed == 1 && described.executedCommands == 0)
        #expect(described.digest == PoolInspection.hexadecimal(digest.value) && described.digest.count == 16)
        #expect(described.sessions.count == 1 && described.sessions[0].id == session)
        #expect(described.sessions[0].sequence == 5 && described.sessions[0].replyLength == 200)
        #expect(try PoolInspection.digest(path: path) == digest)
        #expect(report.description.contains("position 2"))
        #expect(report.charter == charter && report.description.contains("members = 3, 7, 9"))
    }

    @Test func findsDamageInTheHeapAndInTheSessions() throws {
        let folder = Folder()
        let (path, pool, session) = try state(in: folder)
        let home =
            UnsafeRawPointer(pool.heap.transaction.committed.baseAddress!)
            - UnsafeRawPointer(pool.pool.region.baseAddress!)
        let data = pool.pool.fileOffsetOfRegion + home
        let slot = data + Int(pool.root.table) + SessionRules.slot(of: session) * StateLayout.slotSize
        let block = data + Int(pool.table.read(SessionRules.slot(of: session)).block)
        pool.close()
        #expect(try PoolInspection.report(path: path, verify: true).damage.isEmpty)
        // The session's id, its position, its block, its status, its reply's length; the header of the block.
        for offset in [slot + 2, slot + 17, slot + 24, slot + 36, slot + 33, block - 16, block - 8] {
            flipBit(in: path, at: offset)
            #expect(try PoolInspection.report(path: path, verify: true).damage.count == 1, "at \(offset - data)")
            flipBit(in: path, at: offset)
        }
        #expect(try PoolInspection.report(path: path, verify: true).damage.isEmpty)
    }

    /// A walk over the heap does not see it, the digest does, and says so.
    @Test func findsAChangedValue() throws {
        let folder = Folder()
        let (path, pool, session) = try state(in: folder)
        let home =
            UnsafeRawPointer(pool.heap.transaction.committed.baseAddress!)
            - UnsafeRawPointer(pool.pool.region.baseAddress!)
        let reply = Int(pool.table.read(SessionRules.slot(of: session)).block) + 100
        let digest = pool.currentDigest()
        pool.close()
        flipBit(in: path, at: pool.pool.fileOffsetOfRegion + home + reply)
        #expect(try PoolInspection.report(path: path, verify: false).damage.isEmpty)
        let damage = try PoolInspection.report(path: path, verify: true).damage
        let found = try PoolInspection.digest(path: path)
        #expect(found.position == digest.position && found.value != digest.value)
        #expect(damage.count == 1 && damage[0].contains(PoolInspection.hexadecimal(found.value)))
        #expect(damage[0].contains(PoolInspection.hexadecimal(digest.value)) && damage[0].hasPrefix(path))
    }

    @Test func refusesWhatIsNoPool() throws {
        let folder = Folder()
        #expect(
            error(of: { _ = try PoolInspection.report(path: folder.file("none"), verify: false) })?.kind == .missing)
        try Data(repeating: 0, count: 100).write(to: URL(fileURLWithPath: folder.file("zeros")))
        #expect(
            error(of: { _ = try PoolInspection.report(path: folder.file("zeros"), verify: false) })?.kind == .foreign)
        try Data("PMEMOBJ\0 and no more".utf8).write(to: URL(fileURLWithPath: folder.file("short")))
        #expect(
            error(of: { _ = try PoolInspection.report(path: folder.file("short"), verify: false) })?.kind == .damaged)
        try Data(repeating: 65, count: 10000).write(to: URL(fileURLWithPath: folder.file("text")))
        #expect(
            error(of: { _ = try PoolInspection.report(path: folder.file("text"), verify: false) })?.kind == .foreign)
    }
}
