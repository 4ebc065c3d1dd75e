import MPaxosInvariants
import Synchronization

/// Bytes that travel beside the elements of an `SPSCRing`, from exactly one producer thread to exactly one consumer
/// thread: the producer copies them in and hands the place over in an element, the consumer releases the places in the
/// order of the pushes.
///
/// Publishing the element publishes the bytes. There is always room: what does not fit into the ring lies in memory of
/// its own, so that the ring need not be larger than what the caches hold; `waiting` is for the owner to set a limit
/// by.
///
/// A handle: copying it copies pointers, nothing is counted. Who allocated it deallocates it, after both threads have
/// stopped.
@usableFromInline
package struct ByteRing: @unchecked Sendable {
    // Unchecked: the memory is shared by design, and the discipline above (one producer, one consumer) is the caller's
    // to keep.

    /// What the consumer has released of the ring: where the last place ends, and how many there were; 32 bits each, so
    /// that both change at once.
    @usableFromInline let released: UnsafeMutablePointer<Atomic<UInt64>>
    /// Bytes that the consumer has released, wherever they lay.
    @usableFromInline let releasedBytes: UnsafeMutablePointer<Atomic<Int>>
    @usableFromInline let producer: UnsafeMutablePointer<Producer>
    @usableFromInline let consumer: UnsafeMutablePointer<Consumer>
    @usableFromInline let memory: UnsafeMutableRawPointer
    /// Bytes of the ring.
    @usableFromInline package let capacity: Int

    @usableFromInline
    struct Producer: BitwiseCopyable {
        /// Where the next place may begin.
        @usableFromInline var head = 0
        /// Places of the ring handed out, modulo 2^32.
        @usableFromInline var pushes: UInt32 = 0
        /// Bytes handed out, wherever they lie.
        @usableFromInline var bytes = 0
        /// What of `released` was seen last.
        @usableFromInline var seen: UInt64 = 0
        /// The ring was empty, its memory begun anew, and nothing was seen released since: what waits begins at the
        /// start.
        @usableFromInline var isFresh = true
    }

    @usableFromInline
    struct Consumer: BitwiseCopyable {
        @usableFromInline var releases: UInt32 = 0
        @usableFromInline var bytes = 0
    }

    private init(shared: UnsafeMutableRawPointer, memory: UnsafeMutableRawPointer, capacity: Int) {
        released = shared.bindMemory(to: Atomic<UInt64>.self, capacity: 1)
        released.initialize(to: Atomic(0))
        releasedBytes = (shared + 8).bindMemory(to: Atomic<Int>.self, capacity: 1)
        releasedBytes.initialize(to: Atomic(0))
        producer = (shared + CacheLine.separation).bindMemory(to: Producer.self, capacity: 1)
        producer.initialize(to: Producer())
        consumer = (shared + 2 * CacheLine.separation).bindMemory(to: Consumer.self, capacity: 1)
        consumer.initialize(to: Consumer())
        self.memory = memory
        self.capacity = capacity
    }

    /// A new ring of `capacity` bytes, below 4 GiB. Memory is taken as it is used.
    package static func allocate(capacity: Int) -> ByteRing {
        invariant(capacity > 0 && capacity < 1 << 32, "a ring of bytes has 1 byte to 4 GiB")
        let shared = UnsafeMutableRawPointer.allocate(
            byteCount: 3 * CacheLine.separation, alignment: CacheLine.separation)
        return ByteRing(
            shared: shared, memory: .allocate(byteCount: capacity, alignment: 64), capacity: capacity)
    }

    /// Gives the memory back. Both threads must have let go of the ring; places that were never released and do not lie
    /// in the ring are lost.
    package func deallocate() {
        UnsafeMutableRawPointer(released).deallocate()
        memory.deallocate()
    }

    // MARK: Producer

    /// Copies `source`, at least one byte, in. Valid until released.
    @inlinable
    package func push(_ source: UnsafeRawBufferPointer) -> UnsafeRawPointer {
        invariant(source.count > 0, "what travels in a ring of bytes has some")
        // Whole words, so that places are aligned.
        let count = (source.count + 7) & ~7
        // To begin anew as soon as it is empty, while little of the memory was touched.
        if producer.pointee.head > capacity / 16 { look() }
        var found = place(for: count)
        if found == nil {
            look()
            found = place(for: count)
        }
        guard let place = found else { return pushOutside(source) }
        (memory + place).copyMemory(from: source.baseAddress!, byteCount: source.count)
        producer.pointee.head = place + count
        producer.pointee.pushes &+= 1
        producer.pointee.bytes += source.count
        return UnsafeRawPointer(memory + place)
    }

    /// The same, but in memory of its own: for bytes that may have to be taken back.
    @usableFromInline
    package func pushOutside(_ source: UnsafeRawBufferPointer) -> UnsafeRawPointer {
        invariant(source.count > 0, "what travels in a ring of bytes has some")
        let place = UnsafeMutableRawPointer.allocate(byteCount: source.count, alignment: 8)
        place.copyMemory(from: source.baseAddress!, byteCount: source.count)
        producer.pointee.bytes += source.count
        return UnsafeRawPointer(place)
    }

    /// Takes back what `pushOutside` took in, and nobody was told of.
    package func takeBack(_ place: UnsafeRawPointer, _ count: Int) {
        invariant(!contains(place), "what lies in the ring is released in order")
        producer.pointee.bytes -= count
        place.deallocate()
    }

    /// Bytes pushed and not yet released.
    @inlinable package var waiting: Int { producer.pointee.bytes - releasedBytes.pointee.load(ordering: .relaxed) }

    // MARK: Consumer

    /// Gives back the oldest place, which `count` bytes were pushed to.
    @inlinable
    package func release(_ place: UnsafeRawPointer, _ count: Int) {
        invariant(count > 0, "what is released has bytes")
        if contains(place) {
            let end = (place - UnsafeRawPointer(memory)) + (count + 7) & ~7
            invariant(end <= capacity, "what is released lies in this ring")
            consumer.pointee.releases &+= 1
            released.pointee.store(UInt64(end) << 32 | UInt64(consumer.pointee.releases), ordering: .releasing)
        } else {
            place.deallocate()
        }
        consumer.pointee.bytes += count
        releasedBytes.pointee.store(consumer.pointee.bytes, ordering: .relaxed)
    }

    // MARK: Parts

    @inlinable
    func contains(_ place: UnsafeRawPointer) -> Bool {
        place >= UnsafeRawPointer(memory) && place < UnsafeRawPointer(memory + capacity)
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
        // Strictly below the tail, so that they meet in an empty ring only.
        if tail > head { return head + count < tail ? head : nil }
        if head + count <= capacity { return head }
        return count < tail ? 0 : nil
    }
}
