import MPaxosInvariants
import Synchronization

/// Distance that keeps two fields out of each other's way: two 64-byte lines, since the prefetcher fetches lines in
/// pairs.
@usableFromInline
package enum CacheLine {
    @usableFromInline package static let separation = 128
}

/// A bounded lock-free ring from exactly one producer thread to exactly one consumer thread.
///
/// A handle: copying it copies pointers, nothing is counted. Who allocated it deallocates it, after both threads have
/// stopped. `push` stages an element; the consumer sees it after `publish`. Publish in bursts: every publication costs
/// a cache line's journey between two cores.
///
/// Producer thread only: `push`, `publish`, `free`, `isFull`. Consumer thread only: `pop`, `peek`, `skip`, `isEmpty`.
/// Any thread: `count`.
@usableFromInline
package struct SPSCRing<Element: BitwiseCopyable>: @unchecked Sendable {
    // Unchecked: the memory is shared by design, and the discipline above (one producer, one consumer) is the caller's
    // to keep.

    // Each of the four groups of fields lies 128 bytes from the next: indices that one side writes and the other reads,
    // and each side's own. Indices count up for ever; 64 bits do not wrap.
    @usableFromInline let tail: UnsafeMutablePointer<Atomic<UInt>>  // published by the producer
    @usableFromInline let producer: UnsafeMutablePointer<Side>
    @usableFromInline let head: UnsafeMutablePointer<Atomic<UInt>>  // released by the consumer
    @usableFromInline let consumer: UnsafeMutablePointer<Side>
    @usableFromInline let slots: UnsafeMutablePointer<Element>
    @usableFromInline let mask: UInt

    /// What one side knows by itself: its own index, and the last it saw of the peer's.
    @usableFromInline
    struct Side: BitwiseCopyable {
        @usableFromInline var index: UInt
        @usableFromInline var peer: UInt
    }

    @usableFromInline
    init(memory: UnsafeMutableRawPointer, capacity: Int) {
        tail = memory.bindMemory(to: Atomic<UInt>.self, capacity: 1)
        producer = (memory + CacheLine.separation).bindMemory(to: Side.self, capacity: 1)
        head = (memory + 2 * CacheLine.separation).bindMemory(to: Atomic<UInt>.self, capacity: 1)
        consumer = (memory + 3 * CacheLine.separation).bindMemory(to: Side.self, capacity: 1)
        slots = (memory + 4 * CacheLine.separation).bindMemory(to: Element.self, capacity: capacity)
        mask = UInt(capacity - 1)
        tail.initialize(to: Atomic(0))
        head.initialize(to: Atomic(0))
        producer.initialize(to: Side(index: 0, peer: 0))
        consumer.initialize(to: Side(index: 0, peer: 0))
    }

    /// A new ring for `capacity` elements, a power of two. Touches all its memory, so that no page fault comes later.
    @inlinable
    package static func allocate(capacity: Int) -> SPSCRing {
        invariant(capacity > 0 && capacity & (capacity - 1) == 0, "a ring's capacity is a power of two")
        invariant(
            MemoryLayout<Element>.alignment <= CacheLine.separation,
            "a ring's elements are aligned to 128 bytes at most")
        let size = 4 * CacheLine.separation + capacity * MemoryLayout<Element>.stride
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: CacheLine.separation)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        return SPSCRing(memory: memory, capacity: capacity)
    }

    /// Gives the memory back. Both threads must have let go of the ring.
    @inlinable
    package func deallocate() {
        UnsafeMutableRawPointer(tail).deallocate()
    }

    /// Elements the ring can hold.
    @inlinable package var capacity: Int { Int(mask) + 1 }

    // MARK: Producer

    /// Stages `element` behind those staged before. False: full, nothing changed.
    @inlinable
    package func push(_ element: Element) -> Bool {
        let index = producer.pointee.index
        if index &- producer.pointee.peer > mask {
            // Acquire: the consumer has done with the slot before we write over it.
            let seen = head.pointee.load(ordering: .acquiring)
            invariant(index &- seen <= mask &+ 1, "a ring's head stays behind its tail, since one thread consumes")
            producer.pointee.peer = seen
            if index &- seen > mask { return false }
        }
        slots[Int(truncatingIfNeeded: index & mask)] = element
        producer.pointee.index = index &+ 1
        return true
    }

    /// Makes all staged elements visible to the consumer. True when there were any: then wake the consumer's lane.
    @inlinable @discardableResult
    package func publish() -> Bool {
        let index = producer.pointee.index
        // Only this thread writes the tail: a relaxed load is exact, and the line stays ours while nothing is
        // published.
        if tail.pointee.load(ordering: .relaxed) == index { return false }
        tail.pointee.store(index, ordering: .releasing)
        return true
    }

    /// Elements that can be pushed now; exact for the producer but for what the consumer frees meanwhile.
    @inlinable
    package var free: Int {
        let seen = head.pointee.load(ordering: .acquiring)
        producer.pointee.peer = seen
        return Int(mask &+ 1 &- (producer.pointee.index &- seen))
    }

    /// Whether the next `push` would fail.
    @inlinable
    package var isFull: Bool {
        producer.pointee.index &- producer.pointee.peer > mask && free == 0
    }

    // MARK: Consumer

    /// The slot of the oldest published element, which stays in the ring, or nil. Valid until `skip`; may be written
    /// to.
    @inlinable
    package func peek() -> UnsafeMutablePointer<Element>? {
        let index = consumer.pointee.index
        if index == consumer.pointee.peer {
            let seen = tail.pointee.load(ordering: .acquiring)
            invariant(
                seen &- index <= mask &+ 1, "a ring's tail is ahead by its capacity at most, since one thread produces")
            consumer.pointee.peer = seen
            if index == seen { return nil }
        }
        return slots + Int(truncatingIfNeeded: index & mask)
    }

    /// Takes out the element that `peek` showed.
    @inlinable
    package func skip() {
        let index = consumer.pointee.index &+ 1
        invariant(index &- 1 != consumer.pointee.peer, "an element of a ring is skipped after it was peeked at")
        consumer.pointee.index = index
        head.pointee.store(index, ordering: .releasing)
    }

    /// Takes out the oldest published element, or nil.
    @inlinable
    package func pop() -> Element? {
        guard let slot = peek() else { return nil }
        let element = slot.pointee
        skip()
        return element
    }

    /// Whether `pop` would give nil.
    @inlinable
    package var isEmpty: Bool {
        let index = consumer.pointee.index
        return index == consumer.pointee.peer && index == tail.pointee.load(ordering: .acquiring)
    }

    /// Published elements not yet taken: a snapshot, for metrics; from either side or any third thread.
    @inlinable
    package var count: Int {
        // The head first: the tail read after it is never below it.
        let first = head.pointee.load(ordering: .acquiring)
        let last = tail.pointee.load(ordering: .acquiring)
        return min(Int(last &- first), capacity)
    }
}
