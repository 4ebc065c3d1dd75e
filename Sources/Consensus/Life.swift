/// One start of a replica, told from all others: from those before it by the count, from one on a copy of its pools by
/// the nonce.
///
/// A replica that runs from pools of an earlier time has forgotten votes that were counted, and two that run from
/// copies of one replica's pools would have two votes. Peers remember the last life that they met, and take up with no
/// other that does not come after it.
package struct Life: Hashable, Sendable, BitwiseCopyable {
    /// No start at all: a replica that was only formatted, or was never met.
    package static let none = Life(bootCount: 0, nonce: 0)

    /// How often the pools were started, this start included.
    package var bootCount: UInt64
    /// Drawn at random at the start; 0 where two lives of one count were met.
    package var nonce: UInt64

    package init(bootCount: UInt64, nonce: UInt64) {
        self.bootCount = bootCount
        self.nonce = nonce
    }

    /// Whether a process can have this life: both numbers are there.
    package var isSound: Bool { bootCount > 0 && nonce > 0 }

    /// How many lives before its own a replica can name.
    package static let mostAncestors = 31

    /// Whether who met this life may take up with another of the same replica: with the same one, or one that comes
    /// after it. A replica on old pools that is started again and again counts up as well, but this life is not among
    /// its ancestors.
    /// - Parameter ancestors: the nonces of the lives before the other one, the latest first, as far as they are known.
    ///   For lives before those the count alone decides.
    package func admits(_ other: Life, after ancestors: [UInt64]) -> Bool {
        if other == self || self == .none { return true }
        guard other.bootCount > bootCount else { return false }
        let distance = other.bootCount - bootCount
        return distance > UInt64(ancestors.count) || ancestors[Int(distance) - 1] == nonce
    }

    /// Whether a state that was started so often belongs to a log with this life as the last one on record. A start
    /// changes both in three steps: the log says which start begins, the state takes its count, the log takes the life.
    /// - Parameter begun: the count of the start that was begun last, by the log.
    package func belongs(toStateStarted count: UInt64, begun: UInt64) -> Bool {
        count == bootCount || count == bootCount + 1 && begun == count
    }

    /// Whether this life is the other one, or is known to come after it.
    /// - Parameter ancestors: as of `admits`, of this life.
    func isOrFollows(_ other: Life, ancestors: [UInt64]) -> Bool {
        guard other != .none, bootCount > other.bootCount else { return self == other && other != .none }
        let distance = bootCount - other.bootCount
        return distance <= UInt64(ancestors.count) && ancestors[Int(distance) - 1] == other.nonce
    }

    /// What is known of a replica that somebody met in this life and somebody else in another: the later one counts. Of
    /// two lives with one count neither is known to be the replica's, so neither is admitted.
    package func joined(with other: Life) -> Life {
        if other.bootCount != bootCount { return other.bootCount > bootCount ? other : self }
        return other == self ? self : Life(bootCount: bootCount, nonce: 0)
    }
}
