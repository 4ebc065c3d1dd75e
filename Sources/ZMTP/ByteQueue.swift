import Invariants

/// Bytes on their way in or out of a socket: appended at the back, taken from the front, in memory of its own that
/// grows when it must, from nothing. A value that its owner releases by hand, so that it can lie in raw memory.
@usableFromInline package struct ByteQueue: BitwiseCopyable {
    @usableFromInline var base: UnsafeMutableRawPointer?
    @usableFromInline package private(set) var capacity = 0
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    private static let smallest = 1 << 10

    package init() {}

    /// Gives the memory back; the queue is empty, and can be used again.
    package mutating func release() {
        base?.deallocate()
        self = ByteQueue()
    }

    @inlinable package var count: Int { end - start }
    @inlinable package var isEmpty: Bool { end == start }
    @inlinable package var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base.map { UnsafeRawPointer($0 + start) }, count: count)
    }

    /// Room for `count` more bytes at the back; they count once `commit` is called.
    @inlinable @inline(__always) package mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer {
        if base == nil || capacity - end < count { makeRoom(count) }
        return base! + end
    }

    /// Bytes at the back that `commit` may take without `reserve`.
    @inlinable package var room: Int { capacity - end }

    @inlinable @inline(__always) package mutating func commit(_ count: Int) {
        invariant(count >= 0 && count <= capacity - end, "no more bytes are committed than there was room for")
        end += count
    }

    @inlinable @inline(__always) package mutating func remove(_ count: Int) {
        invariant(count >= 0 && count <= self.count, "no more bytes are removed than there are")
        start += count
        if start == end {
            start = 0
            end = 0
        }
    }

    package mutating func removeAll() {
        start = 0
        end = 0
    }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        let place = reserve(bytes.count)
        if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: bytes.count) }
        commit(bytes.count)
    }

    package mutating func append(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { append($0) }
    }

    @usableFromInline @inline(never) mutating func makeRoom(_ count: Int) {
        let held = self.count
        if let base, capacity - held >= count, start >= capacity / 2 {
            base.copyMemory(from: base + start, byteCount: held)
        } else {
            let larger = max(Self.smallest, capacity * 2, held + count)
            let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
            if let base {
                fresh.copyMemory(from: base + start, byteCount: held)
                base.deallocate()
            }
            base = fresh
            capacity = larger
        }
        end = held
        start = 0
    }
}
