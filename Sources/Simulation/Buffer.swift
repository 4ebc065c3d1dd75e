import MPaxosInvariants

/// An array in plain memory, with one owner: no counts of references, no copies on write.
struct Buffer<Element: BitwiseCopyable>: ~Copyable {
    private var base: UnsafeMutablePointer<Element>
    private var capacity: Int
    private(set) var count = 0

    init(capacity: Int = 64) {
        invariant(capacity > 0, "a buffer has room")
        self.capacity = capacity
        base = .allocate(capacity: capacity)
    }

    init(repeating element: Element, count: Int) {
        self.init(capacity: max(count, 1))
        base.initialize(repeating: element, count: count)
        self.count = count
    }

    deinit { base.deallocate() }

    func copy() -> Buffer {
        var other = Buffer(capacity: capacity)
        other.base.initialize(from: base, count: count)
        other.count = count
        return other
    }

    var isEmpty: Bool { count == 0 }
    var last: Element? { count == 0 ? nil : base[count - 1] }
    var elements: UnsafeMutableBufferPointer<Element> { UnsafeMutableBufferPointer(start: base, count: count) }

    subscript(_ index: Int) -> Element {
        @inline(__always) unsafeAddress {
            invariant(index >= 0 && index < count, "the element is there")
            return UnsafePointer(base + index)
        }
        @inline(__always) unsafeMutableAddress {
            invariant(index >= 0 && index < count, "the element is there")
            return base + index
        }
    }

    mutating func append(_ element: Element) {
        if count == capacity { grow() }
        (base + count).initialize(to: element)
        count += 1
    }

    /// Makes `index` be there, filled up with `element`.
    mutating func reach(_ index: Int, filling element: Element) {
        while count <= index { append(element) }
    }

    mutating func popLast() -> Element? {
        guard count > 0 else { return nil }
        count -= 1
        return base[count]
    }

    mutating func removeFirst(_ removed: Int) {
        invariant(removed >= 0 && removed <= count, "what is removed is there")
        base.update(from: base + removed, count: count - removed)
        count -= removed
    }

    /// Keeps the first `kept`.
    mutating func truncate(to kept: Int) {
        invariant(kept >= 0 && kept <= count, "what is kept is there")
        count = kept
    }

    mutating func removeAll() { count = 0 }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: base, count: count)
        base.deallocate()
        base = larger
        capacity *= 2
    }
}
