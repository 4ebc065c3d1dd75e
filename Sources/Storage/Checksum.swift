import CSupport

/// CRC32C, as it guards everything in the pools.
enum Checksum {
    static func of(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
        csupport_crc32c(0, bytes, count)
    }
}
