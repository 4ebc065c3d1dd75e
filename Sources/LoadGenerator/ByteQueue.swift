import Glibc

/// Bytes on their way in or out of a socket: appended at the back, taken from the front, in memory of its own that
/// grows when it must. A value that its owner releases by hand, so that it can lie in raw memory.
struct ByteQueue {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private var start = 0
    private var end = 0

    init(capacity: Int) {
        precondition(capacity > 0, "a queue of bytes needs room")
        base = .allocate(byteCount: capacity, alignment: 16)
        self.capacity = capacity
    }

    func release() {
        base.deallocate()
    }

    var count: Int { end - start }
    var isEmpty: Bool { end == start }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base + start, count: count) }

    /// Room for `count` more bytes at the back; they count once `commit` is called.
    @inline(__always) mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer {
        if capacity - end < count { makeRoom(count) }
        return base + end
    }

    /// Bytes at the back that `commit` may take without `reserve`.
    var room: Int { capacity - end }

    @inline(__always) mutating func commit(_ count: Int) {
        precondition(count >= 0 && count <= capacity - end, "more bytes committed than there was room")
        end += count
    }

    @inline(__always) mutating func remove(_ count: Int) {
        precondition(count >= 0 && count <= self.count, "more bytes removed than there are")
        start += count
        if start == end {
            start = 0
            end = 0
        }
    }

    mutating func removeAll() {
        start = 0
        end = 0
    }

    mutating func append(_ bytes: [UInt8]) {
        let place = reserve(bytes.count)
        bytes.withUnsafeBytes { if let source = $0.baseAddress { place.copyMemory(from: source, byteCount: $0.count) } }
        commit(bytes.count)
    }

    @inline(never) private mutating func makeRoom(_ count: Int) {
        if capacity - self.count >= count && start >= capacity / 2 {
            memmove(base, base + start, self.count)
        } else {
            let larger = max(capacity * 2, self.count + count)
            let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
            fresh.copyMemory(from: base + start, byteCount: self.count)
            base.deallocate()
            base = fresh
            capacity = larger
        }
        end -= start
        start = 0
    }
}
