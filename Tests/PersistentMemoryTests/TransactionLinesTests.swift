import Glibc
import MPaxosCSupport
import Testing

@testable import MPaxosPersistentMemory

/// Lines on their way into a commit: how they are marked, summed and copied.
@Suite struct TransactionLinesTests {
    typealias Seeded = CrashModel.Seeded

    /// CRC32C registers bit by bit, as the definition has it: the yardstick.
    private func slowSums(_ lines: [UInt8], _ sums: [UInt32]) -> [UInt32] {
        var sums = sums
        for (index, byte) in lines.enumerated() {
            let lane = index % 64 / 16
            sums[lane] ^= UInt32(byte)
            for _ in 0..<8 { sums[lane] = sums[lane] >> 1 ^ (sums[lane] & 1 == 0 ? 0 : 0x82F6_3B78) }
        }
        return sums
    }

    @Test func sumsAreFourCRCsAlikeOnEveryProcessor() {
        var random = Seeded(seed: 1)
        for count in 0..<20 {
            let lines = (0..<count * 64).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let seeds = (0..<4).map { _ in UInt32(truncatingIfNeeded: random.next()) }
            let expected = slowSums(lines, seeds)
            var (fast, portable) = (seeds, seeds)
            csupport_sum_lines(lines, count, &fast)
            csupport_sum_lines_portable(lines, count, &portable)
            #expect(fast == expected)
            #expect(portable == expected)
        }
    }

    @Test func linesAreGatheredAndScattered() {
        let count = 32
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 3 * count * 64, alignment: 64)
        defer { memory.deallocate() }
        var random = Seeded(seed: 2)
        for offset in 0..<count * 64 {
            memory.storeBytes(of: UInt8(truncatingIfNeeded: random.next()), toByteOffset: offset, as: UInt8.self)
        }
        let source = [UInt8](UnsafeRawBufferPointer(start: memory, count: count * 64))
        let numbers: [UInt64] = [3, 4, 5, 31, 0, 17, 4]
        let (gathered, scattered) = (memory + count * 64, memory + 2 * count * 64)
        memset(gathered, 0, 2 * count * 64)

        var sums: [UInt32] = [1, 2, 3, 4]
        csupport_gather_lines(gathered, memory, numbers, numbers.count, &sums)
        csupport_scatter_lines(scattered, memory, numbers, numbers.count)
        let wanted = numbers.flatMap { source[Int($0) * 64..<Int($0) * 64 + 64] }
        #expect(areEqual(UnsafeRawBufferPointer(start: gathered, count: wanted.count), wanted))
        #expect(sums == slowSums(wanted, [1, 2, 3, 4]))
        for line in 0..<count {
            let expected = numbers.contains(UInt64(line)) ? Array(source[line * 64..<line * 64 + 64]) : zeros
            #expect(areEqual(UnsafeRawBufferPointer(start: scattered + line * 64, count: 64), expected))
        }

        sums = [1, 2, 3, 4]
        csupport_copy_lines(gathered, memory, count, &sums)
        #expect(areEqual(UnsafeRawBufferPointer(start: gathered, count: count * 64), source))
        #expect(sums == slowSums(source, [1, 2, 3, 4]))
    }

    private var zeros: [UInt8] { [UInt8](repeating: 0, count: 64) }

    /// Against a set and an array: marks of every length and place, truncations, and more than there is room for.
    @Test func marksAreASetInTheOrderOfTheFirstWrite() {
        let lines = 1000
        var dirty = DirtyLines(lines: lines, capacity: 10)
        defer { dirty.deallocate() }
        var random = Seeded(seed: 3)
        var order: [UInt64] = []
        for _ in 0..<3000 {
            let offset = random.below(lines * 64)
            let bytes = 1 + random.below(min(random.below(4) == 0 ? 10_000 : 200, lines * 64 - offset))
            let range = UInt64(offset / 64)...UInt64((offset + bytes - 1) / 64)
            let wasMarked = dirty.mark(UInt64(offset), bytes)
            #expect(wasMarked == range.contains { order.contains($0) })
            for line in range where !order.contains(line) { order.append(line) }
            #expect(order == (0..<dirty.count).map { dirty.list[$0] })
            if random.below(20) == 0 {
                let kept = random.below(order.count + 1)
                dirty.truncate(to: kept)
                order.removeLast(order.count - kept)
            }
            if random.below(50) == 0 {
                var pages: [UInt64] = []
                dirty.removeAll { pages.append($0) }
                #expect(Set(pages) == Set(order.map { $0 / 64 }) && Set(pages).count == pages.count)
                #expect(dirty.count == 0)
                order = []
            }
        }
    }

    /// A long write whose first and last lines were written before in the same commit is undone byte for byte, and does
    /// not have the lines between kept.
    @Test func longWritesAreUndone() throws {
        var random = Seeded(seed: 3)
        let heap = try smallHeap()
        let transaction = heap.transaction
        let block = try transaction.allocate(8192)
        transaction.fill(block, 8192, with: 1)
        transaction.commit()
        for _ in 0..<200 {
            let start = UInt64(random.next() % 2000)
            let count = 1 + Int(random.next() % 4000)
            for place in [start, start + UInt64(count) - 1, start + UInt64(count / 2)].prefix(Int(random.next() % 4)) {
                transaction.write(
                    UInt8(truncatingIfNeeded: random.next()), to: PersistentPointer(offset: block + place))
            }
            let before = Array(transaction.bytes(block, 8192))
            transaction.beginCommand()
            transaction.fill(block + start, count, with: 9)
            transaction.rollbackCommand()
            #expect(Array(transaction.bytes(block, 8192)) == before)
            if random.next() % 8 == 0 { transaction.commit() }
        }
        transaction.commit()
        transaction.write(UInt8(5), to: PersistentPointer(offset: block + 64))
        transaction.beginCommand()
        _ = transaction.mutableBytes(block + 70, 8000)
        #expect(transaction.state.pointee.undo.used <= 64 + 16)
        transaction.rollbackCommand()
    }
}
