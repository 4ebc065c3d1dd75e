import MPaxosCSupport

/// CRC32C (Castagnoli), as it guards what lies in pools and what travels between replicas.
@usableFromInline package enum Checksum {
    @inlinable package static func of(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
        csupport_crc32c(0, bytes, count)
    }

    /// That of longer bytes, of which `checksum` is that of all before these.
    package static func extend(_ checksum: UInt32, with bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
        csupport_crc32c(checksum, bytes, count)
    }
}
