import Glibc
import MPaxosInvariants

/// A mode for tests of whole replicas (`MPAXOS_CHECK_FLUSHES=1`): keeps a shadow of what has reached memory of a pool,
/// and stops the process when a message is about to leave that rests on bytes which have not. It finds a forgotten
/// fence and a forgotten flush, also of a store that nobody noted.
///
/// Costs twice the pool in memory, and a comparison of what messages rest on each time.
final class FlushCheck: CrashRecorder {
    static let isWanted = getenv("MPAXOS_CHECK_FLUSHES").map { String(cString: $0) == "1" } ?? false

    private let path: String
    private let shadow: ShadowMemory
    private var plant: FlushPlant?
    /// Lines made durable since they were asked for last.
    private var durable: [Int] = []
    /// What the heap's header said at the last look at the whole heap.
    var firstCommit: UInt64 = 0

    init(path: String, region: UnsafeMutableRawBufferPointer, plant: FlushPlant?) {
        self.path = path
        self.plant = plant
        shadow = ShadowMemory(of: region)
    }

    func flushed(_ start: UnsafeRawPointer, _ count: Int) {
        let offset = shadow.offset(of: start, count)
        if plant?.forgetsFlush() == true { return }
        shadow.flush(offset..<offset + count)
    }

    func fenced() {
        invariant(plant?.breaksInvariant() != true, "no invariant is broken on purpose")
        if plant?.forgetsFence() == true { return }
        durable += shadow.flushedLines
        shadow.fence()
    }

    func written(_ start: UnsafeRawPointer, _ count: Int) {
        invariant(plant?.breaksInvariant() != true, "no invariant is broken on purpose")
        if plant?.forgetsFence() == true { return }
        let offset = shadow.offset(of: start, count)
        durable += shadow.flushedLines.filter { (offset..<offset + count).contains($0 * ShadowMemory.line) }
        shadow.write(offset..<offset + count)
    }

    /// Offsets of the lines that became durable since the last call.
    func takeFenced() -> [Int] {
        defer { durable.removeAll(keepingCapacity: true) }
        return durable.map { $0 * ShadowMemory.line }
    }

    /// - Parameter pending: whether what was flushed and waits for a fence counts as missing.
    /// - Returns: what is wrong, if something is.
    func problem(_ bytes: Range<Int>, _ what: String, pending: Bool) -> String? {
        guard let open = shadow.firstOpen(in: bytes, pending: pending) else { return nil }
        let state = shadow.isWaiting(open, ShadowMemory.line) ? "flushed and not fenced" : "stored and not flushed"
        return
            "\(path): a message that rests on \(what) is about to leave, but at offset \(open) of the region it is \(state)"
    }
}

/// A mistake on purpose: flushes, or fences, that the check takes as forgotten, from a certain one on, or a fence at
/// which an invariant is broken.
package struct FlushPlant {
    var flush: Int?
    var fence: Int?
    var breach: Int?

    /// - Parameter text: as in `MPAXOS_PLANT_FLUSH_BUG`: `acceptor-flush:500` are those from the 500th flush on of the
    ///   pool whose layout is named so.
    package init?(_ text: String, layout: String) {
        let words = text.split(separator: ":")
        guard words.count == 2, let number = Int(words[1]) else { return nil }
        let names = words[0].split(separator: "-")
        guard names.count == 2, layout.hasPrefix("mpaxos-\(names[0])-") else { return nil }
        switch names[1] {
        case "flush": flush = number
        case "fence": fence = number
        case "invariant": breach = number
        default: return nil
        }
    }

    static func ofEnvironment(layout: String) -> FlushPlant? {
        getenv("MPAXOS_PLANT_FLUSH_BUG").flatMap { FlushPlant(String(cString: $0), layout: layout) }
    }

    mutating func forgetsFlush() -> Bool { Self.countDown(&flush) }
    mutating func forgetsFence() -> Bool { Self.countDown(&fence) }
    mutating func breaksInvariant() -> Bool { Self.countDown(&breach) }

    /// True from the one that was named on.
    private static func countDown(_ count: inout Int?) -> Bool {
        guard let left = count else { return false }
        count = max(1, left - 1)
        return left == 1
    }
}

extension Pool {
    /// Whether what messages rest on is to be checked before they leave.
    @inlinable package var checksFlushes: Bool { flusher.pointee.checks }

    /// Begins to keep a shadow, with what the region holds now taken as durable. Only between operations.
    package func checkFlushes(planting plant: FlushPlant? = nil) {
        let check = FlushCheck(path: path, region: region, plant: plant)
        flusher.pointee.check = check
        flusher.pointee.checks = true
        crashRecorder = check
    }

    /// What of the bytes has not reached memory though a message rests on them, in a sentence. Only when flushes are
    /// checked.
    /// - Parameter pending: whether what was flushed and waits for a fence counts.
    package func unflushed(_ bytes: Range<Int>, _ what: String, pending: Bool = true) -> String? {
        flusher.pointee.check.flatMap { $0.problem(bytes, what, pending: pending) }
    }

    /// Offsets in the region of lines that became durable since the last call. Only when flushes are checked.
    package func takeFencedLines() -> [Int] { flusher.pointee.check?.takeFenced() ?? [] }
}

extension Heap {
    /// What the last commit wrote and has not reached memory, in a sentence; only when the pool's flushes are checked.
    ///
    /// The commit rests on the header and its record in the journal. What earlier commits copied home must be there
    /// once a checkpoint has emptied the journal; what waits for its fence is still in the journal.
    package var unflushed: String? {
        guard let check = pool.flusher.pointee.check else { return nil }
        // Whole ranges are looked at here, whatever was fenced: the list would grow for ever.
        _ = check.takeFenced()
        let layout = transaction.layout
        let data = transaction.committed.baseAddress! - UnsafeRawPointer(pool.region.baseAddress!)
        let start = data - layout.dataOffset
        // No commit rests on the number of the newest one, which is durable with the next, nor on the owner's line.
        let newest = start + HeapLayout.newestCommitOffset
        let rest = start + HeapLayout.ownerOffset + ShadowMemory.line
        for part in [start..<newest, rest..<data] {
            if let problem = check.problem(part, "a commit", pending: true) { return problem }
        }
        let firstCommit = pool.region.load(fromByteOffset: start + HeapLayout.firstCommitOffset, as: UInt64.self)
        guard firstCommit != check.firstCommit else { return nil }
        check.firstCommit = firstCommit
        return check.problem(data..<data + Int(layout.dataSize), "the homes of commits", pending: false)
    }
}
