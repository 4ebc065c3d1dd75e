/// Which commands a replica does not execute, since an operator has named their positions, and how far it is.
///
/// A command that one replica skips and another executes makes their states differ: two do not link while it is to be
/// feared.
package struct Skipping: Equatable, Sendable {
    /// Positions that an operator may name at once, and those that a replica can name in all: those that it has skipped
    /// before are among them.
    package static let mostAsked = 8
    package static let mostNamed = 12
    /// How many of those that it skipped a replica keeps on record.
    package static let mostKept = 4

    /// How many commands the replica has executed.
    package var position: UInt64
    /// Those that the replica has skipped, as far as it has kept them, and those that it is to skip yet.
    package var named: [UInt64]

    package init(position: UInt64, named: [UInt64]) {
        self.position = position
        self.named = named
    }

    /// What one of two would skip and the other execute.
    package struct Disagreement: Equatable, Sendable {
        /// The positions, ascending.
        package var positions: [UInt64]
        /// Whether it is this replica that skips them.
        package var isOwn: Bool
        /// Whether the other has executed them already.
        package var isExecuted: Bool
        /// Whether the one that skips them may have skipped others that the other lacks, of which it keeps no record.
        package var isCutShort: Bool

        package init(positions: [UInt64], isOwn: Bool, isExecuted: Bool = false, isCutShort: Bool = false) {
            self.positions = positions
            self.isOwn = isOwn
            self.isExecuted = isExecuted
            self.isCutShort = isCutShort
        }
    }

    /// Commands that one of the two skips, and the other has executed, or is to execute; nil when there are none.
    package func disagreement(with other: Skipping) -> Disagreement? {
        for isExecuted in [true, false] {
            let own = skips(beside: other, isExecuted: isExecuted)
            let theirs = other.skips(beside: self, isExecuted: isExecuted)
            if own.isEmpty && theirs.isEmpty { continue }
            // The earliest first, so that both say the same of the two.
            let isOwn = (own.first ?? .max) < (theirs.first ?? .max)
            let (skipper, peer) = isOwn ? (self, other) : (other, self)
            return Disagreement(
                positions: isOwn ? own : theirs, isOwn: isOwn, isExecuted: isExecuted,
                isCutShort: !isExecuted && !skipper.remembersAll && peer.position < skipper.position)
        }
        return nil
    }

    private func skips(beside peer: Skipping, isExecuted: Bool) -> [UInt64] {
        named.filter { one in
            guard !peer.named.contains(one) else { return false }
            return isExecuted ? one <= peer.position && one > position && peer.remembersAll : one > peer.position
        }.sorted()
    }

    /// Whether all that it has skipped is on record still: what else it has passed it has executed.
    private var remembersAll: Bool { named.filter { $0 <= position }.count < Self.mostKept }
}
