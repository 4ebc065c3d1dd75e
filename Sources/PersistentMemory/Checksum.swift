import CSupport

/// CRC32C (Castagnoli), as it guards what lies in pools and what travels between replicas.
@usableFromInline package enum Checksum {
    @inlinable package static func of(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
        csupport_crc32c(0, bytes, count)
    }
}
