import MPaxosInvariants

/// A first-in, first-out queue of plain structs in persistent memory.
///
/// A handle of 64 bytes, empty where those are zero; the number of elements is limited by memory alone. Elements lie in
/// chunks of a few dozen, allocated as the queue grows and freed as it is drained. An element must have no padding
/// bytes (see ``StateMachine``, determinism).
public struct PersistentQueue<Element: BitwiseCopyable>: BitwiseCopyable, Sendable {
    /// How many bytes it takes at the offset it is given.
    public static var footprint: Int { 64 }

    @usableFromInline
    struct Header: BitwiseCopyable {
        @usableFromInline var count = 0
        /// The chunk of the first element, and the element's index in it.
        @usableFromInline var headChunk: UInt64 = 0
        @usableFromInline var headIndex = 0
        /// The chunk of the place behind the last element, and that place's index in it (`chunkCapacity` when it is
        /// full).
        @usableFromInline var tailChunk: UInt64 = 0
        @usableFromInline var tailIndex = 0

        @inlinable init() {}
    }

    /// A chunk: the offset of the next one, 8 bytes unused that keep elements aligned to 16, and the elements.
    @inlinable static var chunkHeader: Int { 16 }
    @inlinable static var stride: Int { MemoryLayout<Element>.stride }
    /// Chunks of about 1 KiB: few allocations for small elements, little waste for large ones.
    @inlinable static var chunkCapacity: Int { max(1, (1024 - chunkHeader) / max(1, stride)) }

    @usableFromInline let header: PersistentPointer<Header>

    /// The queue at an offset, aligned to 8, of ``footprint`` bytes that were zero when the queue was first used.
    @inlinable
    public init(at offset: UInt64) {
        invariant(offset != 0 && offset % 8 == 0, "a queue lies at an offset that is aligned to 8")
        invariant(MemoryLayout<Element>.alignment <= 16, "persistent memory is aligned to 16")
        header = PersistentPointer(offset: offset)
    }

    /// How many elements it holds.
    @inlinable
    public func count(in transaction: Transaction) -> Int { transaction.read(header).count }

    /// The element that ``dequeue(in:)`` would take; nil when there is none.
    @inlinable
    public func first(in transaction: Transaction) -> Element? {
        let state = transaction.read(header)
        guard state.count > 0 else { return nil }
        return transaction.read(Self.place(state.headIndex, in: state.headChunk))
    }

    /// Adds an element at the end; when the store is full it throws, and nothing has changed.
    @inlinable
    public func enqueue(_ element: Element, in transaction: Transaction) throws(Refusal) {
        var state = transaction.read(header)
        if state.tailChunk == 0 || state.tailIndex == Self.chunkCapacity {
            let chunk = try transaction.allocate(Self.chunkHeader + Self.chunkCapacity * Self.stride)
            transaction.write(0, to: Self.next(of: chunk))
            if state.tailChunk == 0 {
                state.headChunk = chunk
                state.headIndex = 0
            } else {
                transaction.write(chunk, to: Self.next(of: state.tailChunk))
            }
            state.tailChunk = chunk
            state.tailIndex = 0
        }
        transaction.write(element, to: Self.place(state.tailIndex, in: state.tailChunk))
        state.tailIndex += 1
        state.count += 1
        transaction.write(state, to: header)
    }

    /// Takes the first element and returns it; nil when there is none.
    @inlinable @discardableResult
    public func dequeue(in transaction: Transaction) -> Element? {
        var state = transaction.read(header)
        guard state.count > 0 else { return nil }
        let element = transaction.read(Self.place(state.headIndex, in: state.headChunk))
        state.count -= 1
        state.headIndex += 1
        if state.count == 0 {
            // The last chunk stays, so that a queue that is filled and drained in turn allocates nothing.
            invariant(state.headChunk == state.tailChunk, "an empty queue has one chunk")
            state.headIndex = 0
            state.tailIndex = 0
        } else if state.headIndex == Self.chunkCapacity {
            let drained = state.headChunk
            state.headChunk = transaction.read(Self.next(of: drained))
            state.headIndex = 0
            transaction.free(drained)
        }
        transaction.write(state, to: header)
        return element
    }

    /// Takes all elements away and frees all memory but the handle's. Frees one chunk after the other: time and write
    /// set grow with the queue.
    @inlinable
    public func removeAll(in transaction: Transaction) {
        var chunk = transaction.read(header).headChunk
        while chunk != 0 {
            let next = transaction.read(Self.next(of: chunk))
            transaction.free(chunk)
            chunk = next
        }
        transaction.write(Header(), to: header)
    }

    @inlinable
    static func next(of chunk: UInt64) -> PersistentPointer<UInt64> { PersistentPointer(offset: chunk) }

    @inlinable
    static func place(_ index: Int, in chunk: UInt64) -> PersistentPointer<Element> {
        invariant(chunk != 0 && index >= 0 && index < chunkCapacity, "an element lies within a chunk")
        return PersistentPointer(offset: chunk + UInt64(chunkHeader + index * stride))
    }
}
