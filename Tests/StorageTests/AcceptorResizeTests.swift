import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// A log of another size: all that the old one says that anything may rest on is in the new one.
@Suite struct AcceptorResizeTests {
    private let folder = Folder()
    private var path: String { folder.file("acceptor.pool") }

    private func open() throws -> AcceptorPool {
        try AcceptorPool(opening: path, expecting: identity.cluster, replica: identity.replica)
    }

    /// With records of all kinds, and batches of `size` bytes at the instances 1 to `count`.
    private func filled(logSize: Int, count: UInt64, size: Int) throws -> AcceptorPool {
        try AcceptorPool.format(path: path, identity: identity, size: logSize)
        let pool = try open()
        pool.record(promise: 9)
        pool.record(establishedView: 8, base: 2)
        pool.record(incarnation: 42, of: 3)
        pool.record(life: Life(bootCount: 4, nonce: 5), of: 3)
        pool.begin(start: 1)
        pool.record(life: Life(bootCount: 1, nonce: 77))
        for instance in 1...count {
            let batch = try #require(pool.store(content(of: instance, size)))
            pool.record(instance: instance, view: instance % 2 == 0 ? .max : 9, batch: batch)
        }
        pool.record(instance: count + 1, view: 9, batch: .noop)
        pool.fence()
        return pool
    }

    private func content(of instance: UInt64, _ size: Int) -> [UInt8] {
        (0..<size).map { UInt8(truncatingIfNeeded: Int(instance) &* 31 &+ $0) }
    }

    private func expectRecords(_ pool: AcceptorPool) {
        #expect(pool.identity == identity)
        #expect(pool.promised == 9 && pool.established == (8, 2))
        #expect(pool.incarnation(of: 3) == 42 && pool.life(of: 3) == Life(bootCount: 4, nonce: 5))
        #expect(pool.life == Life(bootCount: 1, nonce: 77) && pool.founding == .gathering)
    }

    private func expectVotes(_ pool: AcceptorPool, from first: UInt64, to last: UInt64, size: Int) throws {
        #expect(pool.entries.keys.sorted() == Array(first...last + 1))
        for instance in first...last {
            let entry = try #require(pool.entries[instance])
            #expect(entry.view == (instance % 2 == 0 ? .max : 9))
            #expect(pool.content(of: entry.batch) == content(of: instance, size) && pool.verify(entry.batch))
        }
        #expect(pool.entries[last + 1]?.batch == .noop)
    }

    @Test func growsWithAllThatItHolds() throws {
        let pool = try filled(logSize: 8 << 20, count: 60, size: 100_000)
        #expect(pool.has(logSize: 8 << 20) && !pool.has(logSize: 32 << 20))
        try pool.settle(executed: 10)
        let new = try pool.resized(logSize: 32 << 20, executed: 10)
        #expect(new.has(logSize: 32 << 20) && new.capacity > 2 * pool.capacity && new.path == path)
        #expect(access(AcceptorPool.path(resizing: path), F_OK) != 0, "nothing is left beside")
        // In use all the while.
        #expect(throws: PoolError.self) { _ = try open() }
        expectRecords(new)
        try expectVotes(new, from: 1, to: 60, size: 100_000)
        let again = try reopened(new)
        expectRecords(again)
        try expectVotes(again, from: 1, to: 60, size: 100_000)
    }

    private func reopened(_ pool: AcceptorPool) throws -> AcceptorPool {
        pool.close()
        return try open()
    }

    /// As a kill would leave it.
    @Test func isWholeWithoutBeingClosed() throws {
        let new = try filled(logSize: 8 << 20, count: 9, size: 1000).resized(logSize: 16 << 20, executed: 0)
        let copied = try AcceptorPool(
            in: copy(of: new.pool), expecting: identity.cluster, replica: identity.replica, boot: Boot.current)
        expectRecords(copied)
        try expectVotes(copied, from: 1, to: 9, size: 1000)
    }

    @Test func shrinksByWhatIsExecuted() throws {
        let pool = try filled(logSize: 32 << 20, count: 200, size: 100_000)
        let new = try pool.resized(logSize: 8 << 20, executed: 180)
        let floor = new.floor
        #expect(floor > 50 && floor <= 181 && new.has(logSize: 8 << 20))
        expectRecords(new)
        try expectVotes(new, from: floor, to: 200, size: 100_000)
        let again = try reopened(new)
        expectRecords(again)
        try expectVotes(again, from: floor, to: 200, size: 100_000)
        try again.settle(executed: 180)
    }

    @Test func doesNotShrinkByMore() throws {
        let pool = try filled(logSize: 32 << 20, count: 200, size: 100_000)
        #expect(throws: PoolError.self) { _ = try pool.resized(logSize: 8 << 20, executed: 20) }
        try expectVotes(pool, from: 1, to: 200, size: 100_000)
        #expect(pool.isInPlace && pool.has(logSize: 32 << 20))
        #expect(access(AcceptorPool.path(resizing: path), F_OK) != 0, "nothing is left beside")
        expectRecords(pool)
        try expectVotes(try reopened(pool), from: 1, to: 200, size: 100_000)
    }

    /// A copy must not make damage look whole.
    @Test func leavesOutWhatIsDamaged() throws {
        let pool = try filled(logSize: 8 << 20, count: 20, size: 1000)
        let batch = try #require(pool.entries[7]).batch
        pool.arena.pointer(at: batch.offset).storeBytes(of: 0xEE, as: UInt8.self)
        let new = try pool.resized(logSize: 16 << 20, executed: 12)
        #expect(new.floor == 8)
        try expectVotes(new, from: 8, to: 20, size: 1000)
    }

    @Test func whatACrashLeftGoes() throws {
        let pool = try filled(logSize: 8 << 20, count: 3, size: 10)
        let aside = AcceptorPool.path(resizing: path)
        try AcceptorPool.format(path: aside, identity: identity, size: 8 << 20)
        pool.removeLeftovers()
        #expect(access(aside, F_OK) != 0)
        try AcceptorPool.format(path: aside, identity: identity, size: 8 << 20)
        try expectVotes(try pool.resized(logSize: 16 << 20, executed: 0), from: 1, to: 3, size: 10)
    }
}
