import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// The state of one replica in the place of another's.
@Suite struct StateSnapshotTests {
    private static let size = 20 << 20
    private static let giver = PoolIdentity(cluster: "test cluster", replica: 1, incarnation: 11, charter: charter)

    /// Two pools in a folder, of which the first has executed much and the second little.
    private final class Pair {
        let folder = Folder()
        let theirs: StatePool
        var ours: StatePool
        let geometry: StateGeometry

        init(sessions: Int = 64) throws {
            try StatePool.format(
                path: folder.file("theirs.pool"), identity: StateSnapshotTests.giver, size: size, sessions: 64)
            try StatePool.format(path: folder.file("state.pool"), identity: identity, size: size, sessions: sessions)
            theirs = try StatePool(openingAny: folder.file("theirs.pool"))
            ours = try StatePool(openingAny: folder.file("state.pool"))
            geometry = ours.geometry
            execute(3, in: ours)
            ours.close()
        }

        /// The same commands in each pool, from instance to instance: OPENs, and replies of all lengths in and outside
        /// of sessions.
        func execute(_ instances: Int, in pools: StatePool...) {
            for _ in 0..<instances {
                let next = pools[0].executed + 1
                for pool in pools {
                    precondition(pool.executed + 1 == next, "pools that stand at one instance")
                    for n in 0..<4 {
                        let fill = UInt8(truncatingIfNeeded: next &+ UInt64(n))
                        command(
                            pool,
                            session: n < 2
                                ? 0 : SessionRules.id(opening: 1 + next % 40, slot: Int(next % 40), seed: 0),
                            fill: fill)
                    }
                    if next <= 40, case .answer(let answer) = pool.begin(kind: .open, session: 0, sequence: 0) {
                        precondition(answer.status == .ok)
                    }
                    pool.endInstance(next)
                    pool.commit()
                }
            }
        }

        private func command(_ pool: StatePool, session: UInt64, fill: UInt8) {
            guard case .execute = pool.begin(kind: .submit, session: session, sequence: pool.executed + 1) else {
                return
            }
            let transaction = pool.heap.transaction
            let cell = PersistentPointer<UInt64>(offset: transaction.root + UInt64(fill % 16) * 8)
            let old = transaction.read(cell)
            if old != 0 { transaction.free(old) }
            let block = try! transaction.allocate(100 * Int(fill) + 1)
            transaction.mutableBytes(block, 100 * Int(fill) + 1).initializeMemory(as: UInt8.self, repeating: fill)
            transaction.write(block, to: cell)
            let reply = [UInt8](repeating: fill, count: 3 * Int(fill))
            _ = reply.withUnsafeBytes { pool.finish(reply: $0) }
        }

        var path: String { folder.file("state.pool") }

        func incoming() throws(PoolError) -> IncomingSnapshot {
            try IncomingSnapshot(beside: path, geometry: geometry)
        }

        func snapshot() throws -> StateSnapshot {
            let snapshot = try StateSnapshot(of: theirs)
            while !snapshot.isWhole { try snapshot.copy(atMost: 100_000) }
            return snapshot
        }

        /// In pieces that have no regard to pages.
        func fill(_ incoming: IncomingSnapshot, from snapshot: StateSnapshot, damaging damage: Int? = nil) {
            #expect(incoming.expect(size: snapshot.size, checksum: snapshot.checksum, executed: snapshot.executed))
            while !incoming.isWhole {
                var piece = [UInt8](repeating: 0, count: min(70_001, snapshot.size - incoming.received))
                #expect(piece.withUnsafeMutableBytes { snapshot.read(at: incoming.received, into: $0) })
                if let damage, (incoming.received..<incoming.received + piece.count).contains(damage) {
                    piece[damage - incoming.received] ^= 4
                }
                piece.withUnsafeBytes { incoming.append($0) }
            }
        }

        func reopen() throws {
            ours = try StatePool(
                opening: path, expecting: identity.cluster, replica: identity.replica, charter: charter)
        }

        var files: [String] {
            ["state.pool", "state.pool.incoming", "theirs.pool", "theirs.pool.outgoing"].filter {
                access(folder.file($0), F_OK) == 0
            }
        }
    }

    @Test func theStateIsTheSameAndGoesOnAlike() throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let snapshot = try pair.snapshot()
        // The giver goes on meanwhile.
        let then = pair.theirs.currentDigest()
        pair.execute(5, in: pair.theirs)
        let incoming = try pair.incoming()
        pair.fill(incoming, from: snapshot)
        try incoming.finish(as: identity, bootCount: 0)
        try incoming.install(over: pair.path)
        try pair.reopen()
        #expect(pair.ours.executed == 60 && pair.ours.installed == 60 && pair.ours.identity == identity)
        #expect(pair.ours.currentDigest() == then)
        pair.execute(5, in: pair.ours)
        #expect(pair.ours.currentDigest() == pair.theirs.currentDigest())
        // Evictions follow the order of use, which came along though it is not part of the digest.
        for pool in [pair.ours, pair.theirs] {
            for _ in 0..<70 { _ = pool.begin(kind: .open, session: 0, sequence: 0) }
            pool.endInstance(pool.executed + 1)
        }
        pair.execute(30, in: pair.ours, pair.theirs)
        #expect(pair.ours.currentDigest() == pair.theirs.currentDigest())
        _ = try pair.ours.verify()
        #expect(pair.ours.installed == 60)
        #expect(pair.files == ["state.pool", "theirs.pool"])
    }

    /// What its giver has skipped is part of a state; where the giver ended is not.
    @Test func anSnapshotBringsAlongWhatWasSkipped() throws {
        let pair = try Pair()
        pair.execute(5, in: pair.theirs)
        let position = pair.theirs.position + 1
        _ = pair.theirs.skip([position])
        guard case .skip = pair.theirs.begin(kind: .submit, session: 0, sequence: 1) else {
            Issue.record("the position is to be skipped")
            return
        }
        _ = pair.theirs.refuse(.skipped)
        _ = pair.theirs.begin(kind: .submit, session: 0, sequence: 1)
        _ = pair.theirs.refuse(.full)
        _ = pair.theirs.takeUpBreadcrumb()
        pair.theirs.endInstance(6)
        let incoming = try pair.incoming()
        pair.fill(incoming, from: try pair.snapshot())
        try incoming.finish(as: identity, bootCount: 0)
        try incoming.install(over: pair.path)
        try pair.reopen()
        #expect(pair.ours.breadcrumbs.skipped == [position] && pair.ours.breadcrumbs.lastEnd == nil)
        #expect(pair.ours.takeUpBreadcrumb() == nil)
    }

    /// A giver that was killed in the middle of a long batch, and cannot go on with it alone, gives what it has.
    @Test func anSnapshotInTheMiddleOfABatch() throws {
        let pair = try Pair()
        pair.execute(20, in: pair.theirs)
        pair.theirs.passRecord()
        let snapshot = try pair.snapshot()
        let incoming = try pair.incoming()
        pair.fill(incoming, from: snapshot)
        try incoming.finish(as: identity, bootCount: 0)
        try incoming.install(over: pair.path)
        try pair.reopen()
        #expect(pair.ours.executed == 20 && pair.ours.executedCommands == 1 && pair.ours.installed == 20)
        #expect(pair.ours.currentDigest() == pair.theirs.currentDigest())
    }

    @Test func anSnapshotOfAnSnapshot() throws {
        let pair = try Pair()
        pair.execute(20, in: pair.theirs)
        let first = try pair.incoming()
        pair.fill(first, from: try pair.snapshot())
        try first.finish(as: identity, bootCount: 0)
        try first.install(over: pair.path)
        pair.execute(300, in: pair.theirs)
        let second = try pair.incoming()
        pair.fill(second, from: try pair.snapshot())
        try second.finish(as: identity, bootCount: 0)
        try second.install(over: pair.path)
        try pair.reopen()
        #expect(pair.ours.installed == 320 && pair.ours.currentDigest() == pair.theirs.currentDigest())
    }

    @Test func aDamagedSnapshotIsRefused() throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let snapshot = try pair.snapshot()
        for damage in [0, 100, 4095, 4096, 30_000, snapshot.size / 2, snapshot.size - 1] {
            let incoming = try pair.incoming()
            pair.fill(incoming, from: snapshot, damaging: damage)
            #expect(error { try incoming.finish(as: identity, bootCount: 0) }?.kind == .damaged)
            incoming.discard()
            #expect(pair.files == ["state.pool", "theirs.pool"])
        }
        try pair.reopen()
        #expect(pair.ours.executed == 3 && pair.ours.installed == 0)
    }

    /// The bytes are those that were sent, but what was sent is no whole state: so a walk over all of it says.
    @Test func anSnapshotOfADamagedStateIsRefused() throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let home = UnsafeMutableRawPointer(mutating: pair.theirs.heap.transaction.committed.baseAddress!)
        // In the header of the block of the session table.
        (home + Int(pair.theirs.root.tableBlock) - 8).storeBytes(of: 12345, as: UInt64.self)
        let incoming = try pair.incoming()
        pair.fill(incoming, from: try pair.snapshot())
        #expect(error { try incoming.finish(as: identity, bootCount: 0) }?.kind == .damaged)
    }

    /// A walk does not see that a value is another; the digest that came along does.
    @Test func anSnapshotWithAChangedValueIsRefused() throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let slot = (0..<32).first { pair.theirs.table.block(of: $0) != 0 }
        let block = pair.theirs.table.block(of: try #require(slot))
        pair.theirs.commit()
        let home = UnsafeMutableRawPointer(mutating: pair.theirs.heap.transaction.committed.baseAddress!)
        (home + Int(block) + 5).assumingMemoryBound(to: UInt8.self).pointee ^= 1
        let incoming = try pair.incoming()
        pair.fill(incoming, from: try pair.snapshot())
        let refusal = error { try incoming.finish(as: identity, bootCount: 0) }
        #expect(refusal?.kind == .damaged && refusal!.description.contains("the digest of the bytes"))
    }

    @Test func otherSizesAreRefused() throws {
        let pair = try Pair(sessions: 32)
        #expect(pair.geometry.fingerprint != pair.theirs.geometry.fingerprint)
        pair.execute(10, in: pair.theirs)
        let snapshot = try pair.snapshot()
        let incoming = try pair.incoming()
        for size in [0, 1, 4096, snapshot.size + 1, Self.size, Int.max & ~4095] {
            #expect(!incoming.expect(size: size, checksum: 0, executed: 10), "\(size)")
        }
        pair.fill(incoming, from: snapshot)
        #expect(error { try incoming.finish(as: identity, bootCount: 0) }?.kind == .foreign)
    }

    @Test func whereNoSnapshotCanBeMade() throws {
        let pair = try Pair()
        #expect(error { _ = try StateSnapshot(of: pair.theirs, beside: "/nowhere/state.pool") }?.kind == .io)
        #expect(
            error { _ = try IncomingSnapshot(beside: "/nowhere/state.pool", geometry: pair.geometry) }?.kind == .missing
        )
    }

    /// Killed at any step, a replica finds the old state or the new one, and what else there was it removes.
    @Test func aCrashLeavesTheOldStateOrTheNew() throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let old = try PoolInspection.digest(path: pair.path)
        let snapshot = try pair.snapshot()
        let new = pair.theirs.currentDigest()

        func crash(_ step: String, leaves expected: (position: UInt64, value: UInt64)) throws {
            let copy = Folder()
            for file in ["state.pool", "state.pool.incoming"] { duplicate(pair.folder.file(file), to: copy.file(file)) }
            let path = copy.file("state.pool")
            let pool = try StatePool(
                opening: path, expecting: identity.cluster, replica: identity.replica, charter: charter)
            IncomingSnapshot.removeLeftovers(beside: path)
            #expect(access(IncomingSnapshot.path(beside: path), F_OK) != 0, "\(step)")
            #expect(pool.currentDigest() == expected, "\(step)")
            _ = try pool.verify()
            pool.close()
        }

        try crash("before", leaves: old)
        let incoming = try pair.incoming()
        try crash("prepared", leaves: old)
        #expect(incoming.expect(size: snapshot.size, checksum: snapshot.checksum, executed: snapshot.executed))
        while !incoming.isWhole {
            var piece = [UInt8](repeating: 0, count: min(1 << 20, snapshot.size - incoming.received))
            #expect(piece.withUnsafeMutableBytes { snapshot.read(at: incoming.received, into: $0) })
            piece.withUnsafeBytes { incoming.append($0) }
            try crash("filled", leaves: old)
        }
        try incoming.finish(as: identity, bootCount: 0)
        try crash("finished", leaves: old)
        try incoming.install(over: pair.path)
        try crash("installed", leaves: new)
    }

    /// All of a snapshot that is finished is in memory, not only in caches: at the last fence nothing is open that was
    /// not there before.
    @Test(arguments: [false, true]) func aFinishedSnapshotIsDurable(planted: Bool) throws {
        let pair = try Pair()
        pair.execute(60, in: pair.theirs)
        let snapshot = try pair.snapshot()
        let region = try emptyPool(pages: pair.geometry.regionSize / Pool.pageSize)
        let model = CrashModel(of: region)
        let root = pair.geometry.data.lowerBound + Int(pair.theirs.heap.systemRoot)
        if planted { model.forgetsFlush = { $0.contains(root) } }
        region.crashRecorder = model
        let last = UnsafeMutableRawBufferPointer.allocate(byteCount: region.region.count, alignment: Pool.pageSize)
        defer { last.deallocate() }
        var random = Seeded(seed: 1)
        let incoming = IncomingSnapshot(in: region, geometry: pair.geometry)
        pair.fill(incoming, from: snapshot)
        model.atEvent = { model.makeImage(.nothing, open: [], into: last, random: &random) }
        try incoming.finish(as: identity, bootCount: 0)
        // The line that was forgotten is part of the description of the sessions.
        let refusal = error {
            let found = try StatePool(in: Pool(image: UnsafeRawBufferPointer(last)))
            #expect(found.currentDigest() == pair.theirs.currentDigest() && found.installed == 60)
        }
        #expect(refusal?.kind == (planted ? .damaged : nil))
    }

    private func duplicate(_ from: String, to: String) {
        let source = open(from, O_RDONLY)
        guard source >= 0 else { return }
        let target = open(to, O_WRONLY | O_CREAT, 0o600)
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while case let got = read(source, &buffer, buffer.count), got > 0 {
            precondition(write(target, buffer, got) == got)
        }
        close(source)
        close(target)
    }

    private func error(_ body: () throws -> Void) -> PoolError? { StorageTests.error(of: body) }
}
