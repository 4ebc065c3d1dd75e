import Glibc

/// A checksum of what libpmemobj keeps in a pool file in front of the region: its lanes, the chunks of its heap, where
/// its root is.
///
/// libpmemobj checks its headers, but follows all else blindly: damage there ends in SIGSEGV or in a loop for ever
/// inside `pmemobj_open`. Nothing of it changes after the pool's creation, since nothing is allocated and no
/// transaction runs. So it is summed once, and compared by system calls before libpmemobj sees the file. The seal lies
/// in the last line in front of the region, inside the object that holds it.
struct PoolSeal: BitwiseCopyable, Equatable {
    private static let magic: UInt64 = 0x314C_4145_5358_504D  // "MPXSEAL1"
    private static let size = 64
    /// What is in front of a region is never more.
    private static let searched = 8 << 20

    private var magic = PoolSeal.magic
    /// Offset of the region in the file.
    private var region: UInt64
    private var metadata: UInt32
    private var own: UInt32 = 0

    /// In the file: the layout and the constants of the descriptor, which libpmemobj sums as well; where its root is;
    /// lanes and heap. Left out are the header, whose shutdown state changes, and in the descriptor the number of the
    /// run and what is volatile.
    private static func summed(region: Int) -> [Range<Int>] { [4096..<6152, 6160..<6656, 8192..<region - size] }

    private init(of head: UnsafeRawBufferPointer, region: Int) {
        self.region = UInt64(region)
        // A sum of sums.
        let sums = Self.summed(region: region).map { Checksum.of(head.baseAddress! + $0.lowerBound, $0.count) }
        metadata = sums.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
        own = withUnsafeBytes(of: self) { Checksum.of($0.baseAddress!, 20) }
    }

    /// Writes the seal of a new pool that nobody has open.
    /// - Parameter region: its offset in the file.
    static func write(path: String, region: Int) throws(PoolError) {
        let file = open(path, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw failure(path) }
        defer { close(file) }
        let head = UnsafeMutableRawBufferPointer.allocate(byteCount: region, alignment: 64)
        defer { head.deallocate() }
        guard pread(file, head.baseAddress, region, 0) == region else { throw failure(path) }
        var seal = PoolSeal(of: UnsafeRawBufferPointer(head), region: region)
        let written = withUnsafeBytes(of: &seal) { pwrite(file, $0.baseAddress, $0.count, off_t(region - size)) }
        guard written == MemoryLayout<PoolSeal>.size, fsync(file) == 0 else { throw failure(path) }
    }

    /// - Throws: `.damaged` when the file's metadata is not what it was at creation.
    static func check(descriptor: Int32, path: String, size fileSize: Int) throws(PoolError) {
        let count = min(searched, fileSize)
        let head = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
        defer { head.deallocate() }
        guard pread(descriptor, head.baseAddress, count, 0) == count else { throw failure(path) }
        for region in stride(from: 3 * Pool.pageSize, through: count, by: Pool.pageSize) {
            let seal = head.load(fromByteOffset: region - size, as: PoolSeal.self)
            guard seal.magic == magic, seal.region == UInt64(region) else { continue }
            guard seal == PoolSeal(of: UnsafeRawBufferPointer(head), region: region) else {
                throw PoolError(
                    .damaged, "\(path): what libpmemobj keeps in it is damaged; \(PoolError.restoreAdvice)")
            }
            return
        }
        throw PoolError(
            .damaged,
            "\(path): it has no seal: its creation was cut short, or its head is damaged; \(PoolError.unfinishedAdvice)"
        )
    }

    private static func failure(_ path: String) -> PoolError {
        PoolError(
            .io,
            "\(path): cannot read or write its head: \(String(cString: strerror(errno))); \(PoolError.systemAdvice)")
    }
}
