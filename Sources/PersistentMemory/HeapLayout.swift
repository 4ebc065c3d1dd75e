import MPaxosCSupport

/// Where things lie in a heap's region: [header page][journal][data area], and in the data area:
/// [progress][system root][machine root][allocator][blocks]. Stored in the header, checked at open.
struct HeapLayout: BitwiseCopyable {
    static let magic: UInt64 = 0x3150_4145_4858_504d  // "MPXHEAP1"
    static let version: UInt64 = 3
    static let systemRootSize = 4096
    static let machineRootSize = 256

    var magic = HeapLayout.magic
    var version = HeapLayout.version
    /// Bytes of the region from the header on.
    var regionSize: UInt64
    var journalSize: UInt64
    var dataSize: UInt64
    var progressSize: UInt64
    var reserveSize: UInt64
    /// Drawn at format: journal records of another format, or bytes of clients that look like records, do not fit it.
    var salt: UInt64

    /// In the header page: this struct at 0, its checksum at 64; on lines of their own, as checked numbers, the first
    /// commit of the journal and the newest one that was fenced; and a line that is the owner's.
    static let checksumOffset = 64
    static let firstCommitOffset = 128
    static let newestCommitOffset = 192
    static let ownerOffset = 256

    var journalOffset: Int { Pool.pageSize }
    var dataOffset: Int { Pool.pageSize + Int(journalSize) }

    // Offsets in the data area.
    var systemRoot: UInt64 { progressSize }
    var machineRoot: UInt64 { progressSize + UInt64(HeapLayout.systemRootSize) }
    var allocator: UInt64 { machineRoot + UInt64(HeapLayout.machineRootSize) }
    var blocks: UInt64 { (allocator + UInt64(AllocatorLayout.size) + 63) & ~63 }

    var checksum: UInt32 {
        withUnsafeBytes(of: self) { csupport_crc32c(0, $0.baseAddress, $0.count) }
    }

    /// Whether the numbers are possible for a region of this size, as damage or another version would make them not.
    func isSound(for available: Int) -> Bool {
        let page = UInt64(Pool.pageSize)
        guard magic == HeapLayout.magic, version == HeapLayout.version, regionSize == UInt64(available) else {
            return false
        }
        guard journalSize % page == 0, dataSize % page == 0, progressSize % page == 0 else { return false }
        guard journalSize >= page, journalSize < regionSize, dataSize < regionSize, progressSize < dataSize else {
            return false
        }
        guard page + journalSize + dataSize == regionSize else { return false }
        return blocks + UInt64(AllocatorLayout.smallest) <= dataSize && reserveSize < dataSize - blocks
    }
}
