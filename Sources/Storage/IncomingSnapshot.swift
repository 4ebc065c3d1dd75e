import Glibc
import MPaxosInvariants
import MPaxosPersistentMemory

/// A state pool in the making, of a snapshot of another replica's state: `state.pool.incoming`, until it is renamed.
///
/// It is prepared, filled in order, finished and installed; let go of before that, its file goes too. Until the rename
/// the replica's own pool is as it was, whatever happens here; the rename puts a pool in its place that was verified
/// and is durable.
///
/// One owner at a time, who may hand it to another thread.
package final class IncomingSnapshot: @unchecked Sendable {
    // Unchecked: one owner at a time, as said.

    package let path: String
    private let pool: Pool
    private let geometry: StateGeometry
    /// It is in place, or its file is gone.
    private var isOver = false
    /// It has the name of the replica's pool; but that is durable only if `install` has returned.
    package private(set) var isInstalled = false

    /// Of the snapshot that is expected.
    package private(set) var size = 0
    package private(set) var executed: UInt64 = 0
    /// Of the state just after `executed`, once it is finished; nil when it holds the beginning of the next instance,
    /// too.
    package private(set) var digest: UInt64?
    private var expected: UInt32 = 0
    /// Bytes so far, and their CRC32C.
    package private(set) var received = 0
    private var checksum: UInt32 = 0

    package static func path(beside state: String) -> String { state + ".incoming" }

    /// Removes what a crash left, of snapshots to this replica and from it. Only the process that has the state pool
    /// open may do so.
    package static func removeLeftovers(beside state: String) {
        unlink(path(beside: state))
        unlink(StateSnapshot.path(beside: state))
    }

    /// Makes an empty pool as large as the one at `state`, its blocks allocated. Takes the time to write as much.
    package init(beside state: String, geometry: StateGeometry) throws(PoolError) {
        path = Self.path(beside: state)
        unlink(path)
        do throws(PoolError) {
            try Pool.create(path: path, layout: StateLayout.poolLayout, size: geometry.fileSize)
        } catch {
            guard error.kind == .noSpace else { throw error }
            throw PoolError(
                .noSpace,
                "\(path): no room for \(geometry.fileSize) bytes, as many as \(state) has, which it takes until it is in its place; free as much on its file system"
            )
        }
        pool = try Pool(opening: path, layout: StateLayout.poolLayout)
        self.geometry = geometry
        guard pool.region.count == geometry.regionSize else {
            throw PoolError(
                .foreign,
                "\(path): its region has \(pool.region.count) bytes, that of \(state) \(geometry.regionSize): it was made by another version of libpmemobj"
            )
        }
    }

    /// In a pool that is zero, in memory.
    package init(in pool: Pool, geometry: StateGeometry) {
        path = pool.path
        self.pool = pool
        self.geometry = geometry
    }

    deinit { discard() }

    /// It is not wanted: its file goes, unless it was installed.
    package func discard() {
        guard !isOver else { return }
        isOver = true
        pool.close()
        unlink(path)
    }

    // MARK: Filling

    /// What is to come. False when no snapshot of such a size fits the pool. To be called once.
    package func expect(size: Int, checksum: UInt32, executed: UInt64) -> Bool {
        invariant(self.size == 0, "one snapshot goes into a pool, which is zero before")
        guard size > Pool.pageSize, size % Pool.pageSize == 0, size - Pool.pageSize <= geometry.data.count else {
            return false
        }
        (self.size, expected, self.executed) = (size, checksum, executed)
        return true
    }

    package var isWhole: Bool { size > 0 && received == size }

    /// The next bytes of the snapshot.
    package func append(_ bytes: UnsafeRawBufferPointer) {
        invariant(bytes.count <= size - received, "no more bytes come than the snapshot has")
        var rest = bytes
        while let source = rest.baseAddress, !rest.isEmpty {
            let untilData = received < Pool.pageSize ? Pool.pageSize - received : rest.count
            let count = min(rest.count, untilData)
            pool.stream(to: pool.region.baseAddress! + geometry.place(of: received), from: source, count: count)
            checksum = Checksum.extend(checksum, with: source, count)
            received += count
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    // MARK: The end

    /// Makes it a pool of this replica: checks all of it, as `mpaxos dump --verify` would, and makes it durable. Takes
    /// the time to read it.
    /// - Parameters:
    ///   - identity: this replica's own; that of the giver did not come along.
    ///   - bootCount: of this replica's life.
    package func finish(as identity: PoolIdentity, bootCount: UInt64) throws(PoolError) {
        invariant(isWhole, "a snapshot is whole when it is finished")
        guard checksum == expected else {
            throw PoolError(
                .damaged, "\(path): the snapshot that came is not the one that was sent: its checksum differs")
        }
        pool.fenceAll()
        StatePool.write(identity, to: pool)
        let state = try StatePool(in: pool)
        guard state.geometry.fingerprint == geometry.fingerprint, state.heap.replayedCommits == 0 else {
            throw PoolError(.foreign, "\(path): the snapshot is of a pool with other sizes, or of another version")
        }
        // It may hold the beginning of the next batch, too, where the giver was killed in the middle of that.
        guard state.executed == executed else {
            throw PoolError(
                .damaged, "\(path): the snapshot stands at instance \(state.executed), where \(executed) was offered")
        }
        _ = try state.verify()
        try state.verifyDigest()
        digest = state.executedCommands == 0 ? state.heap.digest : nil
        state.forgetBreadcrumb()
        state.markInstalled(bootCount: bootCount)
        state.close()
    }

    /// Puts it in the place of the pool at `state`, which this process has open or nobody, under the lock of its
    /// folder. Durable on return. Where it throws, look at `isInstalled`.
    package func install(over state: String) throws(PoolError) {
        guard rename(path, state) == 0 else {
            throw PoolError(
                .io,
                "\(path): cannot be renamed to \(state): \(String(cString: strerror(errno))); \(PoolError.systemAdvice)"
            )
        }
        isOver = true
        isInstalled = true
        try Pool.syncDirectory(of: state)
    }
}
