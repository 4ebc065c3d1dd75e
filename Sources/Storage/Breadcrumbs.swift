import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory
import Synchronization

/// What a process leaves behind of what it executes, for the start after it: one line of the state pool's shared
/// mapping, beside all commits.
///
/// An overflow or a trap in a machine cannot be caught. So before each command its position is stored here, without a
/// flush: the page cache survives the process; a loss of power is not what this is for. Nothing rests on it but a line
/// in the log, so damage here is no reason to refuse a start; what would matter is a checked number.
///
/// | word | holds |
/// |---|---|
/// | 0 | position of the command that is executed, or that a query reads at, with `queryBit`; 0 for none |
/// | 1 | the instance that is executed |
/// | 2 | word 0 as the last start found it, a CheckedNumber; 0 for none |
/// | 3 | how many starts in a row found that, a CheckedNumber |
/// | 4 to 7 | the last positions that were skipped, the latest first, CheckedNumbers or 0 |
package struct Breadcrumbs: @unchecked Sendable {
    // Unchecked: words of a mapping that the pool's owner writes; the pool outlives this.

    /// What was executed when a process ended.
    package struct Crumb: Codable, Equatable, Sendable {
        package var position: UInt64
        package var instance: UInt64
        package var isQuery: Bool
    }

    /// A crumb, and how many starts in a row found it.
    package struct End: Equatable, Sendable {
        package var crumb: Crumb
        package var times: UInt64
    }

    /// Positions below it can be told, and skipped.
    package static let positionLimit: UInt64 = 1 << 47
    private static let queryBit = positionLimit
    /// Skipped positions that are kept.
    package static let mostKept = Skipping.mostKept
    private static let (lastEnd, times, firstSkip) = (2, 3, 4)

    private let command: UnsafeMutablePointer<Atomic<UInt64>>
    private let words: UnsafeMutablePointer<UInt64>

    init(at line: UnsafeMutableRawPointer) {
        // Atomic, so that the compiler keeps each store though nothing in this process reads it.
        command = line.assumingMemoryBound(to: Atomic<UInt64>.self)
        words = line.assumingMemoryBound(to: UInt64.self)
    }

    // MARK: While it runs

    /// The machine is about to run the command that gets this position.
    @inline(__always) func leave(position: UInt64) { command.pointee.store(position, ordering: .relaxed) }

    /// The machine is about to answer a query at this position.
    package func leave(queryAt position: UInt64) {
        command.pointee.store(position | Self.queryBit, ordering: .relaxed)
    }

    /// What was executed is committed, what was asked is answered.
    package func clear() { command.pointee.store(0, ordering: .relaxed) }

    @inline(__always) func enter(instance: UInt64) { words[1] = instance }

    // MARK: What is found

    /// What lies there now; nil when nothing does, no position that can be, or one that was executed to its end.
    /// - Parameter position: that of the state.
    package func crumb(at position: UInt64) -> Crumb? { crumb(command.pointee.load(ordering: .relaxed), at: position) }

    private func crumb(_ word: UInt64, at position: UInt64) -> Crumb? {
        guard word > 0, word < CheckedNumber.limit else { return nil }
        let crumb = Crumb(position: word & ~Self.queryBit, instance: words[1], isQuery: word & Self.queryBit != 0)
        return (crumb.isQuery ? crumb.position >= position : crumb.position > position) ? crumb : nil
    }

    /// How many starts in a row found what the last one found.
    package var lastEnd: (position: UInt64, isQuery: Bool, times: UInt64)? {
        guard let word = number(Self.lastEnd), word > 0, let times = number(Self.times) else { return nil }
        return (word & ~Self.queryBit, word & Self.queryBit != 0, times)
    }

    /// The last positions that were skipped, the latest first.
    package var skipped: [UInt64] {
        (0..<Self.mostKept).compactMap { number(Self.firstSkip + $0) }.filter { $0 > 0 && $0 < Self.positionLimit }
    }

    /// Takes note of what the process before left, and begins anew. To be flushed.
    /// - Parameter position: that of the state.
    func takeUp(at position: UInt64) -> End? {
        let word = command.pointee.load(ordering: .relaxed)
        clear()
        guard let crumb = crumb(word, at: position) else {
            forgetEnd()
            return nil
        }
        let before = number(Self.lastEnd) == word ? number(Self.times) ?? 0 : 0
        let times = min(before + 1, CheckedNumber.limit - 1)
        words[Self.lastEnd] = CheckedNumber(word).word
        words[Self.times] = CheckedNumber(times).word
        return End(crumb: crumb, times: times)
    }

    /// The caller flushes the line.
    func forgetEnd() {
        clear()
        words[Self.lastEnd] = 0
        words[Self.times] = 0
    }

    /// The caller flushes the line.
    func note(skipped position: UInt64) {
        invariant(position > 0 && position < Self.positionLimit, "what is skipped is a position that can be told")
        let kept = [position] + skipped.filter { $0 != position }
        for index in 0..<Self.mostKept {
            words[Self.firstSkip + index] = index < kept.count ? CheckedNumber(kept[index]).word : 0
        }
    }

    private func number(_ word: Int) -> UInt64? { CheckedNumber(word: words[word]).number }
}
