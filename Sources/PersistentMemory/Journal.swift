import CSupport
import Glibc

/// The redo journal: commits appended one after the other, from the start again after each checkpoint.
///
/// A record is [head: 64 bytes][line numbers, padded to 64][lines]. The head's checksum covers all of it and the format's
/// salt. Commit numbers rise by one; `firstCommit` in the heap's header is the number that the record at the start must
/// have. Recovery replays from there until a record does not fit: it was never fenced, or it is an older one. A record
/// is overwritten only after `firstCommit` has passed it, which is after its lines are durable at home.
@usableFromInline
struct Journal {
    struct Head: BitwiseCopyable {
        var commit: UInt64
        var lines: UInt64
        var checksum: UInt64
        var unused: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
    }

    /// Bytes of records after which a checkpoint is made though there is room: bounds what an open has to replay.
    private static let longestReplay = 8 << 20

    private let pool: Pool
    private let start: UnsafeMutableRawPointer
    private let firstCommit: UnsafeMutableRawPointer
    @usableFromInline let size: Int
    private let salt: UInt64
    private var tail = 0
    /// The number that the next commit gets.
    private(set) var next: UInt64

    static func recordSize(lines: Int) -> Int { 64 + ((lines * 8 + 63) & ~63) + lines * 64 }

    /// The most lines that a record in a journal of `size` bytes can have.
    static func capacity(size: Int) -> Int {
        var lines = max(0, (size - 128) / 72)
        while recordSize(lines: lines + 1) <= size { lines += 1 }
        return lines
    }

    init(pool: Pool, header: UnsafeMutableRawPointer, layout: HeapLayout) {
        precondition(layout.journalSize % 64 == 0, "a journal is whole lines")
        self.pool = pool
        start = header + layout.journalOffset
        firstCommit = header + HeapLayout.firstCommitOffset
        size = Int(layout.journalSize)
        salt = layout.salt
        next = firstCommit.load(as: UInt64.self)
        precondition(next > 0, "commits are numbered from 1")
    }

    /// Replays what is valid over the data area, makes that durable and empties the journal.
    ///
    /// Safe to be cut short anywhere and begun again: replaying is idempotent, and `firstCommit` moves last.
    /// - Returns: how many commits were replayed.
    mutating func recover(into data: UnsafeMutableRawPointer, dataLines: Int) -> Int {
        var replayed = 0
        while let lines = validRecord(at: tail, dataLines: dataLines) {
            let numbers = start + tail + 64
            let contents = numbers + ((lines * 8 + 63) & ~63)
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
        let contents = numbers + ((lines * 8 + 63) & ~63)
        var checksum = seed(commit: head.commit, lines: lines)
        checksum = csupport_crc32c(checksum, numbers, lines * 8)
        checksum = csupport_crc32c(checksum, contents, lines * 64)
        guard head.checksum == UInt64(checksum) else { return nil }
        for index in 0..<lines {
            guard numbers.load(fromByteOffset: index * 8, as: UInt64.self) < UInt64(dataLines) else { return nil }
        }
        return lines
    }

    private func seed(commit: UInt64, lines: Int) -> UInt32 {
        var words = (salt, commit, UInt64(lines))
        return withUnsafeBytes(of: &words) { csupport_crc32c(0, $0.baseAddress, $0.count) }
    }

    /// Makes the lines' new content durable as one commit; then copies it home.
    mutating func commit(_ dirty: DirtyLines, from view: UnsafeMutableRawPointer, to home: UnsafeMutableRawPointer) {
        let lines = dirty.count
        let needed = Journal.recordSize(lines: lines)
        precondition(lines > 0, "an empty commit")
        precondition(needed <= size, "a commit larger than the journal: the command should have been rolled back")
        if needed > size - tail || tail >= Journal.longestReplay { checkpoint() }

        let record = start + tail
        var checksum = seed(commit: next, lines: lines)
        checksum = csupport_crc32c(checksum, dirty.list, lines * 8)
        pool.stream(to: record + 64, from: dirty.list, count: lines * 8)
        var target = record + 64 + ((lines * 8 + 63) & ~63)
        Journal.forEachRun(of: dirty) { line, count in
            checksum = csupport_crc32c(checksum, view + line * 64, count * 64)
            pool.stream(to: target, from: view + line * 64, count: count * 64)
            target += count * 64
        }
        var head = Head(commit: next, lines: UInt64(lines), checksum: UInt64(checksum))
        withUnsafeBytes(of: &head) { pool.stream(to: record, from: $0.baseAddress!, count: 64) }
        // The commit point; and what the commit before copied home is durable from here on, too.
        pool.fence()
        tail += needed
        next += 1

        Journal.forEachRun(of: dirty) { line, count in
            pool.streamLater(to: home + line * 64, from: view + line * 64, count: count * 64)
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
