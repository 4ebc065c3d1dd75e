import Glibc
import MPaxosCSupport
import MPaxosInvariants

/// The redo journal: commits appended one after the other, from the start again after each checkpoint.
///
/// A record is [head: 64 bytes][line numbers, padded with zeros to 64][lines]. The head's sums cover all of it and the
/// format's salt. Commit numbers rise by one; `firstCommit` in the heap's header is the number that the record at the
/// start must have. Recovery replays from there until a record does not fit: it was never fenced, or it is an older
/// one. A record is overwritten only after `firstCommit` has passed it, which is after its lines are durable at home.
///
/// A crash tears at most the record that was being written. So what does not fit is damage when it is known to have
/// been fenced: by `newestCommit`, which is stored behind each commit's fence and before its lines go home, so that no
/// line at home is newer than it says; or by a good record of a later commit behind it, since that was begun after the
/// fence.
@usableFromInline
struct Journal {
    struct Head: BitwiseCopyable {
        var commit: UInt64
        var lines: UInt64
        var sums: Sums
        /// That of the format: tells a head from lines that look like one, without a look at all of its record.
        var salt: UInt64
        var unused: (UInt64, UInt64, UInt64) = (0, 0, 0)
    }

    /// See `csupport_sum_lines`.
    struct Sums: BitwiseCopyable, Equatable {
        var words: SIMD4<UInt32>

        mutating func withWords(_ body: (UnsafeMutablePointer<UInt32>) -> Void) {
            withUnsafeMutableBytes(of: &words) { body($0.assumingMemoryBound(to: UInt32.self).baseAddress!) }
        }
    }

    /// Bytes of records after which a checkpoint is made though there is room: bounds what an open has to replay.
    private static let longestReplay = 8 << 20

    private let pool: Pool
    private let start: UnsafeMutableRawPointer
    /// The first byte of the journal, counted from the region's.
    private let place: Int
    private let firstCommit: UnsafeMutableRawPointer
    private let newestCommit: UnsafeMutableRawPointer
    @usableFromInline let size: Int
    private let salt: UInt64
    /// Lines go around the caches by instructions of our own, which a pool that is not flushed by line must not do.
    private let streams: Bool
    private var tail = 0
    /// The number that the next commit gets.
    private(set) var next: UInt64

    static func recordSize(lines: Int) -> Int { 64 * (1 + numberLines(lines) + lines) }

    /// Lines that the numbers of `lines` lines take.
    private static func numberLines(_ lines: Int) -> Int { (lines + 7) / 8 }

    /// The most lines that a record in a journal of `size` bytes can have.
    static func capacity(size: Int) -> Int {
        var lines = max(0, (size - 128) / 72)
        while recordSize(lines: lines + 1) <= size { lines += 1 }
        return lines
    }

    /// - Throws: `.damaged` when the number of its first commit is.
    init(pool: Pool, header: UnsafeMutableRawPointer, layout: HeapLayout) throws(PoolError) {
        invariant(layout.journalSize % 64 == 0, "a journal is whole lines")
        self.pool = pool
        start = header + layout.journalOffset
        place = start - pool.region.baseAddress!
        firstCommit = header + HeapLayout.firstCommitOffset
        newestCommit = header + HeapLayout.newestCommitOffset
        size = Int(layout.journalSize)
        salt = layout.salt
        streams = pool.flusher.pointee.plain && csupport_streams() != 0
        guard let first = firstCommit.load(as: CheckedNumber.self).number, first > 0 else {
            throw Journal.damage(
                pool,
                "the number of its first commit, at offset \(place - Int(layout.journalOffset) + HeapLayout.firstCommitOffset) of the region, is no number"
            )
        }
        next = first
    }

    /// What the header of a heap without commits holds.
    static func format(header: UnsafeMutableRawPointer) {
        header.storeBytes(of: CheckedNumber(1), toByteOffset: HeapLayout.firstCommitOffset, as: CheckedNumber.self)
        header.storeBytes(of: CheckedNumber(0), toByteOffset: HeapLayout.newestCommitOffset, as: CheckedNumber.self)
    }

    // MARK: Recovery

    /// Replays what is valid over the data area, makes that durable and empties the journal. Looks at all of it before
    /// it changes anything.
    ///
    /// Safe to be cut short anywhere and begun again: replaying is idempotent, and `firstCommit` moves last.
    /// - Parameter isMoving: the region is a copy that was made while commits went on, so that nothing tells damage.
    /// - Returns: how many commits were replayed.
    mutating func recover(
        into areas: [UnsafeMutableRawPointer], dataLines: Int, isMoving: Bool
    ) throws(PoolError) -> Int {
        let count = try validRecords(dataLines: dataLines, isMoving: isMoving)
        if count > 0 {
            // A process may have been killed between the stores of the newest record and their fence: what is said to
            // have been made from here on, and goes home, must not be lost with the power.
            var end = 0
            for _ in 0..<count { end += Journal.recordSize(lines: Int((start + end).load(as: Head.self).lines)) }
            pool.flush(start, end)
            pool.fence()
        }
        for _ in 0..<count {
            let lines = Int((start + tail).load(as: Head.self).lines)
            let numbers = start + tail + 64
            let contents = numbers + 64 * Journal.numberLines(lines)
            for index in 0..<lines {
                let line = Int(numbers.load(fromByteOffset: index * 8, as: UInt64.self))
                for data in areas {
                    pool.streamLater(to: data + line * 64, from: contents + index * 64, count: 64)
                }
            }
            tail += Journal.recordSize(lines: lines)
        }
        next += UInt64(count)
        if count > 0 {
            noteNewest(next - 1)
            checkpoint()
        }
        return count
    }

    /// - Returns: how many records are to be replayed.
    private func validRecords(dataLines: Int, isMoving: Bool) throws(PoolError) -> Int {
        var (offset, count) = (0, 0)
        while let lines = record(at: offset, of: next + UInt64(count)) {
            guard numbersAreInside(dataLines, at: offset, lines: lines) else {
                if isMoving { break }
                throw damage(at: offset, of: next + UInt64(count), "names lines that the heap does not have")
            }
            offset += Journal.recordSize(lines: lines)
            count += 1
        }
        if isMoving { return count }
        let missing = next + UInt64(count)
        guard let newest = newestCommit.load(as: CheckedNumber.self).number, newest + 1 >= next else {
            throw Journal.damage(
                pool,
                "the number of its newest commit, at offset \(newestCommit - pool.region.baseAddress!) of the region, is not one that can be"
            )
        }
        if newest >= missing {
            throw damage(at: offset, of: missing, "is not as it was written, though commit \(newest) was made")
        }
        if let later = laterRecord(behind: offset, than: missing) {
            throw damage(
                at: offset, of: missing,
                "is not as it was written, though that of commit \(later.commit) follows at offset \(place + later.offset)"
            )
        }
        return count
    }

    /// Lines of the record of a commit, if it is there and whole.
    private func record(at offset: Int, of commit: UInt64) -> Int? {
        guard size - offset >= 64 else { return nil }
        let head = (start + offset).load(as: Head.self)
        guard head.commit == commit, head.salt == salt, head.lines <= UInt64(Journal.capacity(size: size)) else {
            return nil
        }
        let lines = Int(head.lines)
        guard Journal.recordSize(lines: lines) <= size - offset else { return nil }
        var sums = seeds(commit: head.commit, lines: lines)
        sums.withWords { csupport_sum_lines(start + offset + 64, Journal.numberLines(lines) + lines, $0) }
        return head.sums == sums ? lines : nil
    }

    private func numbersAreInside(_ dataLines: Int, at offset: Int, lines: Int) -> Bool {
        let numbers = start + offset + 64
        return (0..<lines).allSatisfy { numbers.load(fromByteOffset: $0 * 8, as: UInt64.self) < UInt64(dataLines) }
    }

    /// A whole record of a later commit than the one that is missing at `offset`. That one does not tell its length any
    /// more, so every line may be a head; no record begins beyond the longest replay.
    private func laterRecord(behind offset: Int, than missing: UInt64) -> (commit: UInt64, offset: Int)? {
        let end = min(size - 64, Journal.longestReplay)
        guard offset < end else { return nil }
        // As many as there is room for.
        let last = missing + UInt64(size / 64)
        for place in stride(from: offset + 64, through: end, by: 64) {
            let head = (start + place).load(as: Head.self)
            guard head.salt == salt, head.commit > missing, head.commit <= last else { continue }
            if record(at: place, of: head.commit) != nil { return (head.commit, place) }
        }
        return nil
    }

    private func damage(at offset: Int, of commit: UInt64, _ what: String) -> PoolError {
        Journal.damage(pool, "the record of commit \(commit) at offset \(place + offset) of the region \(what)")
    }

    private static func damage(_ pool: Pool, _ what: String) -> PoolError {
        PoolError(.damaged, "\(pool.path): the journal is damaged: \(what); \(PoolError.restoreAdvice)")
    }

    // MARK: Commits

    private func seeds(commit: UInt64, lines: Int) -> Sums {
        var words = (salt, commit, UInt64(lines))
        let seed = withUnsafeBytes(of: &words) { csupport_crc32c(0, $0.baseAddress, $0.count) }
        return Sums(words: SIMD4(repeating: seed) &+ SIMD4(0, 1, 2, 3))
    }

    /// Makes the lines' new content durable as one commit; then copies it home.
    mutating func commit(_ dirty: DirtyLines, from view: UnsafeMutableRawPointer, to home: UnsafeMutableRawPointer) {
        let lines = dirty.count
        let needed = Journal.recordSize(lines: lines)
        invariant(lines > 0, "a commit has lines")
        invariant(needed <= size, "a commit fits the journal, since a command that does not fit is rolled back")
        if needed > size - tail || tail >= Journal.longestReplay { checkpoint() }

        dirty.padList()
        let record = start + tail
        var head = Head(commit: next, lines: UInt64(lines), sums: seeds(commit: next, lines: lines), salt: salt)
        head.sums.withWords { write(dirty, from: view, to: record + 64, sums: $0) }
        withUnsafeBytes(of: &head) { pool.stream(to: record, from: $0.baseAddress!, count: 64) }
        // The commit point; and what the commit before copied home is durable from here on, too.
        pool.fence()
        noteNewest(next)
        tail += needed
        next += 1
        copyHome(dirty, from: view, to: home)
    }

    /// Behind the fence of a commit, and before its lines go home. It is seen at once by who opens the pool after this
    /// process, and durable with the next fence.
    private func noteNewest(_ commit: UInt64) {
        newestCommit.storeBytes(of: CheckedNumber(commit), as: CheckedNumber.self)
        pool.flushLater(newestCommit, 8)
    }

    /// Numbers and lines of a record.
    private func write(
        _ dirty: DirtyLines, from view: UnsafeRawPointer, to target: UnsafeMutableRawPointer,
        sums: UnsafeMutablePointer<UInt32>
    ) {
        let numberLines = Journal.numberLines(dirty.count)
        var lines = target + 64 * numberLines
        if streams {
            csupport_copy_lines(target, dirty.list, numberLines, sums)
            csupport_gather_lines(lines, view, dirty.list, dirty.count, sums)
            if pool.flusher.pointee.listened {
                pool.flusher.pointee.note(target, 64 * (numberLines + dirty.count), needed: true)
            }
            return
        }
        csupport_sum_lines(dirty.list, numberLines, sums)
        pool.stream(to: target, from: dirty.list, count: 64 * numberLines)
        Journal.forEachRun(of: dirty) { line, count in
            csupport_sum_lines(view + line * 64, count, sums)
            pool.stream(to: lines, from: view + line * 64, count: count * 64)
            lines += count * 64
        }
    }

    private func copyHome(_ dirty: DirtyLines, from view: UnsafeRawPointer, to home: UnsafeMutableRawPointer) {
        if streams { csupport_scatter_lines(home, view, dirty.list, dirty.count) }
        if streams && !pool.flusher.pointee.listened { return }
        Journal.forEachRun(of: dirty) { line, count in
            if streams {
                pool.flusher.pointee.note(home + line * 64, count * 64, needed: false)
            } else {
                pool.streamLater(to: home + line * 64, from: view + line * 64, count: count * 64)
            }
        }
    }

    /// Makes all homes durable, then says so; the journal is empty after it.
    mutating func checkpoint() {
        pool.fenceAll()
        // One aligned store of 8 bytes: it reaches memory whole or not at all.
        firstCommit.storeBytes(of: CheckedNumber(next), as: CheckedNumber.self)
        pool.flush(firstCommit, 8)
        pool.fence()
        tail = 0
    }

    /// Calls with each maximal run of lines that follow each other both in the list and in memory.
    @inline(__always)
    private static func forEachRun(of dirty: DirtyLines, _ body: (_ line: Int, _ count: Int) -> Void) {
        var index = 0
        while index < dirty.count {
            let line = dirty.list[index]
            var end = index + 1
            while end < dirty.count, dirty.list[end] == line + UInt64(end - index) { end += 1 }
            body(Int(line), end - index)
            index = end
        }
    }
}
