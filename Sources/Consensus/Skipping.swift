/// Which commands a replica does not execute, since an operator has named their positions, and how far it is.
///
/// A command that one replica skips and another executes makes their states differ: two do not link while it is to be
/// feared.
package struct Skipping: Equatable, Sendable {
    /// Positions that an operator may name at once, and those that a replica can name in all: those that it has skipped
    /// before are among them.
    package static let mostAsked = 8
    package static let mostNamed = 12

    /// Commands executed.
    package var position: UInt64
    package var named: [UInt64]

    package init(position: UInt64, named: [UInt64]) {
        self.position = position
        self.named = named
    }

    /// What one of two would skip and the other execute.
    package struct Disagreement: Equatable, Sendable {
        package var position: UInt64
        /// Whether it is this replica that skips it.
        package var isOwn: Bool
    }

    /// The first command that one of the two skips, while the other does not, and has not passed it; nil when there is
    /// none. Who has passed it may have skipped it long ago.
    package func disagreement(with other: Skipping) -> Disagreement? {
        let (own, theirs) = (skips(beside: other), other.skips(beside: self))
        guard let position = [own, theirs].compactMap({ $0 }).min() else { return nil }
        return Disagreement(position: position, isOwn: position == own)
    }

    private func skips(beside other: Skipping) -> UInt64? {
        named.filter { $0 > other.position && !other.named.contains($0) }.min()
    }
}
