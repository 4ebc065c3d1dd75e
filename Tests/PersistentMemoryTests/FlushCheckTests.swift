import Glibc
import Testing

@testable import MPaxosPersistentMemory

/// The mode that finds, in a whole replica, a message that leaves before what it rests on has reached memory.
@Suite struct FlushCheckTests {
    private static let line = 0..<64

    private func pool(_ plant: String? = nil) throws -> Pool {
        let pool = try CrashRun.emptyPool(size: 64 << 10)
        pool.checkFlushes(planting: plant.flatMap { FlushPlant($0, layout: "mpaxos-acceptor-3") })
        return pool
    }

    @Test func aStoreCountsOnceItIsFlushedAndFenced() throws {
        let pool = try pool()
        #expect(pool.unflushed(Self.line, "it") == nil)
        pool.region.storeBytes(of: 7, toByteOffset: 8, as: UInt64.self)
        #expect(pool.unflushed(Self.line, "it")?.contains("stored and not flushed") == true)
        pool.flush(pool.region.baseAddress!, 64)
        #expect(pool.unflushed(Self.line, "it")?.contains("flushed and not fenced") == true)
        #expect(pool.unflushed(Self.line, "it", pending: false) == nil)
        // Stored again behind the flush: what waits is not what is there.
        pool.region.storeBytes(of: 8, toByteOffset: 8, as: UInt64.self)
        #expect(pool.unflushed(Self.line, "it", pending: false) != nil)
        pool.fence()
        #expect(pool.unflushed(Self.line, "it")?.contains("stored and not flushed") == true)
        pool.flush(pool.region.baseAddress!, 64)
        pool.fence()
        #expect(pool.unflushed(0..<pool.region.count, "it") == nil)
    }

    @Test(arguments: [("acceptor-flush:2", "stored and not flushed"), ("acceptor-fence:2", "flushed and not fenced")])
    func whatIsForgottenIsFound(plant: String, words: String) throws {
        let pool = try pool(plant)
        for round in 1...3 {
            pool.region.storeBytes(of: round, toByteOffset: 64 * round, as: Int.self)
            pool.flush(pool.region.baseAddress! + 64 * round, 64)
            pool.fence()
            let problem = pool.unflushed(0..<4096, "it")
            if round == 2 { #expect(problem?.contains(words) == true) }
            if round == 1 { #expect(problem == nil) }
        }
    }

    @Test func onADiskWhatAnMsyncWroteCounts() throws {
        let file = TemporaryPool(in: "/var/tmp")
        try file.format()
        let pool = try file.open()
        defer { pool.close() }
        try #require(pool.durability == .msync)
        pool.checkFlushes()
        pool.region.storeBytes(of: 7, toByteOffset: 8, as: UInt64.self)
        pool.fence()
        #expect(pool.unflushed(Self.line, "it") != nil)
        pool.flush(pool.region.baseAddress!, 64)
        pool.fence()
        #expect(pool.unflushed(0..<pool.region.count, "it") == nil)
    }

    /// Nothing goes around the one place that flushes: behind a load, the shadow made of what it was told is the region
    /// itself; and the rest of the file, which is libpmemobj's, is what it was when the pool had been opened.
    @Test func allStoresGoThroughTheFlushes() throws {
        let file = TemporaryPool()
        try file.format(journalSize: 64 << 10)
        let pool = try file.open()
        let before = contentInFront(of: pool)
        pool.checkFlushes()
        do {
            let heap = try Heap(opening: pool)
            var random = CrashModel.Seeded(seed: 5)
            var load = Workload()
            for _ in 0..<500 {
                load.command(on: heap, random: &random, largest: 3000)
                heap.transaction.commit()
                #expect(heap.unflushed == nil)
            }
            heap.transaction.checkpoint()
        }
        #expect(pool.unflushed(0..<pool.region.count, "the region") == nil)
        #expect(contentInFront(of: pool) == before)
        pool.close()
    }

    private func contentInFront(of pool: Pool) -> [UInt8] {
        var content = [UInt8](repeating: 0, count: pool.fileOffsetOfRegion)
        #expect(pread(pool.fileDescriptor, &content, content.count, 0) == content.count)
        return content
    }
}
