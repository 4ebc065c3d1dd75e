import MPaxosInvariants

/// A growing sequence of equal elements in persistent memory that never moves what it holds: segment 0 has room for 16
/// elements, segment 1 for the next 16, segment 2 for the next 32, and so on, each as large as all before it. An index
/// finds its place with one look into a directory of segment offsets.
///
/// So growth copies nothing and initialises nothing: it costs one allocation, whatever the size. That is what bounds
/// the write set of the single command during which a collection grows. The content of a new segment is undefined
/// (though equal on all replicas): the collection writes an element before it reads it.
@usableFromInline
struct SegmentDirectory: BitwiseCopyable, Sendable {
    /// Enough for 2^44 elements; no pool is as large.
    @usableFromInline static var segmentCount: Int { 41 }
    @usableFromInline static var firstSegmentCapacity: Int { 16 }

    /// Offset of the block of segment offsets.
    @usableFromInline let offset: UInt64

    @inlinable
    init(offset: UInt64) { self.offset = offset }

    /// A directory without segments.
    @inlinable
    static func allocate(in transaction: Transaction) throws(Refusal) -> SegmentDirectory {
        let size = segmentCount * MemoryLayout<UInt64>.size
        let offset = try transaction.allocate(size)
        transaction.mutableBytes(offset, size).initializeMemory(as: UInt8.self, repeating: 0)
        return SegmentDirectory(offset: offset)
    }

    @inlinable
    static func segment(of index: Int) -> Int {
        60 - (UInt64(truncatingIfNeeded: index) | 15).leadingZeroBitCount
    }

    /// The index of a segment's first element.
    @inlinable
    static func base(of segment: Int) -> Int { segment == 0 ? 0 : 8 << segment }

    /// How many elements fit into a segment.
    @inlinable
    static func capacity(of segment: Int) -> Int { segment == 0 ? 16 : 8 << segment }

    @inlinable
    func entry(_ segment: Int) -> PersistentPointer<UInt64> {
        invariant(segment >= 0 && segment < Self.segmentCount, "an element's index is within the directory")
        return PersistentPointer(offset: offset + UInt64(segment) * 8)
    }

    /// The offset of an element of an allocated segment.
    @inlinable @inline(__always)
    func element(_ index: Int, stride: Int, in transaction: Transaction) -> UInt64 {
        let segment = Self.segment(of: index)
        let start = transaction.read(entry(segment))
        invariant(start != 0, "an element is looked up in a segment that exists")
        return start + UInt64((index - Self.base(of: segment)) * stride)
    }

    /// Allocates the segment of the element at `index`, unless it is there.
    @inlinable
    func makeRoom(for index: Int, stride: Int, in transaction: Transaction) throws(Refusal) {
        let segment = Self.segment(of: index)
        let entry = entry(segment)
        guard transaction.read(entry) == 0 else { return }
        let start = try transaction.allocate(Self.capacity(of: segment) * stride)
        transaction.write(start, to: entry)
    }

    /// Frees the segments that lie wholly at or above `count`, but for the first segment.
    ///
    /// Called whenever the count falls, so that there is one of them at most.
    @inlinable
    func releaseRoom(above count: Int, in transaction: Transaction) {
        let segment = Self.segment(of: count)
        guard segment > 0, count == Self.base(of: segment) else { return }
        let entry = entry(segment)
        let start = transaction.read(entry)
        guard start != 0 else { return }
        transaction.free(start)
        transaction.write(0, to: entry)
    }

    /// Frees all segments and the directory itself.
    @inlinable
    func deallocate(in transaction: Transaction) {
        for segment in 0..<Self.segmentCount {
            let start = transaction.read(entry(segment))
            if start != 0 { transaction.free(start) }
        }
        transaction.free(offset)
    }
}
