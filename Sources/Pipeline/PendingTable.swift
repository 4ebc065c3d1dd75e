import MPaxosInvariants
import MPaxosMetrics

/// The requests that a gateway admitted and has not answered: for each, where the answer must go and what it must echo.
///
/// A request is known by its *tag*, which travels through the log with the command, so that this replica's executor can
/// find the client that waits. A tag names the slot, the slot's generation and the epoch of this process, so that
/// neither a slot used again nor a command from before a restart finds the wrong client.
///
/// Fixed memory, one thread.
struct PendingTable: ~Copyable {
    struct Entry: BitwiseCopyable {
        var generation: UInt32 = 0
        var isUsed = false
        var command: UInt8 = 0
        var flags: UInt8 = 0
        /// A repetition of it would be recognised.
        var isWatched = false
        var session: UInt64 = 0
        var sequence: UInt64 = 0
        /// Microseconds: when the client is told NO_LEADER.
        var deadline: UInt64 = 0
        /// The era (`Progress.era`) in which the request was admitted, and when that was.
        var era: UInt64 = 0
        var admittedAt: UInt64 = 0
        /// Neighbours in order of admission, which is the order of deadlines; `next` also links the free list.
        var previous: Int32 = -1
        var next: Int32 = -1
        var envelopeCount: Int32 = 0
        var bodyCount: UInt32 = 0
        var body = KeptBodies.Place.none
    }

    private static let indexBits: UInt64 = 20
    private static let generationBits: UInt64 = 20
    private static let indexMask: UInt64 = (1 << indexBits) - 1
    private static let generationMask: UInt64 = (1 << generationBits) - 1

    let capacity: Int
    private(set) var count = 0
    /// The bytes of the bodies of all requests that wait.
    private(set) var bodyBytes = 0
    private let epoch: UInt64
    private let entries: UnsafeMutablePointer<Entry>
    private let envelopes: UnsafeMutableRawPointer
    private var free: Int32
    /// Requests that wait for so long that their clients may repeat them, by session.
    private var watched: [UInt64: Int32] = [:]
    /// The first in the list that is not watched; -1: all are.
    private var firstUnwatched: Int32 = -1
    private var oldest: Int32 = -1
    private var newest: Int32 = -1

    /// - Parameter epoch: differs from one process of this replica to the next; the low 24 bits count.
    init(capacity: Int, epoch: UInt64) {
        invariant(capacity > 0 && capacity <= 1 << Self.indexBits, "max_outstanding is 1 to 1048576")
        self.capacity = capacity
        self.epoch = epoch & 0xff_ffff
        entries = .allocate(capacity: capacity)
        for i in 0..<capacity {
            entries.advanced(by: i).initialize(to: Entry(next: i + 1 < capacity ? Int32(i + 1) : -1))
        }
        // Untouched until used: the free list hands out the slot freed last, so few of these pages become resident.
        envelopes = .allocate(byteCount: capacity * Envelope.maximumSize, alignment: 64)
        free = 0
    }

    /// Whether a tag was made by a table of this epoch.
    static func isTag(_ tag: UInt64, of epoch: UInt64) -> Bool {
        tag >> (indexBits + generationBits) == epoch & 0xff_ffff
    }

    deinit {
        entries.deallocate()
        envelopes.deallocate()
    }

    var isFull: Bool { free < 0 }

    subscript(index: Int) -> Entry {
        invariant(index >= 0 && index < capacity && entries[index].isUsed, "a request is pending until it is answered")
        return entries[index]
    }

    func envelope(_ index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: envelopes + index * Envelope.maximumSize, count: Int(entries[index].envelopeCount))
    }

    /// Takes the request in and returns its tag. The table must not be full.
    mutating func admit(
        command: UInt8, flags: UInt8, session: UInt64, sequence: UInt64, deadline: UInt64, era: UInt64, now: UInt64,
        bodyCount: Int, body: KeptBodies.Place = .none, envelope: borrowing Envelope
    ) -> UInt64 {
        invariant(free >= 0, "a request is admitted while the table has room")
        let index = Int(free)
        invariant(!entries[index].isUsed, "no pending request is on the free list")
        free = entries[index].next
        entries[index].isUsed = true
        entries[index].command = command
        entries[index].flags = flags
        entries[index].session = session
        entries[index].sequence = sequence
        entries[index].deadline = deadline
        entries[index].era = era
        entries[index].admittedAt = now
        entries[index].isWatched = false
        entries[index].bodyCount = UInt32(bodyCount)
        entries[index].body = body
        bodyBytes += bodyCount
        append(index)
        keep(envelope, at: index)
        count += 1
        return tag(of: index)
    }

    /// The tag, by which the answer to a waiting request is known.
    func tag(of index: Int) -> UInt64 {
        epoch << (Self.indexBits + Self.generationBits) | UInt64(entries[index].generation) << Self.indexBits
            | UInt64(index)
    }

    // MARK: Ordered again

    /// What became of a request that may be lost.
    enum Reordering {
        /// The request was ordered again, and belongs to the new era.
        case ordered
        case leftToWait
        /// Neither it nor those after it were looked at.
        case stop
    }

    /// Calls with each request that waits and was ordered in another era than this one, from the oldest on.
    mutating func reorder(in era: UInt64, _ order: (Int) -> Reordering) {
        var place = oldest
        while place >= 0 {
            let index = Int(place)
            place = entries[index].next
            guard entries[index].era != era else { continue }
            switch order(index) {
            case .ordered: entries[index].era = era
            case .leftToWait: break
            case .stop: return
            }
        }
    }

    private func keep(_ envelope: borrowing Envelope, at index: Int) {
        let packed = envelope.packed
        entries[index].envelopeCount = Int32(packed.count)
        (envelopes + index * Envelope.maximumSize).copyMemory(from: packed.baseAddress!, byteCount: packed.count)
    }

    // MARK: Repetitions

    /// Requests that wait for longer than `time` are recognised when they are repeated. Sooner a repetition is rare,
    /// and to recognise it costs more than to order it twice.
    mutating func watch(waitingFor time: UInt64, now: UInt64) {
        while firstUnwatched >= 0, entries[Int(firstUnwatched)].admittedAt + time <= now {
            let index = Int(firstUnwatched)
            firstUnwatched = entries[index].next
            guard !entries[index].isWatched, entries[index].session != 0 else { continue }
            entries[index].isWatched = true
            watched[entries[index].session] = Int32(index)
        }
    }

    /// The command of a session with this sequence that waits already, in this era and since `oldest` or later.
    func recognise(command: UInt8, session: UInt64, sequence: UInt64, era: UInt64, oldest: UInt64) -> Int? {
        guard !watched.isEmpty, let place = watched[session] else { return nil }
        let index = Int(place)
        guard entries[index].command == command, entries[index].sequence == sequence, entries[index].era == era,
            entries[index].admittedAt >= oldest
        else { return nil }
        return index
    }

    /// Its answer goes to `envelope`, from where it was asked for last, with the flags that came from there.
    mutating func turn(_ index: Int, to envelope: borrowing Envelope, flags: UInt8) {
        invariant(entries[index].isUsed, "what is repeated is pending")
        entries[index].flags = flags
        keep(envelope, at: index)
    }

    /// The slot of the request with this tag; nil when it was answered already or belongs to an earlier process.
    func find(_ tag: UInt64) -> Int? {
        guard Self.isTag(tag, of: epoch) else { return nil }
        let index = Int(tag & Self.indexMask)
        guard index < capacity, entries[index].isUsed,
            UInt64(entries[index].generation) == tag >> Self.indexBits & Self.generationMask
        else { return nil }
        return index
    }

    /// The request that waits longest, if its time is over.
    func expired(at now: UInt64) -> Int? {
        guard oldest >= 0, entries[Int(oldest)].deadline <= now else { return nil }
        return Int(oldest)
    }

    var nextDeadline: UInt64 { oldest < 0 ? .max : entries[Int(oldest)].deadline }

    /// Lets a request wait longer. Not less long than any other: the order of the deadlines is that of the list.
    mutating func postpone(_ index: Int, to deadline: UInt64) {
        invariant(entries[index].isUsed, "what is postponed is pending")
        unlink(index)
        entries[index].deadline = deadline
        append(index)
    }

    @inline(__always) private mutating func append(_ index: Int) {
        entries[index].previous = newest
        entries[index].next = -1
        if newest >= 0 { entries[Int(newest)].next = Int32(index) } else { oldest = Int32(index) }
        newest = Int32(index)
        if firstUnwatched < 0 { firstUnwatched = Int32(index) }
    }

    @inline(__always) private mutating func unlink(_ index: Int) {
        let (previous, next) = (entries[index].previous, entries[index].next)
        if firstUnwatched == Int32(index) { firstUnwatched = next }
        if previous >= 0 { entries[Int(previous)].next = next } else { oldest = next }
        if next >= 0 { entries[Int(next)].previous = previous } else { newest = previous }
    }

    mutating func remove(_ index: Int) {
        invariant(entries[index].isUsed, "a request is answered once")
        invariant(count > 0, "there are no more answers than requests")
        unlink(index)
        if entries[index].isWatched, watched[entries[index].session] == Int32(index) {
            watched[entries[index].session] = nil
        }
        bodyBytes -= Int(entries[index].bodyCount)
        entries[index].isUsed = false
        entries[index].generation = (entries[index].generation + 1) & UInt32(Self.generationMask)
        entries[index].next = free
        free = Int32(index)
        count -= 1
    }
}
