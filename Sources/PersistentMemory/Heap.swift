import Glibc
import MPaxosInvariants

/// A failure-atomic heap in a pool's region: redo by a private view.
///
/// The data area is mapped twice: the *home*, which is the pool, and the *view*, a private mapping of the same bytes,
/// where the state machine reads and writes plain memory. A commit writes the changed lines to a journal, fences, and
/// only then copies them home. So what is at home is always a prefix of whole commits, once the journal has been
/// replayed over it.
///
/// Threading: one owner, the lane that executes commands.
package final class Heap {
    package let transaction: Transaction
    /// Commits that were replayed when it was opened.
    package let replayedCommits: Int

    package let pool: Pool
    private let layout: HeapLayout
    private let view: UnsafeMutableRawPointer

    /// Formats a heap in the region of a new pool, from `regionOffset` to its end. The region must be zero.
    /// - Parameters:
    ///   - regionOffset: bytes of the region left to the owner, a multiple of 4,096.
    ///   - progressSize: bytes at the start of the data area that are journaled, but not digested; rounded up to pages.
    ///   - journalSize: bytes of journal; one commit must fit. A sixteenth of the region when nil.
    ///   - reserveSize: bytes that data may not use; an eighth of what blocks can take when nil.
    package static func format(
        in pool: Pool, regionOffset: Int = 0, progressSize: Int, journalSize: Int? = nil, reserveSize: Int? = nil
    ) throws(PoolError) {
        invariant(regionOffset >= 0 && regionOffset % Pool.pageSize == 0, "a heap starts on a page")
        invariant(progressSize >= 0 && (journalSize ?? 0) >= 0 && (reserveSize ?? 0) >= 0, "sizes are not negative")
        let total = pool.region.count - regionOffset
        let journal = roundedToPages(journalSize ?? total / 16)
        var layout = HeapLayout(
            regionSize: UInt64(total), journalSize: UInt64(max(journal, Pool.pageSize)), dataSize: 0,
            progressSize: UInt64(roundedToPages(progressSize)), reserveSize: 0,
            salt: UInt64.random(in: 1...UInt64.max))
        let data = total - Pool.pageSize - Int(layout.journalSize)
        guard data >= Int(layout.blocks) + AllocatorLayout.smallest else {
            throw PoolError(
                .noSpace,
                "\(pool.path): \(total) bytes are too few for a heap with a journal of \(journal); make it larger")
        }
        layout.dataSize = UInt64(data)
        let room = layout.dataSize - layout.blocks
        layout.reserveSize = reserveSize.map(UInt64.init) ?? room / 8
        guard layout.reserveSize < room, layout.isSound(for: total) else {
            throw PoolError(
                .noSpace,
                "\(pool.path): a reserve of \(layout.reserveSize) bytes leaves no room for data; make the pool larger")
        }

        let header = pool.region.baseAddress! + regionOffset
        guard header.load(as: UInt64.self) == 0 else {
            throw PoolError(
                .exists, "\(pool.path): formatted already; name another path")
        }
        // Everything but the magic number first; the allocator's records as the first commit; the magic number last.
        Journal.format(header: header)
        header.storeBytes(of: layout, as: HeapLayout.self)
        header.storeBytes(of: 0, as: UInt64.self)
        header.storeBytes(of: UInt64(layout.checksum), toByteOffset: HeapLayout.checksumOffset, as: UInt64.self)
        pool.flush(header, Pool.pageSize)
        pool.fenceAll()
        do {
            let heap = try Heap(
                pool: pool, header: header, layout: layout, viewLimit: Pool.pageSize, isMoving: false)
            heap.transaction.formatAllocator()
            heap.transaction.commit()
            heap.transaction.checkpoint()
        }
        header.storeBytes(of: HeapLayout.magic, as: UInt64.self)
        pool.flush(header, 8)
        pool.fence()
    }

    /// Opens a formatted heap: replays the journal, maps the view. Takes milliseconds at any size.
    /// - Parameters:
    ///   - regionOffset: as at format.
    ///   - viewLimit: bytes of DRAM for the view's private pages; above it they are given back after a commit.
    ///   - isMoving: the pool is a copy that was made while its owner went on: what only a copy of one moment can be
    ///     held to is not looked at.
    package convenience init(
        opening pool: Pool, regionOffset: Int = 0, viewLimit: Int = 256 << 20, isMoving: Bool = false
    ) throws(PoolError) {
        invariant(regionOffset >= 0 && regionOffset % Pool.pageSize == 0, "a heap starts on a page")
        guard regionOffset < pool.region.count - 2 * Pool.pageSize else {
            throw PoolError(.damaged, "\(pool.path): too small to hold a heap; \(PoolError.unfinishedAdvice)")
        }
        let header = pool.region.baseAddress! + regionOffset
        let layout = header.load(as: HeapLayout.self)
        if layout.magic == 0 {
            throw PoolError(.damaged, "\(pool.path): its format was cut short; \(PoolError.unfinishedAdvice)")
        }
        let checksum = header.load(fromByteOffset: HeapLayout.checksumOffset, as: UInt64.self)
        guard layout.magic == HeapLayout.magic, checksum == UInt64(layout.checksum) else {
            throw PoolError(
                .damaged, "\(pool.path): the heap's header is damaged; \(PoolError.restoreAdvice)")
        }
        guard layout.version == HeapLayout.version else {
            throw PoolError(
                .foreign,
                "\(pool.path): a heap of version \(layout.version), where \(HeapLayout.version) is needed; use the program that made it"
            )
        }
        guard layout.isSound(for: pool.region.count - regionOffset) else {
            throw PoolError(
                .damaged, "\(pool.path): the heap's header is damaged; \(PoolError.restoreAdvice)")
        }
        try self.init(
            pool: pool, header: header, layout: layout, viewLimit: max(viewLimit, Pool.pageSize), isMoving: isMoving)
    }

    private init(
        pool: Pool, header: UnsafeMutableRawPointer, layout: HeapLayout, viewLimit: Int, isMoving: Bool
    ) throws(PoolError) {
        self.pool = pool
        self.layout = layout
        let home = header + layout.dataOffset
        var journal = try Journal(pool: pool, header: header, layout: layout)
        let place = pool.fileOffsetOfRegion + (UnsafeRawPointer(home) - UnsafeRawPointer(pool.region.baseAddress!))
        guard
            let mapped = mmap(
                nil, Int(layout.dataSize), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, pool.fileDescriptor,
                off_t(place)),
            mapped != MAP_FAILED
        else {
            throw PoolError(
                .io,
                "\(pool.path): cannot map its view: \(String(cString: strerror(errno))); give the host more memory, or this process more address space (ulimit -v)"
            )
        }
        do throws(PoolError) {
            // The view shows what home gets, unless home is this process's alone.
            replayedCommits = try journal.recover(
                into: pool.isPrivate ? [home, mapped] : [home],
                dataLines: Int(layout.dataSize) / DirtyLines.lineSize, isMoving: isMoving)
        } catch {
            munmap(mapped, Int(layout.dataSize))
            throw error
        }
        view = mapped
        transaction = Transaction(view: mapped, home: home, layout: layout, journal: journal, viewLimit: viewLimit)
        guard transaction.takeUpAllocatorSum() || isMoving else {
            let offset = UnsafeRawPointer(home) + Int(layout.allocator) - UnsafeRawPointer(pool.region.baseAddress!)
            throw PoolError(
                .damaged,
                "\(pool.path): the allocator's records, at offset \(offset) of the region, are damaged; \(PoolError.restoreAdvice)"
            )
        }
    }

    deinit { munmap(view, Int(layout.dataSize)) }

    // MARK: Places

    /// Offset of the bytes that are journaled but not digested.
    package var progressRoot: UInt64 { 0 }
    package var progressSize: Int { Int(layout.progressSize) }
    /// Offset of the runtime's own 4,096 bytes, digested, zero at format.
    package var systemRoot: UInt64 { layout.systemRoot }

    /// 64 bytes of the mapping that is shared with the file, for what the owner keeps beside all commits: neither
    /// journaled nor digested, zero at format; they go along with a snapshot.
    package var ownerLine: UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(mutating: transaction.committed.baseAddress!) - layout.dataOffset
            + HeapLayout.ownerOffset
    }

    // MARK: Snapshots

    /// What another pool needs to hold the same heap: the page of the header, and the data area up to where it was ever
    /// written, in whole pages; all else is zero. Whole only when all is committed and the journal empty; valid until
    /// the next commit.
    package var snapshot: (header: UnsafeRawBufferPointer, data: UnsafeRawBufferPointer) {
        invariant(!transaction.isDirty, "a snapshot is made of what is committed")
        let data = transaction.committed
        let used = usedBytesOfData
        return (
            UnsafeRawBufferPointer(start: data.baseAddress! - layout.dataOffset, count: Pool.pageSize),
            UnsafeRawBufferPointer(rebasing: data[..<used])
        )
    }

    /// Where in the region the data area begins, counted from the page of the header.
    package var dataOffset: Int { layout.dataOffset }
    /// The sizes of all areas, and the layout's version: an image fits a heap in which they are the same.
    package var shape: [UInt64] {
        [
            layout.version, layout.regionSize, layout.journalSize, layout.dataSize, layout.progressSize,
            layout.reserveSize,
        ]
    }

    // MARK: Figures, in bytes, headers of blocks included

    package var usedBytes: UInt64 { transaction.dataBytes + transaction.reserveBytes }
    /// What data may use.
    package var dataLimit: UInt64 { transaction.dataLimit }
    package var capacity: UInt64 { transaction.capacity }
    package var journalSize: Int { Int(layout.journalSize) }
    package var path: String { pool.path }

    // MARK: Digest

    /// The digest of the last commit, as it follows from the one that was trusted.
    package var digest: UInt64 { transaction.state.pointee.digest.committed }

    /// After an open: what was stored with the last commit. From there on commits keep it current.
    package func trust(digest: UInt64) {
        invariant(!transaction.isDirty, "a digest is that of a commit")
        transaction.state.pointee.digest.trust(digest)
    }

    /// That of the bytes as they are at home now. Takes the time to read them.
    package func recomputedDigest() -> UInt64 {
        let first = transaction.state.pointee.digest.first
        let start = transaction.committed.baseAddress! + Int(layout.progressSize)
        return LineHash.sum(start, count: Int(usedLines - first), first: 0)
    }

    /// Reads some more of what is committed, while commits go on.
    /// - Returns: what all of it sums up to, when the pass is over; if that is not `digest`, bytes were changed
    ///   otherwise than by commits.
    package func verifyDigest(pages: Int) -> UInt64? {
        invariant(pages > 0, "a pass makes progress")
        invariant(!transaction.isDirty, "a pass goes on between commits")
        let lines = UInt64(pages * Pool.pageSize / DirtyLines.lineSize)
        return transaction.state.pointee.digest.pass(
            over: lines, of: transaction.committed.baseAddress!, end: usedLines)
    }

    /// Pages that a pass reads.
    package var digestedPages: Int {
        (usedBytesOfData - Int(layout.progressSize)) / Pool.pageSize
    }

    private var usedLines: UInt64 { UInt64(usedBytesOfData / DirtyLines.lineSize) }

    /// The data area up to where it was ever written, in whole pages; above it all is zero.
    private var usedBytesOfData: Int {
        Heap.roundedToPages(Int(min(max(transaction.highWater, layout.blocks), layout.dataSize)))
    }

    private static func roundedToPages(_ count: Int) -> Int {
        (count + Pool.pageSize - 1) / Pool.pageSize * Pool.pageSize
    }
}
