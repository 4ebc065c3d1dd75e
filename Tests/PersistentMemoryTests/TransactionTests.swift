import Glibc
import MPaxosPersistentMemory
import Testing

@Suite struct TransactionTests {
    @Test func aRolledBackCommandLeavesNothing() throws {
        let heap = try smallHeap()
        var load = Workload()
        var random = CrashModel.Seeded(seed: 3)
        for _ in 0..<50 { load.command(on: heap, random: &random, largest: 2000) }
        let before = copy(heap.transaction.bytes(0, Int(heap.capacity)))
        let room = heap.transaction.journalRoom
        for _ in 0..<50 {
            var other = load
            heap.transaction.beginCommand()
            other.command(on: heap, random: &random, largest: 2000, ends: false)
            heap.transaction.rollbackCommand()
            #expect(areEqual(heap.transaction.bytes(0, Int(heap.capacity)), before))
            #expect(heap.transaction.journalRoom == room)
        }
        _ = try heap.verify()
    }

    @Test func overlappingWritesAreUndoneInOrder() throws {
        let heap = try smallHeap()
        let transaction = heap.transaction
        let block = try transaction.allocate(300)
        transaction.fill(block, 300, with: 1)
        transaction.commit()
        transaction.beginCommand()
        transaction.fill(block, 200, with: 2)
        transaction.fill(block + 100, 200, with: 3)
        transaction.write(7 as UInt64, to: PersistentPointer(offset: block + 150))
        transaction.rollbackCommand()
        #expect(transaction.bytes(block, 300).allSatisfy { $0 == 1 })
        #expect(!transaction.isDirty)
    }

    @Test func aCommandLargerThanTheJournalIsRolledBack() throws {
        let heap = try smallHeap(size: 1 << 20, journalSize: 16 << 10)
        let transaction = heap.transaction
        transaction.beginCommand()
        let small = try transaction.allocate(100)
        transaction.fill(small, 100, with: 1)
        transaction.beginCommand()
        let large = try transaction.allocate(300_000)
        transaction.fill(large, 300_000, with: 2)
        #expect(transaction.overflowed)
        #expect(transaction.journalRoom == 0)
        transaction.rollbackCommand()
        #expect(!transaction.overflowed)
        transaction.commit()
        let again = try Heap(opening: heap.pool)
        #expect(again.transaction.bytes(small, 100).allSatisfy { $0 == 1 })
        #expect(try again.verify().allocatedBlocks == 1)
    }

    @Test func aCommitThatFillsTheJournalToTheLastLine() throws {
        let heap = try smallHeap(size: 1 << 20, journalSize: 16 << 10)
        let transaction = heap.transaction
        let base = ((heap.systemRoot + 4096) / 4096 + 5) * 4096
        for round in 1...3 as ClosedRange<UInt8> {
            var lines: UInt64 = 0
            while transaction.journalRoom >= 128 {
                transaction.write(round, to: PersistentPointer(offset: base + lines * 64))
                #expect(!transaction.overflowed)
                lines += 1
            }
            #expect(lines > 220)
            transaction.commit()
            let again = try Heap(opening: heap.pool)
            for line in 0..<lines {
                #expect(again.transaction.read(PersistentPointer<UInt8>(offset: base + line * 64)) == round)
            }
            #expect(transaction.journalRoom > 15 << 10)
        }
    }

    @Test func givesBackTheViewsMemoryAndKeepsItsContent() throws {
        let pool = try CrashRun.emptyPool(size: 4 << 20)
        try Heap.format(in: pool, progressSize: 4096, journalSize: 512 << 10)
        let heap = try Heap(opening: pool, viewLimit: 64 << 10)
        let transaction = heap.transaction
        let block = try transaction.allocate(2 << 20)
        var mostPages = 0
        for page in 0..<512 as Range<UInt64> {
            transaction.fill(block + page * 4096, 4096, with: UInt8(truncatingIfNeeded: page))
            transaction.commit()
            mostPages = max(mostPages, transaction.privatePages)
        }
        #expect(mostPages <= 17)
        #expect(mostPages > 10)
        for page in 0..<512 as Range<UInt64> {
            #expect(transaction.bytes(block + page * 4096, 4096).allSatisfy { $0 == UInt8(truncatingIfNeeded: page) })
        }
    }

    @Test func aQueryThatWritesStopsTheProcess() async {
        await #expect(processExitsWith: .failure) {
            let heap = try smallHeap()
            heap.transaction.readOnly = true
            heap.transaction.write(1, to: PersistentPointer(offset: heap.transaction.root))
        }
    }

    @Test func aWriteOutsideTheHeapStopsTheProcess() async {
        await #expect(processExitsWith: .failure) {
            let heap = try smallHeap()
            _ = heap.transaction.mutableBytes(1 << 20, 1)
        }
    }

    @Test func aReadAcrossTheEndStopsTheProcess() async {
        await #expect(processExitsWith: .failure) {
            let heap = try smallHeap()
            _ = heap.transaction.bytes(UInt64.max, Int.max)
        }
    }
}
