import MPaxosInvariants

/// The free slots of the session table, to find the lowest in a few steps: a bit for each slot, and above it a bit for
/// each word that has one, and so on. In DRAM only: a function of the table.
struct FreeSlots {
    private let words: UnsafeMutablePointer<UInt64>
    private let levelStarts: (Int, Int, Int, Int)
    private let total: Int
    private let capacity: Int

    /// Slots that can be numbered: 64 to the power of the levels.
    private static let levels = 4

    init(capacity: Int) {
        invariant(capacity > 0 && capacity <= 1 << 24, "a table has 1 to 2^24 slots")
        let first = (capacity + 63) / 64
        let second = (first + 63) / 64
        let third = (second + 63) / 64
        levelStarts = (0, first, first + second, first + second + third)
        total = first + second + third + 1
        self.capacity = capacity
        words = .allocate(capacity: total)
        words.initialize(repeating: 0, count: total)
    }

    func deallocate() { words.deallocate() }

    private func start(_ level: Int) -> Int {
        switch level {
        case 0: levelStarts.0
        case 1: levelStarts.1
        case 2: levelStarts.2
        default: levelStarts.3
        }
    }

    func insert(_ slot: Int) {
        invariant(slot >= 0 && slot < capacity, "a slot is one of the table's")
        var index = slot
        for level in 0..<Self.levels {
            words[start(level) + index >> 6] |= 1 << UInt64(index & 63)
            index >>= 6
        }
    }

    /// The lowest one, taken out.
    func takeLowest() -> Int? {
        var index = 0
        for level in (0..<Self.levels).reversed() {
            let word = words[start(level) + index]
            if word == 0 { return nil }
            index = index << 6 + word.trailingZeroBitCount
        }
        remove(index)
        return index
    }

    private func remove(_ slot: Int) {
        var index = slot
        for level in 0..<Self.levels {
            let place = start(level) + index >> 6
            words[place] &= ~(1 << UInt64(index & 63))
            if words[place] != 0 { return }
            index >>= 6
        }
    }
}
