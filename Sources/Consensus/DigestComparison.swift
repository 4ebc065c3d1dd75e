/// What the replicas say of their states, and whether they can all be right: with the same instances executed the
/// digests of sound states are equal.
package struct DigestComparison {
    /// A digest, and the last instance that is executed in it.
    package struct Standing: Equatable {
        package var executed: UInt64
        package var value: UInt64

        package init(executed: UInt64, value: UInt64) {
            self.executed = executed
            self.value = value
        }
    }

    /// Bit i: replica i.
    package enum Verdict: Equatable {
        /// Nobody who has told of the same instance differs.
        case agreement
        /// This replica is of a majority's opinion; those differ.
        case theyDiffer(UInt16)
        /// A majority agrees on another digest: those.
        case thisDiffers(majority: UInt16)
        /// Those differ from this replica, and no majority has told of this instance.
        case undecided(UInt16)
    }

    /// Replicas that were found to differ from this one, since when it has not been settled who is right. What was found
    /// once stays true when the states move on: it ends with a majority's word, or when they are found equal.
    package private(set) var disputed: UInt16 = 0
    package private(set) var disputedSince: UInt64 = .max

    private let index: Int
    private let quorum: Int
    /// The last that each replica told, this one included.
    private var standings: [Standing?]

    package init(index: Int, count: Int) {
        self.index = index
        quorum = count / 2 + 1
        standings = Array(repeating: nil, count: count)
    }

    package subscript(replica: Int) -> Standing? {
        get { standings[replica] }
        set { standings[replica] = newValue }
    }

    /// The verdict, after which `disputed` stands for what is known by now.
    package mutating func judge(now: UInt64) -> Verdict {
        let verdict = verdict
        switch verdict {
        case .agreement:
            for (replica, standing) in standings.enumerated() where standing != nil && standing == standings[index] {
                disputed &= ~(1 << UInt16(replica))
            }
        case .theyDiffer(let replicas): disputed &= ~replicas
        case .thisDiffers: break
        case .undecided(let replicas):
            if disputed == 0 { disputedSince = now }
            disputed |= replicas
        }
        if disputed == 0 { disputedSince = .max }
        return verdict
    }

    package var verdict: Verdict {
        guard let own = standings[index] else { return .agreement }
        var differing: UInt16 = 0
        var agreeing: UInt16 = 0
        for (replica, standing) in standings.enumerated() {
            guard let standing, standing.executed == own.executed else { continue }
            if standing.value == own.value {
                agreeing |= 1 << UInt16(replica)
            } else {
                differing |= 1 << UInt16(replica)
            }
        }
        if differing == 0 { return .agreement }
        if agreeing.nonzeroBitCount >= quorum { return .theyDiffer(differing) }
        for (replica, standing) in standings.enumerated() where differing & 1 << UInt16(replica) != 0 {
            var equal: UInt16 = 0
            for (other, theirs) in standings.enumerated() where theirs == standing { equal |= 1 << UInt16(other) }
            if equal.nonzeroBitCount >= quorum { return .thisDiffers(majority: equal) }
        }
        return .undecided(differing)
    }
}
