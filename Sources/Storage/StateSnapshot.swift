import Glibc
import MPaxosInvariants
import MPaxosPersistentMemory

/// What two state pools must have in common for a snapshot of one to become the other.
package struct StateGeometry: Equatable, Sendable {
    /// Bytes of the pool's file and of its region.
    let fileSize: Int
    package let regionSize: Int
    /// Where in the region the data area lies.
    let data: Range<Int>
    /// Equal where version, sizes and capacity of sessions are.
    package let fingerprint: UInt64

    /// Where in the region the byte of a snapshot at `offset` belongs: the page of the heap's header first, then the
    /// data area.
    func place(of offset: Int) -> Int {
        offset < Pool.pageSize ? StateLayout.heapOffset + offset : data.lowerBound + offset - Pool.pageSize
    }
}

extension StatePool {
    package var geometry: StateGeometry {
        let words = [UInt64(StateLayout.version), UInt64(root.capacity), UInt64(pool.region.count)] + heap.shape
        let sum = words.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
        var status = stat()
        fstat(pool.fileDescriptor, &status)
        let start = StateLayout.heapOffset + heap.dataOffset
        return StateGeometry(
            fileSize: Int(status.st_size), regionSize: pool.region.count,
            data: start..<start + transaction.committed.count,
            fingerprint: UInt64(pool.region.count / Pool.pageSize) << 32 | UInt64(sum))
    }
}

/// A copy of the replicated state as it was after one instance, for another replica: the used part of the heap, in a
/// file without a name beside the pool, so that it takes no DRAM and nothing is left of it after a crash.
///
/// Made a piece at a time by the owner of the pool, who executes nothing meanwhile; then read by another thread.
package final class StateSnapshot: @unchecked Sendable {
    // Unchecked: whoever made it hands it over whole, and then only reads from the file.

    package let executed: UInt64
    package let position: UInt64
    /// Bytes.
    package let size: Int
    /// CRC32C of all of it, once it is whole.
    package private(set) var checksum: UInt32 = 0

    /// Of the file, for the moment in which it has a name.
    static func path(beside state: String) -> String { state + ".outgoing" }

    private let path: String
    private let file: Int32
    private let parts: [UnsafeRawBufferPointer]
    private var copied = 0

    /// Commits, and begins a copy.
    /// - Parameter path: beside which the file is made; that of the pool when nil.
    package init(of pool: StatePool, beside path: String? = nil) throws(PoolError) {
        pool.commit()
        pool.transaction.checkpoint()
        executed = pool.executed
        position = pool.position
        let snapshot = pool.heap.snapshot
        parts = [snapshot.header, snapshot.data]
        size = snapshot.header.count + snapshot.data.count
        self.path = Self.path(beside: path ?? pool.path)
        file = open(self.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw StateSnapshot.failure(self.path, size) }
        unlink(self.path)
    }

    deinit { close(file) }

    package var isWhole: Bool { copied == size }

    /// Copies some more.
    package func copy(atMost count: Int) throws(PoolError) {
        invariant(count > 0, "what is copied has bytes")
        var left = min(count, size - copied)
        while left > 0 {
            let (part, offset) = copied < parts[0].count ? (parts[0], copied) : (parts[1], copied - parts[0].count)
            let source = part.baseAddress! + offset
            let written = pwrite(file, source, min(left, part.count - offset), off_t(copied))
            guard written > 0 else {
                if errno == EINTR { continue }
                throw StateSnapshot.failure(path, size)
            }
            checksum = Checksum.extend(checksum, with: source, written)
            copied += written
            left -= written
        }
    }

    /// Fills `target` with the bytes from `offset` on. False when they cannot be read.
    package func read(at offset: Int, into target: UnsafeMutableRawBufferPointer) -> Bool {
        invariant(isWhole && offset >= 0 && offset <= size - target.count, "what is read lies within a whole snapshot")
        var done = 0
        while done < target.count {
            let got = pread(file, target.baseAddress! + done, target.count - done, off_t(offset + done))
            guard got > 0 else {
                if got < 0 && errno == EINTR { continue }
                return false
            }
            done += got
        }
        return true
    }

    private static func failure(_ path: String, _ size: Int) -> PoolError {
        let reason = String(cString: strerror(errno))
        return errno == ENOSPC
            ? PoolError(
                .noSpace,
                "\(path): no room for a snapshot of the state, \(size) bytes, that another replica needs; free some on its file system"
            ) : PoolError(.io, "\(path): cannot write a snapshot of the state: \(reason)")
    }
}
