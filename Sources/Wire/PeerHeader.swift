/// Version of the protocol between replicas. Replicas of different versions refuse each other.
@usableFromInline package let peerProtocolVersion: UInt8 = 6

/// `MPP1` as it lies in the first four bytes of every frame between replicas.
@usableFromInline let peerMagic: UInt32 = 0x3150_504D

/// Why bytes are no frame of this protocol. They are dropped and counted, nothing in them is used.
@usableFromInline package enum PeerFrameError: Error, Sendable, BitwiseCopyable, Equatable {
    /// Not between 64 bytes and what the header names.
    case size
    case magic
    /// A frame of another version of the protocol, whose header is whole.
    case version(UInt8)
    case headerChecksum
    case unknownKind
    /// A field that must be zero is not, or a field has a value that no replica sends.
    case field
    /// The payload does not match its checksum (in the handshake only: other payloads are checked by who reads them).
    case payloadChecksum
}

/// The fixed part of every frame between replicas: 64 bytes, little-endian.
///
/// | offset | size | |
/// |---|---|---|
/// | 0 | 4 | `MPP1` |
/// | 4 | 1 | protocol version |
/// | 5 | 1 | kind |
/// | 6 | 1 | index of the sending replica |
/// | 7 | 1 | flags, by kind |
/// | 8 | 4 | checksum of the other 60 bytes |
/// | 12 | 4 | bytes of payload, which follow the header |
/// | 16 | 4 | checksum of the payload |
/// | 20 | 4 | a small number, by kind |
/// | 24 | 40 | five 64-bit numbers, by kind |
///
/// What a kind does not use is zero. Version and checksum lie at the same place in all versions, so that a replica can
/// tell a newer peer from garbage.
@usableFromInline package struct PeerHeader: BitwiseCopyable, Equatable, Sendable {
    @usableFromInline package static let size = 64

    @usableFromInline package var kind: UInt8
    @usableFromInline package var sender: UInt8
    @usableFromInline package var flags: UInt8
    @usableFromInline package var payloadCount: UInt32
    @usableFromInline package var payloadChecksum: UInt32
    @usableFromInline package var small: UInt32
    @usableFromInline package var numbers: (UInt64, UInt64, UInt64, UInt64, UInt64)

    @inlinable package init(
        kind: UInt8, sender: UInt8, flags: UInt8 = 0, payloadCount: UInt32 = 0, payloadChecksum: UInt32 = 0,
        small: UInt32 = 0, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0
    ) {
        self.kind = kind
        self.sender = sender
        self.flags = flags
        self.payloadCount = payloadCount
        self.payloadChecksum = payloadChecksum
        self.small = small
        numbers = (a, b, c, d, e)
    }

    @inlinable package static func == (left: PeerHeader, right: PeerHeader) -> Bool {
        left.kind == right.kind && left.sender == right.sender && left.flags == right.flags
            && left.payloadCount == right.payloadCount && left.payloadChecksum == right.payloadChecksum
            && left.small == right.small && left.numbers == right.numbers
    }

    /// Writes the 64 bytes at `bytes`, which must have room for them.
    @inlinable package func encode(into bytes: UnsafeMutableRawPointer, version: UInt8 = peerProtocolVersion) {
        bytes.storeInteger(peerMagic, 0)
        bytes.storeInteger(version, 4)
        bytes.storeInteger(kind, 5)
        bytes.storeInteger(sender, 6)
        bytes.storeInteger(flags, 7)
        bytes.storeInteger(0 as UInt32, 8)
        bytes.storeInteger(payloadCount, 12)
        bytes.storeInteger(payloadChecksum, 16)
        bytes.storeInteger(small, 20)
        bytes.storeInteger(numbers.0, 24)
        bytes.storeInteger(numbers.1, 32)
        bytes.storeInteger(numbers.2, 40)
        bytes.storeInteger(numbers.3, 48)
        bytes.storeInteger(numbers.4, 56)
        bytes.storeInteger(PeerHeader.checksum(UnsafeRawPointer(bytes)), 8)
    }

    /// Reads the header of a whole frame, header and payload. The payload's bytes are not looked at.
    @inlinable package init(decoding frame: UnsafeRawBufferPointer) throws(PeerFrameError) {
        guard frame.count >= PeerHeader.size, let bytes = frame.baseAddress else { throw .size }
        guard bytes.loadUInt32(0) == peerMagic else { throw .magic }
        guard bytes.loadUInt32(8) == PeerHeader.checksum(bytes) else { throw .headerChecksum }
        guard bytes.loadUInt8(4) == peerProtocolVersion else { throw .version(bytes.loadUInt8(4)) }
        kind = bytes.loadUInt8(5)
        sender = bytes.loadUInt8(6)
        flags = bytes.loadUInt8(7)
        payloadCount = bytes.loadUInt32(12)
        payloadChecksum = bytes.loadUInt32(16)
        small = bytes.loadUInt32(20)
        numbers = (
            bytes.loadUInt64(24), bytes.loadUInt64(32), bytes.loadUInt64(40), bytes.loadUInt64(48), bytes.loadUInt64(56)
        )
        guard Int(payloadCount) == frame.count - PeerHeader.size else { throw .size }
    }

    /// Checksum of the header's 60 other bytes: multiply and fold over its eight words, the checksum's own place as 0.
    @inlinable package static func checksum(_ header: UnsafeRawPointer) -> UInt32 {
        var hash = FoldedChecksum()
        hash.mix(header.loadUInt64(0))
        hash.mix(header.loadUInt64(8) & 0xFFFF_FFFF_0000_0000)
        for word in 2..<8 { hash.mix(header.loadUInt64(word * 8)) }
        return hash.value
    }
}

/// A checksum against damage (not against forgery) for short things, in plain arithmetic: CRC32C needs C, which this
/// module does not import. A change in one word always changes the value before the last fold, since every step is
/// a bijection; what collides does so by chance at 2^-32.
@usableFromInline struct FoldedChecksum {
    @usableFromInline var state: UInt64 = 0x9E37_79B9_7F4A_7C15

    @inlinable init() {}

    @inlinable mutating func mix(_ word: UInt64) {
        state = (state ^ word) &* 0xD6E8_FEB8_6659_FD93
        state ^= state >> 32
    }

    @inlinable var value: UInt32 {
        let last = state &* 0xD6E8_FEB8_6659_FD93
        return UInt32(truncatingIfNeeded: last >> 32)
    }

    /// Of any run of bytes, its length included.
    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var hash = FoldedChecksum()
        hash.mix(UInt64(bytes.count))
        var at = 0
        while bytes.count - at >= 8 {
            hash.mix(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)))
            at += 8
        }
        var rest: UInt64 = 0
        for index in at..<bytes.count { rest |= UInt64(bytes[index]) << UInt64(8 * (index - at)) }
        hash.mix(rest)
        return hash.value
    }
}
