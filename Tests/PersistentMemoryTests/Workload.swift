import Glibc
import MPaxosPersistentMemory

/// A seeded load on a heap: blocks allocated, filled, changed, freed; commands rolled back; progress written.
struct Workload {
    typealias Seeded = CrashModel.Seeded

    private(set) var blocks: [(offset: UInt64, size: Int)] = []
    private var before: [(offset: UInt64, size: Int)] = []

    /// One command; every eighth is rolled back.
    /// - Parameter ends: false leaves the command that the caller began for it to end.
    mutating func command(on heap: Heap, random: inout Seeded, largest: Int, ends: Bool = true) {
        let transaction = heap.transaction
        before = blocks
        if ends { transaction.beginCommand() }
        for _ in 0..<1 + random.below(4) { step(on: heap, random: &random, largest: largest) }
        guard ends else { return }
        if random.below(8) == 0 || transaction.overflowed {
            transaction.rollbackCommand()
            blocks = before
        } else {
            transaction.endCommand()
        }
        transaction.write(random.next(), to: PersistentPointer(offset: UInt64(random.below(64)) * 8))
    }

    private mutating func step(on heap: Heap, random: inout Seeded, largest: Int) {
        let transaction = heap.transaction
        switch random.below(8) {
        case 0, 1, 2:
            let size = random.below(4) == 0 ? 1 + random.below(largest) : 1 + random.below(200)
            let share: AllocationClass = random.below(4) == 0 ? .reserve : .data
            guard let offset = try? transaction.allocate(size, from: share) else { return }
            fill(transaction.mutableBytes(offset, size), random: &random)
            blocks.append((offset, size))
        case 3, 4:
            guard !blocks.isEmpty else { return }
            let block = blocks.swapRemove(at: random.below(blocks.count))
            transaction.free(block.offset)
        default:
            guard let block = blocks.randomElement(using: &random) else { return }
            let start = random.below(block.size)
            let count = 1 + random.below(min(block.size - start, 300))
            fill(transaction.mutableBytes(block.offset + UInt64(start), count), random: &random)
        }
    }

    private func fill(_ bytes: UnsafeMutableRawBufferPointer, random: inout Seeded) {
        memset(bytes.baseAddress!, Int32(truncatingIfNeeded: random.next()), bytes.count)
    }
}

extension Array {
    /// Removes in O(1); the order changes.
    mutating func swapRemove(at index: Int) -> Element {
        swapAt(index, count - 1)
        return removeLast()
    }
}

/// A copy of bytes, to compare with later.
func copy(_ bytes: UnsafeRawBufferPointer) -> [UInt8] { [UInt8](bytes) }

func areEqual(_ bytes: UnsafeRawBufferPointer, _ other: [UInt8]) -> Bool {
    bytes.count == other.count
        && other.withUnsafeBytes { memcmp($0.baseAddress!, bytes.baseAddress!, bytes.count) == 0 }
}
