import MPaxosPersistentMemory

/// A record of one cache line whose last four bytes are a CRC32C of the others.
protocol CheckedLine: BitwiseCopyable {
    var checksum: UInt32 { get set }
}

extension CheckedLine {
    private var sum: UInt32 {
        withUnsafeBytes(of: self) { Checksum.of($0.baseAddress!, AcceptorGeometry.line - 4) }
    }

    /// Whether the line is as it was sealed.
    var isIntact: Bool { sum == checksum }

    /// With the checksum of what it holds now, as it is to be stored.
    var sealed: Self {
        var line = self
        line.checksum = sum
        return line
    }
}
