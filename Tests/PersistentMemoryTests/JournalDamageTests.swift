import Glibc
import Testing

@testable import MPaxosPersistentMemory

/// Single bits are flipped in all that an open of a heap reads before it maps its data: each flip is refused, or the
/// state is the same after all.
@Suite struct JournalDamageTests {
    /// A heap with some commits in its journal, as it is when the process is killed.
    private final class Killed {
        let commits = 6
        let image: [UInt8]
        let expected: [UInt8]
        /// Where each record begins in the region, and where the last one ends.
        private(set) var records: [Int] = []
        private let scratch: Pool

        init() throws {
            let pool = try CrashRun.emptyPool(size: CrashRun.regionSize)
            try Heap.format(in: pool, progressSize: 4096, journalSize: CrashRun.journalSize)
            let heap = try Heap(opening: pool)
            for number in 1...commits {
                // One line is in every commit, as the progress is.
                heap.transaction.write(number, to: PersistentPointer(offset: 0))
                heap.transaction.write(
                    number, to: PersistentPointer(offset: heap.transaction.root + UInt64(number % 3) * 64))
                heap.transaction.commit()
            }
            image = Array(pool.region)
            expected = Array(heap.transaction.committed)
            scratch = try CrashRun.emptyPool(size: CrashRun.regionSize)
            var at = Pool.pageSize
            for _ in 0..<commits {
                records.append(at)
                at += Journal.recordSize(lines: Int(word(at + 8)))
            }
            records.append(at)
        }

        func word(_ offset: Int) -> UInt64 {
            image.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
        }

        /// - Returns: why it was refused; nil when it opened.
        func open(changing body: (UnsafeMutableRawBufferPointer) -> Void) -> (error: PoolError?, isEqual: Bool) {
            image.withUnsafeBytes { scratch.region.copyMemory(from: $0) }
            body(scratch.region)
            let before = Array(scratch.region)
            do {
                let heap = try Heap(opening: scratch)
                return (nil, memcmp(heap.transaction.committed.baseAddress!, expected, expected.count) == 0)
            } catch {
                // What is refused is left as it was found.
                return (error, memcmp(scratch.region.baseAddress!, before, before.count) == 0)
            }
        }

        func open(flipping bit: Int) -> (error: PoolError?, isEqual: Bool) {
            open { $0[bit / 8] ^= 1 << UInt8(bit % 8) }
        }
    }

    @Test func untouchedItOpens() throws {
        let killed = try Killed()
        let found = killed.open { _ in }
        #expect(found.error == nil && found.isEqual)
    }

    @Test func everyBitOfTheHeaderCounts() throws {
        let killed = try Killed()
        var refused = 0
        for bit in 0..<8 * 1024 {
            let found = killed.open(flipping: bit)
            #expect(found.isEqual, "bit \(bit): \(found.error?.description ?? "opened with another state")")
            if found.error != nil { refused += 1 }
        }
        // The layout, its checksum, the first commit and the newest one.
        #expect(refused >= 8 * (64 + 8 + 8 + 8))
    }

    @Test func everyBitOfTheJournalCounts() throws {
        let killed = try Killed()
        var refused = 0
        for bit in 8 * killed.records[0]..<8 * (killed.records[killed.commits] + 128) {
            let found = killed.open(flipping: bit)
            #expect(found.isEqual, "bit \(bit): \(found.error?.description ?? "opened with another state")")
            if found.error != nil {
                refused += 1
                #expect(found.error?.kind == .damaged)
            }
        }
        // All but what a head leaves unused.
        #expect(refused >= 8 * (killed.records[killed.commits] - killed.records[0] - 24 * killed.commits))
    }

    @Test func theRefusalNamesPoolCommitAndPlace() throws {
        let killed = try Killed()
        for number in 0..<killed.commits {
            let at = killed.records[number]
            let error = try #require(killed.open(flipping: 8 * (at + 70)).error)
            #expect(error.description.contains("(image): "))
            #expect(error.description.contains("commit \(killed.word(at)) "), "\(error)")
            #expect(error.description.contains("offset \(at) "), "\(error)")
        }
    }

    /// After a loss of power the newest number need not have arrived: a good record behind a bad one tells as much.
    @Test func aGoodRecordBehindABadOneIsFoundByItself() throws {
        let killed = try Killed()
        let first = killed.word(killed.records[0])
        for number in 0..<killed.commits {
            let found = killed.open {
                $0.storeBytes(
                    of: CheckedNumber(first + UInt64(number) - 1), toByteOffset: HeapLayout.newestCommitOffset,
                    as: CheckedNumber.self)
                $0[killed.records[number] + 70] ^= 1
            }
            // Of the last one nothing tells that it was ever whole: it counts as torn.
            #expect((found.error != nil) == (number < killed.commits - 1), "record \(number)")
        }
    }

    /// A record whose length is damaged is looked behind at every line.
    @Test func aRecordOfUnknownLengthDoesNotHideTheNext() throws {
        let killed = try Killed()
        let found = killed.open {
            let first = killed.word(killed.records[0])
            $0.storeBytes(
                of: CheckedNumber(first + 1), toByteOffset: HeapLayout.newestCommitOffset, as: CheckedNumber.self)
            memset($0.baseAddress! + killed.records[2], 0xFF, 64)
        }
        #expect(found.error?.description.contains("follows at offset \(killed.records[3])") == true)
    }

    /// What an operator finds in a journal after many checkpoints: older records behind the newest ones.
    @Test func olderRecordsBehindTheEndAreNoDamage() throws {
        let pool = try CrashRun.emptyPool(size: CrashRun.regionSize)
        try Heap.format(in: pool, progressSize: 4096, journalSize: CrashRun.journalSize)
        let heap = try Heap(opening: pool)
        for round in 1...5 {
            for number in 0..<(6 - round) * 4 {
                heap.transaction.write(number, to: PersistentPointer(offset: heap.transaction.root))
                heap.transaction.commit()
            }
            let again = try Heap(opening: CrashRun.copyOf(pool))
            #expect(again.replayedCommits == (6 - round) * 4)
            heap.transaction.checkpoint()
        }
    }
}

@Suite struct AllocatorDamageTests {
    @Test func everyBitOfTheAllocatorsRecordsCounts() throws {
        let pool = try CrashRun.emptyPool(size: CrashRun.regionSize)
        try Heap.format(in: pool, progressSize: 4096, journalSize: CrashRun.journalSize, reserveSize: 12 << 10)
        let heap = try Heap(opening: pool)
        var load = Workload()
        var random = CrashModel.Seeded(seed: 4)
        for _ in 0..<100 {
            load.command(on: heap, random: &random, largest: 900)
            heap.transaction.commit()
        }
        heap.transaction.checkpoint()
        let image = Array(pool.region)
        let scratch = try CrashRun.emptyPool(size: CrashRun.regionSize)
        let start = CrashRun.dataOffset + Int(heap.transaction.layout.allocator)
        // All counters and maps, and some of the many heads.
        let bits = Array(0..<8 * 384) + Array(stride(from: 8 * 384, to: 8 * AllocatorLayout.size, by: 11))
        for bit in bits where !(8 * 40..<8 * 64).contains(bit) {
            image.withUnsafeBytes { scratch.region.copyMemory(from: $0) }
            scratch.region[start + bit / 8] ^= 1 << UInt8(bit % 8)
            do {
                _ = try Heap(opening: scratch)
                Issue.record("bit \(bit) of the allocator's records is not noticed")
            } catch {
                #expect(error.kind == .damaged && error.description.contains("offset \(start) "))
            }
        }
    }
}

@Suite struct CheckedNumberTests {
    @Test func anyOneOrTwoFlippedBitsAreNoticed() {
        for number in [0, 1, 2, 255, 65_536, 0x1234_5678_9ABC, CheckedNumber.limit - 1] as [UInt64] {
            let word = CheckedNumber(number).word
            #expect(CheckedNumber(word: word).number == number)
            for one in 0..<64 {
                for two in one..<64 {
                    let flipped = one == two ? word ^ 1 << one : word ^ 1 << one ^ 1 << two
                    #expect(CheckedNumber(word: flipped).number == nil, "bits \(one) and \(two) of \(number)")
                }
            }
        }
    }

    /// Zeros, and one bit in zeros, are no number: a line that was lost does not pass for a count of nothing.
    @Test func zerosAreNoNumber() {
        #expect(CheckedNumber(word: 0).number == nil)
        for bit in 0..<64 { #expect(CheckedNumber(word: 1 << bit).number == nil) }
    }
}
