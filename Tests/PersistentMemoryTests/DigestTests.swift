import Glibc
import Testing

@testable import MPaxosPersistentMemory

/// The digest that commits keep is that of the bytes, whatever happens; and a pass over the bytes finds what was not a
/// commit.
@Suite struct DigestTests {
    /// A heap in memory that knows its digest.
    private func heap() throws -> Heap {
        let heap = try smallHeap()
        heap.trust(digest: heap.recomputedDigest())
        return heap
    }

    /// A whole pass, in slices of `pages`.
    private func pass(over heap: Heap, pages: Int = 3) -> UInt64 {
        while true { if let found = heap.verifyDigest(pages: pages) { return found } }
    }

    private func home(_ heap: Heap, _ offset: UInt64) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(mutating: heap.transaction.committed.baseAddress!) + Int(offset)
    }

    /// Commands, rollbacks and commits by chance, with a pass under way all the time.
    @Test(arguments: 21...23 as ClosedRange<UInt64>)
    func isThatOfTheCommittedBytes(seed: UInt64) throws {
        let heap = try heap()
        var load = Workload()
        var random = CrashModel.Seeded(seed: seed)
        var passes = 0
        for step in 0..<600 {
            for _ in 0..<random.below(4) { load.command(on: heap, random: &random, largest: 2000) }
            let before = heap.digest
            if random.below(4) == 0, !heap.transaction.overflowed {
                heap.transaction.beginCommand()
                var lost = load
                lost.command(on: heap, random: &random, largest: 5000, ends: false)
                #expect(heap.digest == before, "nothing counts before its commit")
                heap.transaction.rollbackCommand()
            }
            var stored: UInt64?
            heap.transaction.commit { stored = $0 }
            #expect(stored == nil || stored == heap.digest)
            try #require(heap.digest == heap.recomputedDigest(), "step \(step)")
            if let found = heap.verifyDigest(pages: 1 + random.below(3)) {
                try #require(found == heap.digest, "step \(step)")
                passes += 1
            }
        }
        #expect(passes > 5)
        // All that lies above what the heap has used is zero.
        let first = Int(heap.progressSize)
        let area = UnsafeRawBufferPointer(rebasing: heap.transaction.committed[first...])
        #expect(LineHash.sum(area.baseAddress!, count: area.count / 64, first: 0) == heap.digest)
        let afresh = try Heap(opening: CrashRun.copyOf(heap.pool))
        #expect(afresh.recomputedDigest() == heap.digest)
    }

    @Test func progressIsOutside() throws {
        let heap = try heap()
        let before = heap.digest
        heap.transaction.write(5 as UInt64, to: PersistentPointer(offset: heap.progressRoot + 8))
        heap.transaction.commit { digest in
            heap.transaction.write(digest, to: PersistentPointer(offset: heap.progressRoot + 16))
        }
        #expect(heap.digest == before && heap.recomputedDigest() == before)
        let again = try Heap(opening: heap.pool)
        #expect(again.transaction.read(PersistentPointer<UInt64>(offset: 8)) == 5)
        #expect(again.transaction.read(PersistentPointer<UInt64>(offset: 16)) == before)
        heap.transaction.write(5 as UInt64, to: PersistentPointer(offset: heap.systemRoot))
        heap.transaction.commit()
        #expect(heap.digest != before)
    }

    /// Any bit of what is committed, changed by no commit, is found by the next pass, wherever the one under way
    /// stands.
    @Test func aChangedBitIsFound() throws {
        let heap = try heap()
        let block = try heap.transaction.allocate(40_000)
        heap.transaction.fill(block, 40_000, with: 7)
        heap.transaction.commit()
        var random = CrashModel.Seeded(seed: 5)
        for _ in 0..<200 {
            let place = home(heap, block + UInt64(random.below(40_000))).assumingMemoryBound(to: UInt8.self)
            let bit = 1 << UInt8(random.below(8)) as UInt8
            #expect(pass(over: heap) == heap.digest)
            for _ in 0..<random.below(5) { #expect(heap.verifyDigest(pages: 1) == nil) }
            place.pointee ^= bit
            _ = pass(over: heap)
            #expect(pass(over: heap) != heap.digest)
            place.pointee ^= bit
        }
    }

    /// What is written over damage does not hide it: the line left the sum as it was then.
    @Test func aChangedBitIsFoundAfterItWasOverwritten() throws {
        let heap = try heap()
        let block = try heap.transaction.allocate(4096)
        heap.transaction.fill(block, 4096, with: 7)
        heap.transaction.commit()
        // Opened anew, so that the view shows what lies at home.
        let again = try Heap(opening: heap.pool)
        again.trust(digest: heap.digest)
        home(again, block + 100).assumingMemoryBound(to: UInt8.self).pointee ^= 1
        memcpy(again.transaction.view + Int(block), home(again, block), 4096)
        again.transaction.fill(block, 4096, with: 8)
        again.transaction.commit()
        #expect(again.recomputedDigest() != again.digest)
    }
}

@Suite struct LineHashTests {
    private func hash(_ words: [UInt64], _ number: UInt64 = 0) -> UInt64 {
        words.withUnsafeBytes { LineHash.hash($0.baseAddress!, number: number) }
    }

    private static let line: [UInt64] = [1, 2, 3, 4, 5, 6, 7, 8]

    /// Stored in pools and compared between replicas: it must not change within a version of the layout.
    @Test func staysTheSame() {
        #expect(hash(Self.line) == 0x2EC0_1C14_A024_F93F)
        #expect(hash(Self.line, 1 << 40) == 0xCD8E_0C4B_88F1_0D34)
        #expect(hash([UInt64](repeating: 0, count: 8), 9) == 0)
    }

    /// Each bit of a line changes about half of the bits of its hash, and no two bits change it in the same way.
    @Test(arguments: [[0, 0, 0, 0, 0, 0, 0, 1 << 40], line, [UInt64](repeating: .max, count: 8)] as [[UInt64]])
    func everyBitCounts(line: [UInt64]) {
        let before = hash(line, 77)
        var changes: Set<UInt64> = []
        var flipped = 0
        for bit in 0..<512 {
            var other = line
            other[bit / 64] ^= 1 << UInt64(bit % 64)
            let change = hash(other, 77) ^ before
            changes.insert(change)
            #expect((8...56).contains(change.nonzeroBitCount), "bit \(bit)")
            flipped += change.nonzeroBitCount
        }
        #expect(changes.count == 512 && !changes.contains(0))
        #expect((15_800...17_000).contains(flipped), "\(flipped) of \(512 * 64)")
    }

    /// Pairs of bits, where weak mixes cancel.
    @Test func noTwoBitsCancel() {
        let zeros = [UInt64](repeating: 0, count: 8)
        var seen: Set<UInt64> = []
        for first in 0..<512 {
            for second in first..<512 {
                var line = zeros
                line[first / 64] ^= 1 << UInt64(first % 64)
                line[second / 64] ^= 1 << UInt64(second % 64)
                seen.insert(hash(line))
            }
        }
        // One bit twice is a line of zeros.
        #expect(seen.count == 512 * 511 / 2 + 1)
    }

    @Test func placesAndOrderCount() {
        var seen: Set<UInt64> = []
        for number in 0..<4096 as Range<UInt64> { seen.insert(hash(Self.line, number)) }
        #expect(seen.count == 4096)
        for first in 0..<8 {
            for second in first + 1..<8 {
                var line = Self.line
                line.swapAt(first, second)
                seen.insert(hash(line))
            }
        }
        #expect(seen.count == 4096 + 28)
        // Two lines that change places, and a line that is cut in halves.
        let other = Self.line.map { $0 &* 0x1_0001 }
        #expect(hash(Self.line, 3) &+ hash(other, 4) != hash(other, 3) &+ hash(Self.line, 4))
    }

    @Test func aSumIsThatOfItsLines() {
        var words = [UInt64](repeating: 0, count: 16)
        for word in 16..<64 { words.append(UInt64(word)) }
        var expected: UInt64 = 0
        for line in 0..<8 { expected &+= hash(Array(words[line * 8..<line * 8 + 8]), UInt64(5 + line)) }
        let sum = words.withUnsafeBytes { LineHash.sum($0.baseAddress!, count: 8, first: 5) }
        #expect(sum == expected)
    }
}
