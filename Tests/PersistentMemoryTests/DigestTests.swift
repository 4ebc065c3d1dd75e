import Glibc
import PersistentMemory
import Testing

@Suite struct DigestTests {
    private func refreshed(_ heap: Heap) -> UInt64 {
        while !heap.refreshDigest(pages: 3) {}
        return heap.digest
    }

    @Test func isAFunctionOfTheCommittedBytes() throws {
        let heap = try smallHeap()
        var load = Workload()
        var random = CrashModel.Seeded(seed: 21)
        for _ in 0..<100 {
            load.command(on: heap, random: &random, largest: 2000)
            heap.transaction.commit()
            if random.below(5) == 0 {
                let incremental = refreshed(heap)
                let afresh = try Heap(opening: CrashRun.copyOf(heap.pool))
                #expect(!afresh.isDigestFresh)
                #expect(refreshed(afresh) == incremental)
            }
        }
    }

    @Test func seesEveryByteAndNothingUncommitted() throws {
        let heap = try smallHeap()
        let block = try heap.transaction.allocate(9000)
        heap.transaction.fill(block, 9000, with: 0)
        heap.transaction.commit()
        let before = refreshed(heap)
        for offset in [0, 1, 4095, 4096, 8999] as [UInt64] {
            heap.transaction.write(1 as UInt8, to: PersistentPointer(offset: block + offset))
            #expect(heap.isDigestFresh && refreshed(heap) == before)
            heap.transaction.commit()
            #expect(!heap.isDigestFresh)
            #expect(refreshed(heap) != before, "byte \(offset)")
            heap.transaction.write(0 as UInt8, to: PersistentPointer(offset: block + offset))
            heap.transaction.commit()
            #expect(refreshed(heap) == before)
        }
    }

    @Test func progressIsOutside() throws {
        let heap = try smallHeap()
        let before = refreshed(heap)
        heap.transaction.write(5 as UInt64, to: PersistentPointer(offset: heap.progressRoot + 8))
        heap.transaction.commit()
        #expect(refreshed(heap) == before)
        let again = try Heap(opening: heap.pool)
        #expect(again.transaction.read(PersistentPointer<UInt64>(offset: 8)) == 5)
        heap.transaction.write(5 as UInt64, to: PersistentPointer(offset: heap.systemRoot))
        heap.transaction.commit()
        #expect(refreshed(heap) != before)
    }

    @Test func pagesOfEqualContentAtOtherPlacesDiffer() {
        func hash(_ words: [UInt64], _ number: UInt64) -> UInt64 {
            words.withUnsafeBytes { PageHash.hash($0.baseAddress!, number: number) }
        }
        let page = [UInt64](repeating: 7, count: 512)
        #expect(hash(page, 1) != hash(page, 2))
        #expect(hash([UInt64](repeating: 0, count: 512), 9) == 0)
        // Single bits and the same bit at two places, where weak mixes cancel.
        var seen: Set<UInt64> = []
        for first in 0..<512 {
            var words = [UInt64](repeating: 0, count: 512)
            words[first] ^= 1 << 63
            seen.insert(hash(words, 0))
            words[(first + 4) % 512] ^= 1 << 63
            seen.insert(hash(words, 0))
        }
        #expect(seen.count == 1024)
    }
}
