import Synchronization

/// Bytes that travel beside the elements of an `SPSCRing`, from exactly one producer thread to exactly one consumer thread: the
/// producer copies them in and hands the place over in an element, the consumer releases the places in the order of the pushes.
///
/// Publishing the element publishes the bytes. The memory is used from its start again whenever it is empty, and goes round early
/// once it has filled `warm` bytes: so what is in use stays in the caches, however large the ring is.
///
/// A handle: copying it copies pointers, nothing is counted. Who allocated it deallocates it, after both threads have stopped.
@usableFromInline
package struct ByteRing: @unchecked Sendable {
    // Unchecked: the memory is shared by design, and the discipline above (one producer, one consumer) is the caller's to keep.

    /// What the consumer has released: where the last place released ends, and how many were; 32 bits each, so that both change at once.
    @usableFromInline let released: UnsafeMutablePointer<Atomic<UInt64>>
    @usableFromInline let producer: UnsafeMutablePointer<Producer>
    @usableFromInline let consumer: UnsafeMutablePointer<UInt32>
    @usableFromInline let bytes: UnsafeMutableRawPointer
    /// Bytes that the ring holds at most.
    @usableFromInline package let capacity: Int
    @usableFromInline let warm: Int

    @usableFromInline
    struct Producer: BitwiseCopyable {
        /// Where the next place may begin.
        @usableFromInline var head = 0
        @usableFromInline var pushes: UInt32 = 0
        /// What of `released` was seen last.
        @usableFromInline var seen: UInt64 = 0
        /// The ring was empty, its memory begun anew, and nothing was seen released since: what waits begins at the start.
        @usableFromInline var isFresh = true
    }

    private init(memory: UnsafeMutableRawPointer, bytes: UnsafeMutableRawPointer, capacity: Int, warm: Int) {
        released = memory.bindMemory(to: Atomic<UInt64>.self, capacity: 1)
        released.initialize(to: Atomic(0))
        producer = (memory + CacheLine.separation).bindMemory(to: Producer.self, capacity: 1)
        producer.initialize(to: Producer())
        consumer = (memory + 2 * CacheLine.separation).bindMemory(to: UInt32.self, capacity: 1)
        consumer.initialize(to: 0)
        self.bytes = bytes
        self.capacity = capacity
        self.warm = warm
    }

    /// A new ring for `capacity` bytes, below 4 GiB. Memory is taken as it is used.
    package static func allocate(capacity: Int, warm: Int = 512 << 10) -> ByteRing {
        precondition(capacity > 0 && capacity < 1 << 32, "a ring of bytes has 1 byte to 4 GiB")
        precondition(warm > 0, "a ring of bytes is used from its start")
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: 3 * CacheLine.separation, alignment: CacheLine.separation)
        return ByteRing(
            memory: memory, bytes: .allocate(byteCount: capacity, alignment: 64), capacity: capacity, warm: warm)
    }

    /// Gives the memory back. Both threads must have let go of the ring.
    package func deallocate() {
        UnsafeMutableRawPointer(released).deallocate()
        bytes.deallocate()
    }

    /// Producer: copies `source`, at least one byte, in. Nil: no room, nothing changed. Valid until released.
    @inlinable
    package func push(_ source: UnsafeRawBufferPointer) -> UnsafeRawPointer? {
        precondition(source.count > 0, "nothing travels without a place")
        // Whole words, so that places are aligned; strictly below the end, so that head and end meet in an empty ring only.
        let count = (source.count + 7) & ~7
        if producer.pointee.head + count > warm { look() }
        var found = place(for: count)
        if found == nil {
            look()
            found = place(for: count)
        }
        guard let place = found else { return nil }
        (bytes + place).copyMemory(from: source.baseAddress!, byteCount: source.count)
        producer.pointee.head = place + count
        producer.pointee.pushes &+= 1
        return UnsafeRawPointer(bytes + place)
    }

    /// Consumer: gives back the oldest place, which `count` bytes were pushed to.
    @inlinable
    package func release(_ place: UnsafeRawPointer, _ count: Int) {
        let end = (place - UnsafeRawPointer(bytes)) + (count + 7) & ~7
        precondition(count > 0 && end > 0 && end <= capacity, "released what is no place of this ring")
        consumer.pointee &+= 1
        released.pointee.store(UInt64(end) << 32 | UInt64(consumer.pointee), ordering: .releasing)
    }

    /// Takes in what the consumer has released meanwhile.
    @inlinable
    func look() {
        let seen = released.pointee.load(ordering: .acquiring)
        if seen != producer.pointee.seen { producer.pointee.isFresh = false }
        producer.pointee.seen = seen
    }

    /// Where `count` bytes may lie, going by what was seen of the releases.
    @inlinable
    func place(for count: Int) -> Int? {
        if producer.pointee.pushes == UInt32(truncatingIfNeeded: producer.pointee.seen) {
            guard count <= capacity else { return nil }
            producer.pointee.isFresh = true
            return 0
        }
        let head = producer.pointee.head
        let tail = producer.pointee.isFresh ? 0 : Int(producer.pointee.seen >> 32)
        // What waits lies from tail to head, or, gone round, from tail to somewhere and from the start to head.
        if tail > head { return head + count < tail ? head : nil }
        if head + count > warm, count < tail { return 0 }
        if head + count <= capacity { return head }
        return count < tail ? 0 : nil
    }
}
