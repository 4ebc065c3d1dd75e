import MPaxosInvariants

/// How many requests each client has outstanding, by name: a table with open addressing and fixed memory.
///
/// Names are known by a hash of 64 bits with a secret of the process, so that nobody finds another name with the hash
/// of a client that he wants to harm.
struct Shares: ~Copyable {
    private struct Slot: BitwiseCopyable {
        var hash: UInt64 = 0
        var count: UInt32 = 0
    }

    private let slots: UnsafeMutablePointer<Slot>
    private let mask: Int

    /// - Parameter capacity: requests outstanding at once, and so names.
    init(capacity: Int) {
        invariant(capacity > 0, "a table has room for one")
        // Half empty at least: a name is found within a few places.
        let size = 2 << (Int.bitWidth - (capacity - 1).leadingZeroBitCount)
        mask = size - 1
        slots = .allocate(capacity: size)
        slots.initialize(repeating: Slot(), count: size)
    }

    deinit { slots.deallocate() }

    func count(of name: UnsafeRawBufferPointer) -> Int { Int(slots[place(of: Self.hash(name))].count) }

    mutating func add(_ name: UnsafeRawBufferPointer) {
        let hash = Self.hash(name)
        let place = place(of: hash)
        slots[place].hash = hash
        slots[place].count += 1
    }

    mutating func remove(_ name: UnsafeRawBufferPointer) {
        let place = place(of: Self.hash(name))
        invariant(slots[place].count > 0, "no more requests are answered than were asked")
        slots[place].count -= 1
        if slots[place].count == 0 { closeGap(at: place) }
    }

    private static func hash(_ name: UnsafeRawBufferPointer) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(bytes: name)
        return UInt64(bitPattern: Int64(hasher.finalize()))
    }

    /// Where the name is, or would be.
    private func place(of hash: UInt64) -> Int {
        var place = Int(truncatingIfNeeded: hash) & mask
        while slots[place].count > 0, slots[place].hash != hash { place = (place + 1) & mask }
        return place
    }

    /// Moves those up that are further from their place than the gap is, so that every search ends at a gap.
    private mutating func closeGap(at gap: Int) {
        var gap = gap
        var next = (gap + 1) & mask
        while slots[next].count > 0 {
            let home = Int(truncatingIfNeeded: slots[next].hash) & mask
            if (next - home) & mask >= (next - gap) & mask {
                slots[gap] = slots[next]
                slots[next].count = 0
                gap = next
            }
            next = (next + 1) & mask
        }
    }
}
