import MPaxosInvariants

/// Bodies of the requests that came last, kept for the moment in which they may have to be ordered again.
///
/// A circle of fixed memory: the next body takes the place of the oldest. One thread.
struct KeptBodies: ~Copyable {
    /// Where a body was put; `none` for one that was not kept.
    struct Place: BitwiseCopyable {
        fileprivate let start: UInt64

        static let none = Place(start: .max)
    }

    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    /// Where the next one goes, counted through all turns of the circle.
    private var next: UInt64 = 0

    init(capacity: Int) {
        invariant(capacity > 0, "what is kept takes room")
        self.capacity = capacity
        memory = .allocate(byteCount: capacity, alignment: 64)
    }

    deinit { memory.deallocate() }

    /// Copies a body; one that takes more than a sixteenth of the room is not kept, so that many others are.
    mutating func keep(_ body: UnsafeRawBufferPointer) -> Place {
        guard body.count <= capacity / 16 else { return .none }
        var start = next
        let untilEnd = capacity - Int(start % UInt64(capacity))
        if untilEnd < body.count { start += UInt64(untilEnd) }
        if let source = body.baseAddress {
            (memory + Int(start % UInt64(capacity))).copyMemory(from: source, byteCount: body.count)
        }
        next = start + UInt64(body.count)
        return Place(start: start)
    }

    /// The body of `count` bytes that was kept; nil where others have taken its place.
    func body(at place: Place, count: Int) -> UnsafeRawBufferPointer? {
        guard place.start != .max, next - place.start <= UInt64(capacity) else { return nil }
        return UnsafeRawBufferPointer(start: memory + Int(place.start % UInt64(capacity)), count: count)
    }
}
