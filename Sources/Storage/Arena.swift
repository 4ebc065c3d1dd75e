import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// A batch's place in the arena, in the order of the offsets.
struct ArenaRecord: BitwiseCopyable {
    /// No vote has named the batch yet.
    static let unknown = UInt64.max

    var offset: UInt64
    var instance: UInt64
}

/// The circular arena of batch bytes, and the order in which its batches lie there.
///
/// Offsets are logical: they only rise, and the physical place is the offset modulo the arena's size. A batch is
/// contiguous and starts on a line; where it would straddle the end, the rest up to the end is skipped.
struct Arena {
    let base: UnsafeMutableRawPointer
    let size: UInt64
    /// Ring of the records that are held, oldest first.
    private let records: UnsafeMutablePointer<ArenaRecord>
    private let mask: Int
    private var first = 0
    private(set) var recordCount = 0
    /// Where the next batch goes, before a skip.
    private(set) var tail: UInt64 = 0
    private var reserved: (start: UInt64, count: Int)?
    /// How many were dropped so far; and how many of all that there ever were are not live any more, from the first on.
    private var dropped: UInt64 = 0
    private var passed: UInt64 = 0

    init(at base: UnsafeMutableRawPointer, size: Int, recordCapacity: Int) {
        invariant(recordCapacity & (recordCapacity - 1) == 0, "the ring of arena records has a power of two of them")
        invariant(size > 0 && size % AcceptorGeometry.line == 0, "the arena is whole lines")
        self.base = base
        self.size = UInt64(size)
        records = .allocate(capacity: recordCapacity)
        records.initialize(repeating: ArenaRecord(offset: 0, instance: 0), count: recordCapacity)
        mask = recordCapacity - 1
    }

    func deallocate() { records.deallocate() }

    /// Oldest offset whose bytes are still held.
    var head: UInt64 { recordCount == 0 ? tail : records[first].offset }
    /// Bytes between the oldest held batch and the tail.
    var used: UInt64 { tail - head }
    var oldest: ArenaRecord? { recordCount == 0 ? nil : records[first] }

    static func rounded(_ count: Int) -> UInt64 {
        UInt64((count + AcceptorGeometry.line - 1) & ~(AcceptorGeometry.line - 1))
    }

    private func start(for count: UInt64) -> UInt64 {
        let untilWrap = size - tail % size
        return untilWrap < count ? tail + untilWrap : tail
    }

    func hasRoom(for count: Int) -> Bool {
        let rounded = Self.rounded(count)
        guard recordCount <= mask, rounded <= size else { return false }
        // Nothing held: a skip up to the wrap costs nothing.
        return recordCount == 0 || start(for: rounded) + rounded - head <= size
    }

    func pointer(at offset: UInt64) -> UnsafeMutableRawPointer { base + Int(offset % size) }

    /// Replaces an earlier reservation that was not sealed.
    mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer? {
        invariant(count > 0, "a batch that takes room has bytes")
        guard hasRoom(for: count) else {
            reserved = nil
            return nil
        }
        let place = start(for: Self.rounded(count))
        reserved = (place, count)
        return pointer(at: place)
    }

    /// The first `count` bytes of the reservation become a batch.
    mutating func seal(_ count: Int, for instance: UInt64) -> Batch {
        guard let reservation = reserved else { broken("a batch is sealed after its place was reserved") }
        invariant(count > 0 && count <= reservation.count, "a batch fits its reservation")
        reserved = nil
        let bytes = pointer(at: reservation.start)
        records[(first + recordCount) & mask] = ArenaRecord(offset: reservation.start, instance: instance)
        recordCount += 1
        tail = reservation.start + Self.rounded(count)
        return Batch(offset: reservation.start, length: UInt32(count), checksum: Checksum.of(bytes, count))
    }

    mutating func unseal(_ batch: Batch) {
        invariant(recordCount > 0, "a batch that is unsealed is there")
        let newest = records[(first + recordCount - 1) & mask]
        invariant(newest.offset == batch.offset, "only the newest batch can be unsealed")
        recordCount -= 1
        passed = min(passed, dropped + UInt64(recordCount))
        tail = newest.offset
        reserved = nil
    }

    func holds(_ batch: Batch) -> Bool {
        batch.offset >= head && batch.offset + UInt64(batch.length) <= tail
    }

    /// Notes which instance a batch was voted for.
    mutating func attach(_ instance: UInt64, to offset: UInt64) {
        var low = 0
        var high = recordCount
        // The batch voted for is nearly always one of the newest.
        if recordCount > 0, records[(first + recordCount - 1) & mask].offset == offset {
            low = recordCount - 1
        } else {
            while low < high {
                let middle = (low + high) / 2
                if records[(first + middle) & mask].offset < offset { low = middle + 1 } else { high = middle }
            }
        }
        let place = (first + low) & mask
        invariant(low < recordCount && records[place].offset == offset, "a vote names a batch that is held")
        invariant(
            records[place].instance == ArenaRecord.unknown || records[place].instance == instance,
            "a batch is voted for at one instance")
        records[place].instance = instance
    }

    mutating func dropOldest() {
        invariant(recordCount > 0, "a batch that is dropped is there")
        first = (first + 1) & mask
        recordCount -= 1
        dropped += 1
    }

    /// Bytes from the oldest live batch on.
    /// - Parameter isLive: once false for a batch, it is so for ever: it is not asked again.
    mutating func liveSpan(where isLive: (ArenaRecord) -> Bool) -> UInt64 {
        passed = max(passed, dropped)
        while passed < dropped + UInt64(recordCount) {
            let record = records[(first + Int(passed - dropped)) & mask]
            if isLive(record) { return tail - record.offset }
            passed += 1
        }
        return 0
    }

    /// At recovery: batches come in rising order of their offsets.
    mutating func restore(_ record: ArenaRecord) {
        invariant(recordCount <= mask, "the ring of arena records has room for each batch")
        records[(first + recordCount) & mask] = record
        recordCount += 1
    }

    mutating func restore(tail: UInt64) {
        invariant(tail % UInt64(AcceptorGeometry.line) == 0, "batches end on a line")
        self.tail = tail
    }
}
