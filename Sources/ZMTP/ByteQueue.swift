import Glibc
import MPaxosInvariants

/// Bytes on their way in or out of a socket: appended at the back, taken from the front, in memory of its own that
/// grows when it must, from nothing. A value that its owner releases by hand, so that it can lie in raw memory.
@usableFromInline package struct ByteQueue: BitwiseCopyable {
    @usableFromInline var base: UnsafeMutableRawPointer?
    @usableFromInline package private(set) var capacity = 0
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    private static let smallest = 1 << 10
    /// Bytes from which on a block comes from the system and goes back to it at once. An allocator keeps what was
    /// freed, and most of all that of a thread other than the first: a crowd's unfinished messages would stay for ever.
    private static let ownPages = 256 << 10

    package init() {}

    /// Gives the memory back; the queue is empty, and can be used again.
    package mutating func release() {
        if let base { Self.free(base, capacity) }
        self = ByteQueue()
    }

    private static func allocate(_ count: Int) -> UnsafeMutableRawPointer {
        guard count >= ownPages else { return .allocate(byteCount: count, alignment: 16) }
        let block = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let block, block != MAP_FAILED else { halt("out of memory for \(count) bytes of a connection") }
        return block
    }

    private static func free(_ block: UnsafeMutableRawPointer, _ count: Int) {
        guard count >= ownPages else { return block.deallocate() }
        let isFreed = munmap(block, count) == 0
        invariant(isFreed, "a block that was mapped can be unmapped")
    }

    /// Gives the memory back when it is of no use now, and more than `bytes`.
    mutating func releaseIfIdle(above bytes: Int) {
        if isEmpty, capacity > bytes { release() }
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
            let fresh = Self.allocate(larger)
            if let base {
                fresh.copyMemory(from: base + start, byteCount: held)
                Self.free(base, capacity)
            }
            base = fresh
            capacity = larger
        }
        end = held
        start = 0
    }
}
