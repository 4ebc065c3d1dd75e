/// The digest of the data area but the progress pages, kept current within each commit: the sum of `LineHash` of all
/// its lines.
///
/// A line that is about to be written for the first time since the last commit leaves the sum with what it holds, and
/// comes back with what it holds at the commit: no line is read that is not touched anyway.
///
/// A pass reads all lines again while commits go on, and so finds what changed them otherwise. It keeps a sum of its
/// own, of the lines below its cursor, in which what commits change there takes part; at the end the two sums must be
/// equal.
@usableFromInline
struct Digest {
    /// Of the last commit.
    private(set) var committed: UInt64 = 0
    /// Of all lines that are not dirty.
    @usableFromInline var clean: UInt64 = 0
    /// Of those of them below the cursor.
    @usableFromInline var passed: UInt64 = 0
    /// Lines below it were read by the pass under way; 0: none is.
    private(set) var cursor: UInt64 = 0
    /// The first line that is digested, which counts as number 0.
    let first: UInt64
    /// `clean` and `passed` when the command began.
    @usableFromInline var cleanBefore: UInt64 = 0
    @usableFromInline var passedBefore: UInt64 = 0

    init(first: UInt64) { self.first = first }

    /// Takes up the digest of what is committed.
    mutating func trust(_ digest: UInt64) {
        (committed, clean, passed, cursor) = (digest, digest, 0, 0)
    }

    // MARK: Commands and commits

    @inlinable mutating func beginCommand() { (cleanBefore, passedBefore) = (clean, passed) }

    /// The lines that the command dirtied are clean again.
    mutating func rollback() { (clean, passed) = (cleanBefore, passedBefore) }

    /// Lines become dirty: they leave with what `view` holds, which is what was committed.
    @inline(__always)
    mutating func leave(_ lines: UnsafePointer<UInt64>, _ count: Int, view: UnsafeRawPointer) {
        var (all, below) = (0 as UInt64, 0 as UInt64)
        sum(lines, count, view, &all, &below)
        clean &-= all
        passed &-= below
    }

    /// The dirty lines are about to be committed as `view` holds them.
    mutating func settle(_ lines: UnsafePointer<UInt64>, _ count: Int, view: UnsafeRawPointer) {
        sum(lines, count, view, &clean, &passed)
        committed = clean
    }

    @inline(__always)
    private func sum(
        _ lines: UnsafePointer<UInt64>, _ count: Int, _ view: UnsafeRawPointer, _ all: inout UInt64,
        _ below: inout UInt64
    ) {
        for index in 0..<count {
            let line = lines[index]
            guard line >= first else { continue }
            let hash = LineHash.hash(view + Int(truncatingIfNeeded: line &<< 6), number: line &- first)
            all &+= hash
            if line < cursor { below &+= hash }
        }
    }

    // MARK: The pass

    /// Reads at most `lines` more lines of what is committed, up to `end`, above which all is zero. Between commits.
    /// - Returns: what all lines sum up to, when the pass is over; it must be `committed`.
    mutating func pass(over lines: UInt64, of home: UnsafeRawPointer, end: UInt64) -> UInt64? {
        let from = max(cursor, first)
        let to = min(from + lines, end)
        if from < to {
            passed &+= LineHash.sum(home + Int(from << 6), count: Int(to - from), first: from - first)
            cursor = to
        }
        guard to >= end else { return nil }
        defer { (passed, cursor) = (0, 0) }
        return passed
    }
}
