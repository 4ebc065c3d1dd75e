import CSupport
import Glibc
import Invariants

/// The redo journal: commits appended one after the other, from the start again after each checkpoint.
///
/// A record is [head: 64 bytes][line numbers, padded with zeros to 64][lines]. The head's sums cover all of it and the
/// format's salt. Commit numbers rise by one; `firstCommit` in the heap's header is the number that the record at the start must
/// have. Recovery replays from there until a record does not fit: it was never fenced, or it is an older one. A record
/// is overwritten only after `firstCommit` has passed it, which is after its lines are durable at home.
@usableFromInline
struct Journal {
    struct Head: BitwiseCopyable {
        var commit: UInt64
        var lines: UInt64
        var sums: Sums
        var unused: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
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
    private let firstCommit: UnsafeMutableRawPointer
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

    init(pool: Pool, header: UnsafeMutableRawPointer, layout: HeapLayout) {
        invariant(layout.journalSize % 64 == 0, "a journal is whole lines")
        self.pool = pool
        start = header + layout.journalOffset
        firstCommit = header + HeapLayout.firstCommitOffset
        size = Int(layout.journalSize)
        salt = layout.salt
        streams = pool.flusher.pointee.plain && csupport_streams() != 0
        next = firstCommit.load(as: UInt64.self)
        invariant(next > 0, "commits are numbered from 1")
    }

    /// Replays what is valid over the data area, makes that durable and empties the journal.
    ///
    /// Safe to be cut short anywhere and begun again: replaying is idempotent, and `firstCommit` moves last.
    /// - Returns: how many commits were replayed.
    mutating func recover(into data: UnsafeMutableRawPointer, dataLines: Int) -> Int {
        var replayed = 0
        while let lines = validRecord(at: tail, dataLines: dataLines) {
            let numbers = start + tail + 64
            let contents = numbers + 64 * Journal.numberLines(lines)
            for index in 0..<lines {
                let line = Int(numbers.load(fromByteOffset: index * 8, as: UInt64.self))
                pool.streamLater(to: data + line * 64, from: contents + index * 64, count: 64)
            }
            tail += Journal.recordSize(lines: lines)
            next += 1
            replayed += 1
        }
        if replayed > 0 { checkpoint() }
        return replayed
    }

    private func validRecord(at offset: Int, dataLines: Int) -> Int? {
        guard size - offset >= 64 else { return nil }
        let head = (start + offset).load(as: Head.self)
        guard head.commit == next, head.lines <= UInt64(Journal.capacity(size: size)) else { return nil }
        let lines = Int(head.lines)
        guard Journal.recordSize(lines: lines) <= size - offset else { return nil }
        let numbers = start + offset + 64
        var sums = seeds(commit: head.commit, lines: lines)
        sums.withWords { csupport_sum_lines(numbers, Journal.numberLines(lines) + lines, $0) }
        guard head.sums == sums else { return nil }
        for index in 0..<lines {
            guard numbers.load(fromByteOffset: index * 8, as: UInt64.self) < UInt64(dataLines) else { return nil }
        }
        return lines
    }

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
        var head = Head(commit: next, lines: UInt64(lines), sums: seeds(commit: next, lines: lines))
        head.sums.withWords { write(dirty, from: view, to: record + 64, sums: $0) }
        withUnsafeBytes(of: &head) { pool.stream(to: record, from: $0.baseAddress!, count: 64) }
        // The commit point; and what the commit before copied home is durable from here on, too.
        pool.fence()
        tail += needed
        next += 1
        copyHome(dirty, from: view, to: home)
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
        firstCommit.storeBytes(of: next, as: UInt64.self)
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
