import MPaxosInvariants

/// A first-in, first-out queue of small numbers with room for a fixed count, in memory that its owner releases.
struct NumberQueue {
    private let base: UnsafeMutablePointer<UInt32>
    private let capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        invariant(capacity > 0, "a queue has room")
        self.capacity = capacity
        base = .allocate(capacity: capacity)
        base.initialize(repeating: 0, count: capacity)
    }

    func release() {
        base.deallocate()
    }

    var isEmpty: Bool { count == 0 }

    mutating func push(_ number: Int) {
        invariant(count < capacity, "each number is in its queue once at most")
        var tail = head + count
        if tail >= capacity { tail -= capacity }
        base[tail] = UInt32(truncatingIfNeeded: number)
        count += 1
    }

    mutating func pop() -> Int? {
        guard count > 0 else { return nil }
        let number = Int(base[head])
        head += 1
        if head == capacity { head = 0 }
        count -= 1
        return number
    }
}
