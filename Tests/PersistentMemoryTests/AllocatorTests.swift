import Glibc
import MPaxosPersistentMemory
import Testing

@Suite struct AllocatorTests {
    /// Against a plain model: blocks never overlap, hold what was put in, and the heap's own accounts agree.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithAModel(seed: UInt64) throws {
        let heap = try smallHeap(size: 4 << 20, journalSize: 1 << 20)
        let transaction = heap.transaction
        var random = CrashModel.Seeded(seed: seed)
        var blocks: [(offset: UInt64, size: Int, byte: UInt8, share: AllocationClass)] = []
        for step in 0..<6000 {
            // Grows at first, is emptied at the end.
            let grows = step < 2000 ? 3 : step < 4000 ? 2 : 1
            if random.below(4) < grows {
                let size = [16, 100, 700, 5000, 60_000][random.below(5)]
                let count = random.below(size)
                let share: AllocationClass = random.below(5) == 0 ? .reserve : .data
                guard let offset = try? transaction.allocate(count, from: share) else { continue }
                #expect(offset % 16 == 0)
                #expect(transaction.size(of: offset) >= count)
                let byte = UInt8(truncatingIfNeeded: step)
                transaction.fill(offset, count, with: byte)
                blocks.append((offset, count, byte, share))
            } else if !blocks.isEmpty {
                let block = blocks.swapRemove(at: random.below(blocks.count))
                #expect(transaction.bytes(block.offset, block.size).allSatisfy { $0 == block.byte })
                transaction.free(block.offset)
            }
            if transaction.journalRoom < 200_000 { transaction.commit() }
            if step % 250 == 0 {
                let census = try heap.verify()
                #expect(census.allocatedBlocks == blocks.count)
                #expect(census.dataBytes + census.reserveBytes + census.freeBytes == heap.capacity)
                #expect(census.dataBytes <= heap.dataLimit)
            }
        }
        for block in blocks {
            #expect(transaction.bytes(block.offset, block.size).allSatisfy { $0 == block.byte })
            transaction.free(block.offset)
            if transaction.journalRoom < 200_000 { transaction.commit() }
        }
        let census = try heap.verify()
        // All neighbours were joined: one piece is left.
        #expect(census.allocatedBlocks == 0 && census.freeBlocks == 1)
        #expect(census.dataBytes == 0 && census.reserveBytes == 0)
        #expect(census.freeBytes == heap.capacity && census.largestFreeBlock == heap.capacity)
    }

    @Test func dataStopsAtItsLimitAndTheReserveGoesOn() throws {
        let heap = try smallHeap(size: 1 << 20, journalSize: 64 << 10, reserveSize: 200_000)
        let transaction = heap.transaction
        var blocks: [UInt64] = []
        #expect(throws: Refusal.full) {
            while true {
                blocks.append(try transaction.allocate(1000))
                transaction.commit()
            }
        }
        #expect(transaction.dataBytes <= heap.dataLimit)
        #expect(transaction.dataBytes > heap.dataLimit - 1100)
        var replies: [UInt64] = []
        for _ in 0..<150 {
            replies.append(try transaction.allocate(1000, from: .reserve))
            transaction.commit()
        }
        #expect(transaction.reserveBytes >= 150_000)
        // A piece of the reserve given back is not the data's.
        for reply in replies { transaction.free(reply) }
        #expect(transaction.reserveBytes == 0)
        #expect(throws: Refusal.full) { try transaction.allocate(1000) }
        transaction.free(blocks[3])
        #expect(throws: Never.self) { try transaction.allocate(1000) }
        #expect(throws: Refusal.full) { try transaction.allocate(Int.max) }
        #expect(throws: Refusal.full) { try transaction.allocate(1 << 40, from: .reserve) }
    }

    @Test func largeBlocksInALargePool() throws {
        let file = TemporaryPool()
        try file.format(size: 256 << 20, journalSize: 80 << 20)
        let pool = try file.open()
        defer { pool.close() }
        let heap = try Heap(opening: pool)
        let large = try heap.transaction.allocate(48 << 20)
        heap.transaction.fill(large, 48 << 20, with: 9)
        #expect(!heap.transaction.overflowed)
        heap.transaction.commit()
        heap.transaction.free(large)
        #expect(try heap.transaction.allocate(40 << 20) == large)
        _ = try heap.verify()
    }

    /// The same commands give the same bytes, whatever was rolled back or reopened between them.
    @Test func isDeterministic() throws {
        func run(detours: Bool) throws -> UInt64 {
            var heap = try smallHeap()
            var load = Workload()
            var random = CrashModel.Seeded(seed: 11)
            var other = CrashModel.Seeded(seed: 12)
            for step in 0..<400 {
                if detours, step % 3 == 0 {
                    var ignored = Workload()
                    heap.transaction.beginCommand()
                    ignored.command(on: heap, random: &other, largest: 3000, ends: false)
                    heap.transaction.rollbackCommand()
                }
                load.command(on: heap, random: &random, largest: 3000)
                if detours ? step % 7 == 0 : step % 2 == 0 { heap.transaction.commit() }
                if detours, step % 49 == 0 { heap = try Heap(opening: heap.pool) }
            }
            heap.transaction.commit()
            return heap.recomputedDigest()
        }
        #expect(try run(detours: true) == run(detours: false))
    }

    @Test func damageIsFound() throws {
        let heap = try smallHeap()
        var load = Workload()
        var random = CrashModel.Seeded(seed: 5)
        for _ in 0..<200 {
            load.command(on: heap, random: &random, largest: 3000)
            heap.transaction.commit()
        }
        _ = try heap.verify()
        var blocks: [UInt64] = []
        heap.forEachBlock { offset, _, _ in blocks.append(offset) }
        #expect(blocks.count == load.blocks.count)
        for (number, block) in blocks.prefix(20).enumerated() {
            let place = PersistentPointer<UInt64>(offset: block - 16 + UInt64(number % 2) * 8)
            let old = heap.transaction.read(place)
            heap.transaction.write(old ^ (1 << UInt64(4 + number)), to: place)
            #expect(throws: PoolError.self) { try heap.verify() }
            heap.transaction.write(old, to: place)
        }
        _ = try heap.verify()
    }

    @Test func freeingTwiceStopsTheProcess() async {
        await #expect(processExitsWith: .failure) {
            let heap = try smallHeap()
            let block = try heap.transaction.allocate(100)
            heap.transaction.free(block)
            heap.transaction.free(block)
        }
    }
}
