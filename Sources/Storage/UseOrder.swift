import MPaxosInvariants

/// The sessions in the order of their last use: a doubly linked list over slot numbers. In DRAM only: rebuilt from the
/// stamps.
struct UseOrder {
    private let next: UnsafeMutablePointer<UInt32>
    private let previous: UnsafeMutablePointer<UInt32>
    private let capacity: Int
    /// The list is a ring through this one, which is no slot: after it comes the one used longest ago.
    private var anchor: Int { capacity }
    private static let absent = UInt32.max

    init(capacity: Int) {
        invariant(capacity > 0 && capacity < Int(UInt32.max), "slots are numbered in 32 bits")
        self.capacity = capacity
        next = .allocate(capacity: capacity + 1)
        previous = .allocate(capacity: capacity + 1)
        next.initialize(repeating: Self.absent, count: capacity + 1)
        previous.initialize(repeating: Self.absent, count: capacity + 1)
        next[capacity] = UInt32(capacity)
        previous[capacity] = UInt32(capacity)
    }

    func deallocate() {
        next.deallocate()
        previous.deallocate()
    }

    /// The slot used longest ago.
    var oldest: Int? { next[anchor] == UInt32(anchor) ? nil : Int(next[anchor]) }

    /// Makes a slot the one used last; new ones too.
    func touch(_ slot: Int) {
        invariant(slot >= 0 && slot < capacity, "a slot is one of the table's")
        if next[slot] != Self.absent { unlink(slot) }
        let newest = Int(previous[anchor])
        next[newest] = UInt32(slot)
        previous[slot] = UInt32(newest)
        next[slot] = UInt32(anchor)
        previous[anchor] = UInt32(slot)
    }

    func remove(_ slot: Int) {
        invariant(
            slot >= 0 && slot < capacity && next[slot] != Self.absent, "a slot that is taken out is in the order of use"
        )
        unlink(slot)
        next[slot] = Self.absent
        previous[slot] = Self.absent
    }

    private func unlink(_ slot: Int) {
        let (before, after) = (Int(previous[slot]), Int(next[slot]))
        next[before] = UInt32(after)
        previous[after] = UInt32(before)
    }
}
