import Glibc
import MPaxosCPersistentMemory
import MPaxosInvariants

/// One libpmemobj pool file that holds a single page-aligned region, allocated at creation.
///
/// libpmemobj gives the file its format, its lock and its checks; what happens inside the region is the owner's
/// business, by plain stores that go through `flush`, `copyAndFlush` and `fence`. Its transactions are not used.
///
/// Threading: one owner at a time.
package final class Pool {
    package private(set) var path: String
    /// The mapped region: page-aligned, zero at creation.
    package let region: UnsafeMutableRawBufferPointer
    package let durability: Durability
    /// Where in the file the region starts, in bytes: a second mapping of the region is made from here.
    package let fileOffsetOfRegion: Int
    /// Open for reading and writing for as long as the pool is.
    package let fileDescriptor: Int32
    /// What is written into the region does not reach the file, nor other mappings of it.
    let isPrivate: Bool

    @usableFromInline let flusher: UnsafeMutablePointer<Flush>
    private var handle: OpaquePointer?
    private var isOpen = true

    package static let pageSize = 4096
    /// The largest pool file, in bytes: libpmemobj allocates at most 15.998 GiB in one piece.
    package static let maximumSize = 15 << 30
    /// The smallest pool file, in bytes.
    package static let minimumSize = 16 << 20

    private static let chunk = 256 << 10
    private static let rootMagic: UInt64 = 0x3147_4552_5850_4d01  // "\u{1}MPXREG1"

    private struct Root: BitwiseCopyable {
        var magic: UInt64
        var offset: UInt64
        var size: UInt64
    }

    /// Creates a pool file of `size` bytes, really allocated on its file system, with a zeroed region inside; closes
    /// it.
    /// - Parameter layout: names the kind and version of the content; at most 200 bytes of UTF-8.
    package static func create(path: String, layout: String, size: Int) throws(PoolError) {
        invariant(layout.utf8.count <= 200, "a layout's name has at most 200 bytes")
        invariant(!layout.utf8.contains(0), "a layout's name has no zero byte")
        guard size >= minimumSize, size <= maximumSize, size % pageSize == 0 else {
            throw PoolError(
                .noSpace,
                "\(path): a pool can have from \(minimumSize) to \(maximumSize) bytes, a multiple of \(pageSize), not \(size); choose another size"
            )
        }
        guard let pool = pmemobj_create(path, stamped(layout, size: size), size, 0o600) else {
            throw creationError(path: path, size: size, code: errno)
        }
        var isOpen = true
        do throws(PoolError) {
            let region = try allocateRegion(in: pool, path: path, size: size)
            pmemobj_close(pool)
            isOpen = false
            try PoolSeal.write(path: path, region: region)
        } catch {
            if isOpen { pmemobj_close(pool) }
            unlink(path)
            throw error
        }
        try syncDirectory(of: path)
    }

    /// Opens a pool file that `create` made with the same layout name.
    package init(opening path: String, layout: String) throws(PoolError) {
        let descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw Pool.openingError(path: path, code: errno) }
        do throws(PoolError) {
            let size = try Pool.inspect(descriptor: descriptor, path: path, layout: layout)
            let pool = try Pool.openLocked(path: path, layout: Pool.stamped(layout, size: size))
            handle = pool
            do throws(PoolError) {
                region = try Pool.findRegion(in: pool, path: path, size: size)
            } catch {
                pmemobj_close(pool)
                throw error
            }
            fileOffsetOfRegion = UnsafeRawPointer(region.baseAddress!) - UnsafeRawPointer(pool)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        self.path = path
        fileDescriptor = descriptor
        isPrivate = false
        durability = Durability.of(region: UnsafeRawBufferPointer(region), file: descriptor)
        flusher = Flush.make(region: region, durability: durability)
        if FlushCheck.isWanted { checkFlushes(planting: FlushPlant.ofEnvironment(layout: layout)) }
    }

    /// A pool without libpmemobj: the region is an unnamed file in memory with this content. For crash images.
    package convenience init(image: UnsafeRawBufferPointer) throws(PoolError) {
        try self.init(path: "(image)", memoryOf: image.count)
        region.copyMemory(from: image)
    }

    /// A pool without libpmemobj: the region is an unnamed file in memory, with a copy of a region that its owner may
    /// be changing. Takes as much memory as the region has pages that are not zero.
    /// - Parameters:
    ///   - descriptor: of the pool's file.
    ///   - place: of the region in it.
    package convenience init(
        path: String, copyOf descriptor: Int32, at place: Int, count: Int
    ) throws(PoolError) {
        try self.init(path: path, memoryOf: count)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: Pool.pageSize)
        defer { buffer.deallocate() }
        var done = 0
        while done < count {
            let got = pread(descriptor, buffer.baseAddress, min(buffer.count, count - done), off_t(place + done))
            guard got > 0, got % Pool.pageSize == 0 else {
                throw PoolError(
                    .io, "\(path): cannot read: \(String(cString: strerror(errno))); \(PoolError.systemAdvice)")
            }
            for page in stride(from: 0, to: got, by: Pool.pageSize) {
                let words = UnsafeRawBufferPointer(rebasing: buffer[page..<page + Pool.pageSize])
                guard words.bindMemory(to: UInt64.self).contains(where: { $0 != 0 }) else { continue }
                (region.baseAddress! + done + page).copyMemory(from: words.baseAddress!, byteCount: words.count)
            }
            done += got
        }
    }

    /// A pool without libpmemobj, in memory that is zero: an unnamed file, see `fileDescriptor`.
    package init(path: String, memoryOf count: Int) throws(PoolError) {
        invariant(count > 0, "an image has bytes")
        invariant(count % Pool.pageSize == 0, "an image is whole pages")
        let descriptor = cpm_memory_file("crash-image")
        guard descriptor >= 0, ftruncate(descriptor, count) == 0,
            let mapped = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), mapped != MAP_FAILED
        else {
            let code = errno
            if descriptor >= 0 { Glibc.close(descriptor) }
            throw PoolError(
                .io,
                "\(path): no memory for a copy of \(count) bytes: \(String(cString: strerror(code))); give the host more memory, or this process more address space (ulimit -v)"
            )
        }
        region = UnsafeMutableRawBufferPointer(start: mapped, count: count)
        self.path = path
        fileOffsetOfRegion = 0
        fileDescriptor = descriptor
        isPrivate = false
        durability = .emulated
        handle = nil
        flusher = Flush.make(region: region, durability: .emulated)
    }

    /// A pool without libpmemobj, on a file that nobody changes: what is written into the region stays in this process.
    /// Takes memory for those pages alone.
    /// - Parameters:
    ///   - descriptor: of the pool's file; it stays the caller's.
    ///   - place: of the region in it.
    package init(path: String, privateViewOf descriptor: Int32, at place: Int, count: Int) throws(PoolError) {
        invariant(place % Pool.pageSize == 0 && count % Pool.pageSize == 0, "a region is whole pages")
        let own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        guard own >= 0,
            let mapped = mmap(
                nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, own, off_t(place)),
            mapped != MAP_FAILED
        else {
            let code = errno
            if own >= 0 { Glibc.close(own) }
            throw PoolError(
                .io,
                "\(path): cannot map: \(String(cString: strerror(code))); give the host more memory, or this process more address space (ulimit -v)"
            )
        }
        region = UnsafeMutableRawBufferPointer(start: mapped, count: count)
        self.path = path
        fileOffsetOfRegion = place
        fileDescriptor = own
        isPrivate = true
        durability = .emulated
        handle = nil
        flusher = Flush.make(region: region, durability: .emulated)
    }

    /// Unmaps and unlocks the file. What was not fenced may be lost.
    package func close() {
        guard isOpen else { return }
        isOpen = false
        if let handle {
            pmemobj_close(handle)
        } else {
            munmap(region.baseAddress, region.count)
        }
        Glibc.close(fileDescriptor)
        Flush.destroy(flusher)
    }

    deinit { close() }

    // MARK: Flushing

    /// Begins to make the bytes durable; they are once the next `fence` has returned.
    @inlinable package func flush(_ start: UnsafeRawPointer, _ count: Int) {
        flusher.pointee.flush(start, count)
    }

    /// As `flush`, but only `fenceAll` needs to make it durable, see `streamLater`.
    @inlinable package func flushLater(_ start: UnsafeRawPointer, _ count: Int) {
        flusher.pointee.flushLater(start, count)
    }

    /// Copies into the region and flushes what it copied, by the fastest stores there are for the length.
    @inlinable package func copyAndFlush(to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int)
    {
        flusher.pointee.copyAndFlush(to: target, from: source, count: count)
    }

    /// As `copyAndFlush`, but past the caches, for what will not be read soon: the target's old content need not be
    /// fetched, which is half of the cost of scattered lines.
    @inlinable package func stream(to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int) {
        flusher.pointee.stream(to: target, from: source, count: count)
    }

    /// As `stream`, but only `fenceAll` needs to make it durable: with msync that saves writing the pages each time.
    @inlinable package func streamLater(to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int) {
        flusher.pointee.streamLater(to: target, from: source, count: count)
    }

    /// When it returns, all that was flushed is durable.
    @inlinable package func fence() {
        flusher.pointee.fence()
    }

    /// When it returns, all that was flushed, now or later, is durable.
    @inlinable package func fenceAll() {
        flusher.pointee.fenceAll()
    }

    /// Hears of every flush and fence, for tests that build crash images. Set it only between operations.
    package var crashRecorder: CrashRecorder? {
        get { flusher.pointee.recorder }
        set { flusher.pointee.record(with: newValue) }
    }
}

// MARK: - Creation and checks

extension Pool {
    /// The layout string as stored: the name and the file's size, so that both can be checked before mapping the file.
    private static func stamped(_ layout: String, size: Int) -> String { "\(layout) size=\(size)" }

    /// - Returns: the region's offset in the file.
    private static func allocateRegion(in pool: OpaquePointer, path: String, size: Int) throws(PoolError) -> Int {
        let rootID = pmemobj_root(pool, MemoryLayout<Root>.size)
        guard rootID.off != 0 else { throw PoolError(.io, "\(path): no root: \(String(cString: pmemobj_errormsg()))") }
        // libpmemobj's own share of the file is not documented to the byte: the largest that fits is found by trying.
        var wanted = size - (4 << 20)
        var id = PMEMoid(pool_uuid_lo: 0, off: 0)
        while wanted > size / 4, pmemobj_alloc(pool, &id, wanted, 1, nil, nil) != 0 { wanted -= chunk }
        guard id.off != 0 else {
            throw PoolError(.io, "\(path): no region: \(String(cString: pmemobj_errormsg()))")
        }
        let usable = pmemobj_alloc_usable_size(id)
        let mask = UInt64(pageSize - 1)
        // The seal takes the line in front of the region.
        let start = (id.off + 64 + mask) & ~mask
        let length = (UInt64(usable) - (start - id.off)) & ~mask
        let root = cpm_direct(pool, rootID.off)!.assumingMemoryBound(to: Root.self)
        root.pointee = Root(magic: rootMagic, offset: start, size: length)
        pmemobj_persist(pool, root, MemoryLayout<Root>.size)
        return Int(start)
    }

    /// A pool in use is tried again for a second: the kernel may still be taking down the process that was
    /// killed while it held the lock, or a child of its owner may be between fork and exec.
    private static func openLocked(path: String, layout: String) throws(PoolError) -> OpaquePointer {
        var attemptsLeft = lockAttempts
        while true {
            if let pool = pmemobj_open(path, layout) { return pool }
            let code = errno
            guard code == EAGAIN, attemptsLeft > 0 else { throw openingError(path: path, code: code) }
            attemptsLeft -= 1
            usleep(lockPause)
        }
    }

    /// How often, and after how many microseconds, a lock is tried again: a second in all, since on a busy machine a
    /// fork may take long.
    package static let lockAttempts = 100
    package static let lockPause: UInt32 = 10_000

    private static func findRegion(
        in pool: OpaquePointer, path: String, size: Int
    ) throws(PoolError) -> UnsafeMutableRawBufferPointer {
        guard pmemobj_root_size(pool) >= MemoryLayout<Root>.size else {
            throw PoolError(.damaged, "\(path): its creation was cut short; \(PoolError.unfinishedAdvice)")
        }
        let root = cpm_direct(pool, pmemobj_root(pool, MemoryLayout<Root>.size).off)!.load(as: Root.self)
        let page = UInt64(pageSize)
        guard root.magic == rootMagic else {
            throw PoolError(.damaged, "\(path): its creation was cut short; \(PoolError.unfinishedAdvice)")
        }
        guard root.offset % page == 0, root.size % page == 0, root.size > 0, root.offset < UInt64(size),
            root.size <= UInt64(size) - root.offset
        else {
            throw PoolError(
                .damaged, "\(path): the region's place is damaged; \(PoolError.restoreAdvice)")
        }
        return UnsafeMutableRawBufferPointer(start: cpm_direct(pool, root.offset), count: Int(root.size))
    }

    /// Reads what can be checked by system calls, before anything is mapped: a mapped file that is too short kills its
    /// reader with SIGBUS.
    /// - Returns: the file's size in bytes.
    private static func inspect(descriptor: Int32, path: String, layout: String) throws(PoolError) -> Int {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw openingError(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw PoolError(.foreign, "\(path): not a regular file; give the path of a pool file")
        }
        let size = Int(status.st_size)
        // The descriptor of libpmemobj: a signature at 0, the layout string of at most 1,024 bytes at 4,096.
        var head = [UInt8](repeating: 0, count: 4096 + 1024)
        let got = pread(descriptor, &head, head.count, 0)
        guard got < 8 || Array(head[0..<8]) == Array("PMEMOBJ\0".utf8) else {
            throw PoolError(.foreign, "\(path): not a pool file; give the path of a pool that `format` made")
        }
        guard got == head.count else {
            throw PoolError(
                .damaged,
                "\(path): \(size == 0 ? "empty" : "truncated to \(size) bytes"), not a whole pool; \(PoolError.restoreAdvice)"
            )
        }
        let stored = String(decoding: head[4096...].prefix { $0 != 0 }, as: UTF8.self)
        guard let separator = stored.range(ofLast: " size="), let wanted = Int(stored[separator.upperBound...]),
            stored[..<separator.lowerBound] == layout
        else {
            let found = stored.split(separator: " ").first ?? ""
            if kind(of: found) == kind(of: layout), found != layout {
                throw PoolError(
                    .foreign,
                    "\(path): a pool of the layout '\(found)', where this program reads '\(layout)': run the program that made it, or begin a new cluster with new pools on all replicas"
                )
            }
            throw PoolError(
                .foreign, "\(path): a pool with the layout '\(stored)', where '\(layout)' is needed; give another path")
        }
        guard size == wanted else {
            throw PoolError(
                .damaged,
                "\(path): \(size) bytes long, but made with \(wanted): truncated or padded; \(PoolError.restoreAdvice)"
            )
        }
        try PoolSeal.check(descriptor: descriptor, path: path, size: size)
        // A copy may have holes; on a full file system a store into one kills the process later.
        if Int(status.st_blocks) * 512 < size {
            let failure = posix_fallocate(descriptor, 0, off_t(size))
            guard failure == 0 else {
                throw PoolError(
                    .noSpace,
                    "\(path): the file has holes and they cannot be filled: \(String(cString: strerror(failure))); free as much on its file system, and start again"
                )
            }
        }
        return size
    }

    /// A layout's name without its version, the number at its end.
    private static func kind(of layout: some StringProtocol) -> String {
        String(layout.reversed().drop { $0.isNumber }.reversed())
    }

    private static func creationError(path: String, size: Int, code: Int32) -> PoolError {
        let reason = String(cString: pmemobj_errormsg())
        switch code {
        case EEXIST: return PoolError(.exists, "\(path): exists already; name another path")
        case ENOSPC:
            return PoolError(
                .noSpace, "\(path): no room for \(size) bytes on its file system; free some or choose a smaller size")
        case ENOENT: return PoolError(.missing, "\(path): its folder does not exist; create it first")
        case EACCES, EPERM, EROFS:
            return PoolError(
                .io,
                "\(path): cannot create: \(String(cString: strerror(code))); the user of this process must be able to write to its folder"
            )
        case EFBIG:
            return PoolError(
                .io,
                "\(path): cannot create: a file of \(size) bytes is larger than its file system, or the limit of this process (ulimit -f), allows"
            )
        default: return PoolError(.io, "\(path): cannot create: \(String(cString: strerror(code))): \(reason)")
        }
    }

    private static func openingError(path: String, code: Int32) -> PoolError {
        switch code {
        case ENOENT:
            return PoolError(
                .missing, "\(path): no such pool; `format` makes one, and only for a replica that never ran")
        case EAGAIN: return PoolError(.inUse, "\(path): another process has it open; stop that one first")
        case EACCES, EPERM, EROFS:
            return PoolError(.io, "\(path): \(String(cString: strerror(code))); the replica must be able to write it")
        case EINVAL:
            return PoolError(
                .damaged,
                "\(path): damaged: \(String(cString: pmemobj_errormsg())); \(PoolError.restoreAdvice)"
            )
        default:
            return PoolError(.io, "\(path): cannot open: \(String(cString: strerror(code))); \(PoolError.systemAdvice)")
        }
    }

    /// Makes durable which files there are in the folder of `path`.
    package static func syncDirectory(of path: String) throws(PoolError) {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let descriptor = Glibc.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { if descriptor >= 0 { Glibc.close(descriptor) } }
        guard descriptor >= 0, fsync(descriptor) == 0 else {
            throw PoolError(
                .io,
                "\(folder): cannot be made durable, so that a loss of power may undo which files it has: \(String(cString: strerror(errno))); \(PoolError.systemAdvice)"
            )
        }
    }

    /// Gives the file another name, in place of whatever has it. The pool stays open, and so locked, all the while.
    /// Durable on return; where that fails, the file may have either name after a loss of power.
    package func rename(to target: String) throws(PoolError) {
        guard Glibc.rename(path, target) == 0 else {
            throw PoolError(
                .io,
                "\(path): cannot be renamed to \(target): \(String(cString: strerror(errno))); \(PoolError.systemAdvice)"
            )
        }
        path = target
        try Pool.syncDirectory(of: target)
    }
}

extension String {
    /// The last occurrence of `needle` (Foundation is not imported here).
    fileprivate func range(ofLast needle: String) -> Range<Index>? {
        var end = endIndex
        while let start = index(end, offsetBy: -needle.count, limitedBy: startIndex) {
            if self[start..<end] == needle { return start..<end }
            guard end > startIndex else { return nil }
            end = index(before: end)
        }
        return nil
    }
}
