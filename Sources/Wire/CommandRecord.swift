import MPaxosInvariants

/// One ordered command as it lies in a batch, in a forwarded run and in the log: a 32-byte header, the body, and zeros
/// up to a multiple of 8. All little-endian.
///
/// | offset | size | |
/// |---|---|---|
/// | 0 | 4 | bytes of the body |
/// | 4 | 1 | kind |
/// | 5 | 1 | zero |
/// | 6 | 2 | index of the replica that owes the client its reply |
/// | 8 | 8 | tag: where that replica keeps the request |
/// | 16 | 8 | session; of an OPEN the random seed of the id that it is to get |
/// | 24 | 8 | sequence |
@usableFromInline package struct CommandRecord: BitwiseCopyable {
    @usableFromInline package enum Kind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        case open = 1
        case submit = 2
        /// An ordered read: answered by its origin when reached, takes no position, changes nothing.
        case query = 3
        case close = 4
    }

    @usableFromInline package static let headerSize = 32
    /// Every record starts at and fills a multiple of this many bytes.
    @usableFromInline package static let alignment = 8

    @usableFromInline package let kind: Kind
    /// Index (not id) of the replica whose gateway took the request.
    @usableFromInline package let origin: UInt16
    @usableFromInline package let tag: UInt64
    @usableFromInline package let session: UInt64
    @usableFromInline package let sequence: UInt64
    /// Inside the batch: valid as long as the batch's bytes are.
    @usableFromInline package let body: UnsafeRawBufferPointer

    /// Bytes that a record with a body of `bodyCount` bytes takes, padding included.
    @inlinable package static func size(bodyCount: Int) -> Int {
        (headerSize + bodyCount + (alignment - 1)) & ~(alignment - 1)
    }

    /// Bytes that this record takes, padding included.
    @inlinable package var size: Int { CommandRecord.size(bodyCount: body.count) }

    /// Writes header and padding of a record at `bytes`, which must have room for `size(bodyCount:)`; the caller fills
    /// in the body at the pointer that is returned.
    @inlinable package static func writeHeader(
        into bytes: UnsafeMutableRawPointer, kind: Kind, origin: UInt16, tag: UInt64, session: UInt64, sequence: UInt64,
        bodyCount: Int
    ) -> UnsafeMutableRawPointer {
        invariant(bodyCount >= 0 && bodyCount <= Int(UInt32.max), "a body's length fits 32 bits")
        if bodyCount & 7 != 0 {
            bytes.storeInteger(0 as UInt64, size(bodyCount: bodyCount) - 8)
        }
        bytes.storeInteger(UInt32(truncatingIfNeeded: bodyCount), 0)
        bytes.storeInteger(kind.rawValue, 4)
        bytes.storeInteger(0 as UInt8, 5)
        bytes.storeInteger(origin, 6)
        bytes.storeInteger(tag, 8)
        bytes.storeInteger(session, 16)
        bytes.storeInteger(sequence, 24)
        return bytes + headerSize
    }

    /// Writes a whole record at `bytes`, which must have room for `size(bodyCount: body.count)`; returns that size.
    @inlinable @discardableResult package static func write(
        into bytes: UnsafeMutableRawPointer, kind: Kind, origin: UInt16, tag: UInt64, session: UInt64, sequence: UInt64,
        body: UnsafeRawBufferPointer
    ) -> Int {
        let at = writeHeader(
            into: bytes, kind: kind, origin: origin, tag: tag, session: session, sequence: sequence,
            bodyCount: body.count)
        if let source = body.baseAddress { at.copyMemory(from: source, byteCount: body.count) }
        return size(bodyCount: body.count)
    }

    @usableFromInline init(
        kind: Kind, origin: UInt16, tag: UInt64, session: UInt64, sequence: UInt64, body: UnsafeRawBufferPointer
    ) {
        self.kind = kind
        self.origin = origin
        self.tag = tag
        self.session = session
        self.sequence = sequence
        self.body = body
    }
}

/// Walks the records of a run of bytes that may come from anywhere: no length in it is trusted.
///
/// `next()` returns nil both at the end and at the first byte that is no record; `isDamaged` tells them apart.
@usableFromInline package struct CommandRecords: BitwiseCopyable {
    @usableFromInline var bytes: UnsafeRawBufferPointer
    /// Where the next record starts, from the start of the run.
    @usableFromInline package var offset: Int
    /// The walk ended before the end of the run, at bytes that are no record.
    @usableFromInline package var isDamaged: Bool

    /// The run may have any alignment.
    @inlinable package init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        offset = 0
        isDamaged = false
    }

    @inlinable package mutating func next() -> CommandRecord? {
        let left = bytes.count - offset
        if left == 0 { return nil }
        guard left >= CommandRecord.headerSize, let base = bytes.baseAddress else {
            isDamaged = true
            return nil
        }
        let header = base + offset
        // 32 bits in a 64-bit Int: the sum cannot overflow.
        let bodyCount = Int(header.loadUInt32(0))
        let size = CommandRecord.size(bodyCount: bodyCount)
        guard size <= left, let kind = CommandRecord.Kind(rawValue: header.loadUInt8(4)), header.loadUInt8(5) == 0,
            CommandRecords.isPaddingZero(header, bodyCount: bodyCount)
        else {
            isDamaged = true
            return nil
        }
        offset += size
        return CommandRecord(
            kind: kind, origin: header.loadUInt16(6), tag: header.loadUInt64(8), session: header.loadUInt64(16),
            sequence: header.loadUInt64(24),
            body: UnsafeRawBufferPointer(start: header + CommandRecord.headerSize, count: bodyCount))
    }

    /// Number of records in a run that consists of whole records and nothing else; nil for any other run.
    @inlinable package static func count(in bytes: UnsafeRawBufferPointer) -> Int? {
        var records = CommandRecords(bytes)
        var count = 0
        while records.next() != nil { count += 1 }
        return records.isDamaged ? nil : count
    }

    /// Whether bytes consist of whole records and nothing else, each of a replica with one of these indices.
    @inlinable package static func isRun(_ bytes: UnsafeRawBufferPointer, ofReplicas origins: Range<Int>) -> Bool {
        var records = CommandRecords(bytes)
        while let record = records.next() {
            guard origins.contains(Int(record.origin)) else { return false }
        }
        return !records.isDamaged
    }

    @inlinable static func isPaddingZero(_ header: UnsafeRawPointer, bodyCount: Int) -> Bool {
        let used = bodyCount & 7
        if used == 0 { return true }
        // The last word of the record: `used` bytes of body below, zeros above.
        return header.loadUInt64(CommandRecord.size(bodyCount: bodyCount) - 8) >> UInt64(used * 8) == 0
    }
}
