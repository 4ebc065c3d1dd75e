import MPaxosInvariants

/// The bytes that answer one command or query: an append-only buffer that the runtime makes once and hands to every
/// call.
///
/// Appending never allocates. It can hold ``capacity`` bytes: one more than fit is not stored, nor is any after it, and
/// ``overflowed`` says so; the runtime then refuses the command, on all replicas alike.
///
/// Integers are appended little-endian. There is no `append(_:)` for a bare integer, since `append(1)` would send eight
/// bytes.
public struct Reply: ~Copyable {
    /// The cluster's `max_request` in bytes, the same on every replica: the largest body that a client can send.
    public let maxRequest: Int

    /// How many bytes a reply can have: `maxRequest` and 1,040 more, so that the largest value fits with a key and some
    /// words beside it.
    public let capacity: Int

    /// How many bytes have been appended.
    @inlinable public var count: Int { used }

    /// More was appended than fits. The reply is then incomplete and will not be sent.
    @inlinable public var overflowed: Bool { hasOverflowed }

    /// Where the reply lies, when the machine gave up a block for it.
    @inlinable public var given: BlockSlice? { slice }

    // Usable from inline: a reply is written and read for each command, from other modules.
    @usableFromInline var used = 0
    @usableFromInline var hasOverflowed = false
    @usableFromInline var slice: BlockSlice?
    @usableFromInline let storage: UnsafeMutableRawPointer
    /// `storage`, or where the slice lies.
    @usableFromInline var start: UnsafeRawPointer

    /// A buffer for the replies of one executor.
    ///
    /// - Parameter maxRequest: the cluster's `max_request` in bytes.
    public init(maxRequest: Int) {
        invariant(maxRequest >= 0 && maxRequest <= 1 << 30, "max_request is between 0 and 1 GiB")
        self.maxRequest = maxRequest
        capacity = maxRequest + 1040
        storage = .allocate(byteCount: capacity, alignment: 64)
        // Touched now: no page fault while a command runs.
        storage.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
        start = UnsafeRawPointer(storage)
    }

    deinit { storage.deallocate() }

    /// What has been appended, or given. Valid until the next change, also of the store.
    @inlinable public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: used) }

    /// Empties the buffer for the next call.
    @inlinable
    public mutating func removeAll() {
        used = 0
        hasOverflowed = false
        slice = nil
        start = UnsafeRawPointer(storage)
    }

    /// Makes the reply bytes that lie in a block of the store, in place of copying them and freeing the block: the
    /// machine must neither use the block any more nor free it. They are the whole reply, and are not written again
    /// when it is kept: worth it for some hundred bytes and more. Not in a query.
    public mutating func give(_ slice: BlockSlice, in transaction: Transaction) {
        invariant(used == 0 && self.slice == nil, "what is given is the whole reply")
        invariant(!transaction.readOnly, "only apply gives up a block, a query never")
        invariant(
            slice.start + slice.count <= transaction.size(of: slice.block), "a reply lies within its block")
        self.slice = slice
        start = transaction.bytes(slice).baseAddress!
        hasOverflowed = slice.count > capacity
        used = hasOverflowed ? 0 : slice.count
    }

    /// Appends one byte.
    @inlinable
    public mutating func append(byte: UInt8) {
        guard let place = extend(by: 1) else { return }
        place.storeBytes(of: byte, as: UInt8.self)
    }

    /// Appends an integer as its bytes, the least significant first.
    @inlinable
    public mutating func append<Integer: FixedWidthInteger & BitwiseCopyable>(littleEndian value: Integer) {
        guard let place = extend(by: MemoryLayout<Integer>.size) else { return }
        place.storeBytes(of: value.littleEndian, as: Integer.self)
    }

    /// Appends bytes as they are, without a length.
    @inlinable
    public mutating func append(bytes: UnsafeRawBufferPointer) {
        guard let place = extend(by: bytes.count), let source = bytes.baseAddress else { return }
        place.copyMemory(from: source, byteCount: bytes.count)
    }

    /// Appends text as UTF-8, without a length.
    @inlinable
    public mutating func append(text: StaticString) {
        append(bytes: UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends text as UTF-8, without a length.
    public mutating func append(text: String) {
        var text = text
        text.withUTF8 { append(bytes: UnsafeRawBufferPointer($0)) }
    }

    /// Replaces an integer appended earlier, such as a count that is known only at the end.
    ///
    /// - Parameter offset: where its first byte is, from the start of the reply.
    @inlinable
    public mutating func replace<Integer: FixedWidthInteger & BitwiseCopyable>(
        littleEndian value: Integer, at offset: Int
    ) {
        invariant(
            slice == nil && offset >= 0 && offset + MemoryLayout<Integer>.size <= count,
            "only what was appended can be replaced")
        storage.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Integer.self)
    }

    /// Room for `size` more bytes, counted as appended; nil once the reply has overflowed.
    @inlinable @inline(__always)
    mutating func extend(by size: Int) -> UnsafeMutableRawPointer? {
        invariant(size >= 0 && used <= capacity, "a reply grows within its buffer")
        invariant(slice == nil, "what is given is the whole reply")
        guard !hasOverflowed, size <= capacity - used else {
            hasOverflowed = true
            return nil
        }
        defer { used += size }
        return storage + used
    }
}
