import MPaxosInvariants

/// Bytes that lie in a block of the heap.
public struct BlockSlice: BitwiseCopyable, Sendable {
    /// The block, as `Transaction.allocate` returned it.
    public let block: UInt64
    /// Where the bytes begin in it. At least 16: what a block begins with is overwritten once it is free.
    public let start: Int
    public let count: Int

    public init(of block: UInt64, start: Int, count: Int) {
        invariant(start >= 16 && start <= Int(UInt16.max), "a slice begins at byte 16 to 65535 of its block")
        invariant(count >= 0, "a slice has no negative size")
        self.block = block
        self.start = start
        self.count = count
    }
}

extension Transaction {
    /// The bytes of a slice, where they lie: they change with the next write to them.
    public func bytes(_ slice: BlockSlice) -> UnsafeRawBufferPointer {
        bytes(slice.block + UInt64(slice.start), slice.count)
    }
}
