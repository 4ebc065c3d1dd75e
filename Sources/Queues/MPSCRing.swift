import MPaxosInvariants
import Synchronization

/// A bounded lock-free ring from many producer threads to exactly one consumer thread, after Dmitry Vyukov's bounded
/// queue: a sequence number in each slot says whose turn it is.
///
/// A handle like `SPSCRing`, but a push is published at once. A producer that is descheduled between claiming a slot
/// and filling it holds up the elements behind its own until it goes on; no producer waits for another.
///
/// Any thread: `push`, `count`. Consumer thread only: `pop`, `isEmpty`.
@usableFromInline
package struct MPSCRing<Element: BitwiseCopyable>: @unchecked Sendable {
    // Unchecked: shared memory by design; that there is one consumer is the caller's to keep.

    @usableFromInline
    struct Slot: ~Copyable {
        /// index: free for the push of that index; index + 1: filled by it; index + capacity: free for the next round.
        @usableFromInline let turn: Atomic<UInt>
        @usableFromInline var element: Element

        @usableFromInline
        init(turn: UInt, element: Element) {
            self.turn = Atomic(turn)
            self.element = element
        }
    }

    @usableFromInline let tail: UnsafeMutablePointer<Atomic<UInt>>  // claimed by producers
    @usableFromInline let head: UnsafeMutablePointer<Atomic<UInt>>  // written by the consumer alone
    @usableFromInline let slots: UnsafeMutablePointer<Slot>
    @usableFromInline let mask: UInt

    @usableFromInline
    init(memory: UnsafeMutableRawPointer, capacity: Int) {
        tail = memory.bindMemory(to: Atomic<UInt>.self, capacity: 1)
        head = (memory + CacheLine.separation).bindMemory(to: Atomic<UInt>.self, capacity: 1)
        slots = (memory + 2 * CacheLine.separation).bindMemory(to: Slot.self, capacity: capacity)
        mask = UInt(capacity - 1)
        tail.initialize(to: Atomic(0))
        head.initialize(to: Atomic(0))
        let blank = UnsafeMutablePointer<Element>.allocate(capacity: 1)
        UnsafeMutableRawPointer(blank).initializeMemory(
            as: UInt8.self, repeating: 0, count: MemoryLayout<Element>.stride)
        for index in 0..<capacity {
            (slots + index).initialize(to: Slot(turn: UInt(index), element: blank.pointee))
        }
        blank.deallocate()
    }

    /// A new ring for `capacity` elements, a power of two of at least 2. Touches all its memory.
    @inlinable
    package static func allocate(capacity: Int) -> MPSCRing {
        invariant(
            capacity > 1 && capacity & (capacity - 1) == 0, "a ring's capacity is a power of two, 2 or more")
        invariant(
            MemoryLayout<Slot>.alignment <= CacheLine.separation, "a ring's elements are aligned to 128 bytes at most")
        let size = 2 * CacheLine.separation + capacity * MemoryLayout<Slot>.stride
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: CacheLine.separation)
        return MPSCRing(memory: memory, capacity: capacity)
    }

    /// Gives the memory back. All threads must have let go of the ring.
    @inlinable
    package func deallocate() {
        UnsafeMutableRawPointer(tail).deallocate()
    }

    /// Elements the ring can hold.
    @inlinable package var capacity: Int { Int(mask) + 1 }

    /// Appends `element`, visible at once. False: full, nothing changed.
    @inlinable
    package func push(_ element: Element) -> Bool {
        var index = tail.pointee.load(ordering: .relaxed)
        while true {
            let slot = slots + Int(truncatingIfNeeded: index & mask)
            let turn = slot.pointee.turn.load(ordering: .acquiring)
            if turn == index {
                let claim = tail.pointee.weakCompareExchange(
                    expected: index, desired: index &+ 1, successOrdering: .relaxed, failureOrdering: .relaxed)
                if claim.exchanged {
                    slot.pointee.element = element
                    slot.pointee.turn.store(index &+ 1, ordering: .releasing)
                    return true
                }
                index = claim.original
            } else if Int(bitPattern: turn &- index) < 0 {
                return false  // still holds the element of the round before
            } else {
                index = tail.pointee.load(ordering: .relaxed)  // another producer took it
            }
        }
    }

    /// Takes out the oldest element, or nil.
    @inlinable
    package func pop() -> Element? {
        let index = head.pointee.load(ordering: .relaxed)
        let slot = slots + Int(truncatingIfNeeded: index & mask)
        let turn = slot.pointee.turn.load(ordering: .acquiring)
        if turn != index &+ 1 {
            invariant(turn == index, "a ring's slots come in turn, since one thread consumes")
            return nil
        }
        let element = slot.pointee.element
        slot.pointee.turn.store(index &+ mask &+ 1, ordering: .releasing)
        head.pointee.store(index &+ 1, ordering: .releasing)
        return element
    }

    /// Whether `pop` would give nil.
    @inlinable
    package var isEmpty: Bool {
        let index = head.pointee.load(ordering: .relaxed)
        return slots[Int(truncatingIfNeeded: index & mask)].turn.load(ordering: .acquiring) != index &+ 1
    }

    /// Elements claimed and not yet taken: a snapshot, for metrics.
    @inlinable
    package var count: Int {
        let first = head.pointee.load(ordering: .acquiring)
        let last = tail.pointee.load(ordering: .acquiring)
        return min(Int(last &- first), capacity)
    }
}
