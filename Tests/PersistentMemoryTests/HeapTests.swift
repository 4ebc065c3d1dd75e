import Glibc
import MPaxosPersistentMemory
import Testing

@Suite struct HeapTests {
    @Test func reopensWithWhatWasCommitted() throws {
        let file = TemporaryPool()
        try file.format()
        var offset: UInt64 = 0
        do {
            let pool = try file.open()
            let heap = try Heap(opening: pool)
            let transaction = heap.transaction
            transaction.beginCommand()
            offset = try transaction.allocate(100)
            transaction.write(42 as UInt64, to: PersistentPointer(offset: offset))
            transaction.write(offset, to: PersistentPointer(offset: transaction.root))
            transaction.commit()
            transaction.beginCommand()
            transaction.write(43 as UInt64, to: PersistentPointer(offset: offset))
            pool.close()
        }
        let pool = try file.open()
        defer { pool.close() }
        let heap = try Heap(opening: pool)
        #expect(heap.replayedCommits == 1)
        #expect(heap.transaction.read(PersistentPointer<UInt64>(offset: heap.transaction.root)) == offset)
        #expect(heap.transaction.read(PersistentPointer<UInt64>(offset: offset)) == 42)
        #expect(try heap.verify().allocatedBlocks == 1)
    }

    /// The state as another process finds it when this one is gone without a word.
    @Test func aHeapThatWasNotClosedIsFoundAgain() throws {
        let heap = try smallHeap(journalSize: 32 << 10)
        var load = Workload()
        var random = CrashModel.Seeded(seed: 31)
        for step in 0..<600 {
            load.command(on: heap, random: &random, largest: 2000)
            if heap.transaction.journalRoom < 12 << 10 || step % 5 == 0 {
                heap.transaction.commit()
                guard step % 50 == 0 else { continue }
                let image = copy(UnsafeRawBufferPointer(heap.pool.region))
                let other = try image.withUnsafeBytes { try Heap(opening: Pool(image: $0)) }
                #expect(areEqual(other.transaction.committed, copy(heap.transaction.committed)))
                _ = try other.verify()
            }
        }
    }

    /// A process killed in the middle of a batch leaves the last commit, and its lock is gone.
    @Test func survivesSIGKILL() async throws {
        let file = TemporaryPool()
        try file.format(size: 16 << 20)
        let path = file.path
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
            let heap = try Heap(opening: Pool(opening: path, layout: "test-1"))
            let transaction = heap.transaction
            let block = try transaction.allocate(100_000)
            transaction.write(block, to: PersistentPointer(offset: transaction.root))
            for round in 1...100 as ClosedRange<UInt8> {
                transaction.fill(block, 100_000, with: round)
                transaction.commit()
            }
            transaction.fill(block, 50_000, with: 200)
            kill(getpid(), SIGKILL)
        }
        let pool = try file.open()
        defer { pool.close() }
        let heap = try Heap(opening: pool)
        let block = heap.transaction.read(PersistentPointer<UInt64>(offset: heap.transaction.root))
        #expect(heap.transaction.bytes(block, 100_000).allSatisfy { $0 == 100 })
        #expect(try heap.verify().allocatedBlocks == 1)
    }

    @Test func theOwnerKeepsTheStartOfTheRegion() throws {
        let pool = try CrashRun.emptyPool(size: 1 << 20)
        pool.region.storeBytes(of: 77, toByteOffset: 4088, as: UInt64.self)
        try Heap.format(in: pool, regionOffset: 4096, progressSize: 1)
        let heap = try Heap(opening: pool, regionOffset: 4096)
        #expect(heap.progressSize == 4096)
        heap.transaction.fill(heap.systemRoot, 4096, with: 3)
        heap.transaction.fill(heap.transaction.root, 256, with: 4)
        heap.transaction.commit()
        #expect(pool.region.load(fromByteOffset: 4088, as: UInt64.self) == 77)
        let again = try Heap(opening: pool, regionOffset: 4096)
        #expect(again.transaction.bytes(again.systemRoot, 4096).allSatisfy { $0 == 3 })
        #expect(again.transaction.bytes(again.transaction.root, 256).allSatisfy { $0 == 4 })
        #expect(throws: PoolError.self) { try Heap(opening: pool, regionOffset: 8192) }
        _ = try again.verify()
    }

    @Test func opensALargePool() throws {
        let file = TemporaryPool()
        try file.format(size: 1 << 30)
        let clock = ContinuousClock()
        var digest: UInt64 = 0
        let opening = try clock.measure {
            let pool = try file.open()
            let heap = try Heap(opening: pool)
            let block = try heap.transaction.allocate(1000)
            heap.transaction.fill(block, 1000, with: 1)
            heap.transaction.commit()
            digest = heap.recomputedDigest()
            pool.close()
        }
        print("a pool of 1 GiB opened, used and closed in \(opening)")
        let pool = try file.open()
        defer { pool.close() }
        let heap = try Heap(opening: pool)
        #expect(heap.recomputedDigest() == digest)
        #expect(heap.capacity > 900 << 20)
    }
}
