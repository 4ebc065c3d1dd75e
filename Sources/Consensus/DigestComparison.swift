/// What the replicas say of their states, and whether they can all be right: with the same instances executed the
/// digests of sound states are equal.
///
/// Each tells its digest at every instance that is a multiple of `interval`, however busy it is, and besides where it
/// stands in quiet. Of each the last statements are kept, so that one that lags behind still finds what others told of
/// the instance that it has come to. A verdict is about one instance.
package struct DigestComparison {
    /// A digest, and the last instance that is executed in it.
    package struct Standing: BitwiseCopyable, Equatable, Sendable {
        package var executed: UInt64
        package var value: UInt64

        package init(executed: UInt64, value: UInt64) {
            self.executed = executed
            self.value = value
        }
    }

    /// In a set of replicas bit i stands for replica i.
    package enum Verdict: Equatable {
        /// Nobody who has told of this instance differs.
        case agreement
        /// This replica agrees with a majority; those replicas differ.
        case theyDiffer(UInt16)
        /// A majority, those replicas, agrees on another digest.
        case thisDiffers(majority: UInt16)
        /// Those replicas differ from this one, and no majority has told of this instance.
        case undecided(UInt16)
    }

    /// The interval of a node: short enough for a difference to be found within a second of ordinary load, long enough
    /// that neither the group commit that ends there nor the frames are felt.
    package static let ordinaryInterval: UInt64 = 1024
    /// How many statements are kept of each replica at multiples of the interval: so far one may lag behind.
    private static let kept = 16

    /// Replicas that were found to differ from this one, since when it has not been settled who is right. What was
    /// found once stays true when the states move on: it ends with a majority's word, about that instance or a later
    /// one, or when they are found equal there or later.
    package private(set) var disputed: UInt16 = 0
    package private(set) var disputedSince: UInt64 = .max
    /// All have told of an instance in dispute, and there is no majority: nobody is left who could settle it.
    package private(set) var isHopeless = false
    /// Replicas that a majority with this one among it has found to differ.
    package private(set) var condemned: UInt16 = 0
    /// A majority agrees on another digest than this replica: it is to stop.
    package private(set) var isRefuted = false
    /// Whether nothing may be served from this replica's state, since it is not known to be right.
    package var isInDoubt: Bool { disputed != 0 || isRefuted }

    package let interval: UInt64
    private let index: Int
    private let count: Int
    private let quorum: Int
    /// For each replica: its statements at the last multiples of the interval, each at its place, and behind them the
    /// last other one.
    private var statements: [Standing?]
    /// The instance at which a replica was last found to differ.
    private var differedAt: [UInt64]

    package init(index: Int, count: Int, interval: UInt64 = ordinaryInterval) {
        self.index = index
        self.count = count
        self.interval = interval
        quorum = count / 2 + 1
        statements = Array(repeating: nil, count: count * (Self.kept + 1))
        differedAt = Array(repeating: 0, count: count)
    }

    private func place(of executed: UInt64, _ replica: Int) -> Int {
        let slot = executed % interval == 0 ? Int(executed / interval % UInt64(Self.kept)) : Self.kept
        return replica * (Self.kept + 1) + slot
    }

    /// What a replica last told of its state after an instance.
    package func value(of replica: Int, at executed: UInt64) -> UInt64? {
        guard let standing = statements[place(of: executed, replica)], standing.executed == executed else { return nil }
        return standing.value
    }

    /// All that is kept of a replica, for one who has not heard it.
    package func statements(of replica: Int) -> [Standing] {
        statements[replica * (Self.kept + 1)..<(replica + 1) * (Self.kept + 1)].compactMap { $0 }
    }

    /// A replica, perhaps this one, tells where its state stands: the verdict about that instance.
    package mutating func take(_ standing: Standing, from replica: Int, now: UInt64) -> Verdict {
        statements[place(of: standing.executed, replica)] = standing
        return judge(standing.executed, now: now)
    }

    private mutating func judge(_ executed: UInt64, now: UInt64) -> Verdict {
        guard let own = value(of: index, at: executed) else { return .agreement }
        let agreeing = replicas(telling: own, at: executed)
        for replica in 0..<count where agreeing & 1 << UInt16(replica) != 0 && differedAt[replica] <= executed {
            settle(1 << UInt16(replica))
            condemned &= ~(1 << UInt16(replica))
        }
        if agreeing.nonzeroBitCount >= quorum {
            // With the state of a majority here, this replica was right wherever it differed from another before.
            let wrong = disputed & ~agreeing & replicas(where: { differedAt[$0] <= executed })
            settle(wrong)
            condemned |= wrong
        }
        var differing: UInt16 = 0
        var told = 0
        for replica in 0..<count {
            guard let value = value(of: replica, at: executed) else { continue }
            told += 1
            guard value != own else { continue }
            differing |= 1 << UInt16(replica)
            differedAt[replica] = max(differedAt[replica], executed)
            let others = replicas(telling: value, at: executed)
            if others.nonzeroBitCount >= quorum {
                isRefuted = true
                return .thisDiffers(majority: others)
            }
        }
        if differing == 0 { return .agreement }
        if agreeing.nonzeroBitCount >= quorum {
            settle(differing)
            condemned |= differing
            return .theyDiffer(differing)
        }
        // Nobody waits to hear who is right where the one that differs was found to be wrong before.
        let open = differing & ~condemned
        if open == 0 { return .theyDiffer(differing) }
        if disputed == 0 { disputedSince = now }
        disputed |= open
        isHopeless = isHopeless || told == count
        return .undecided(open)
    }

    // MARK: Disputes

    /// How long replicas that differ wait for a majority's word before they stop: where all have told and none is left
    /// who could say, while somebody is away, and else. In microseconds.
    package struct Patience {
        package var withoutHope: UInt64
        package var withFew: UInt64
        package var withAll: UInt64

        package init(withoutHope: UInt64, withFew: UInt64, withAll: UInt64) {
            self.withoutHope = withoutHope
            self.withFew = withFew
            self.withAll = withAll
        }
    }

    /// Whether this replica has waited too long to hear who is right.
    package func isOverdue(_ patience: Patience, isAnybodyAway: Bool, now: UInt64) -> Bool {
        guard disputed != 0 else { return false }
        let time = isHopeless ? patience.withoutHope : isAnybodyAway ? patience.withFew : patience.withAll
        return now >= disputedSince + time
    }

    // MARK: Snapshots

    /// What the statements of others say of a state that a replica gives to this one.
    package enum Opinion: Equatable {
        /// A third replica has told the same digest of that instance, or a majority has.
        case confirmed
        /// A third replica has told another, of that instance or of one before, and no majority is with the giver.
        case contradicted(by: Int)
        /// Nobody else has told of that instance yet.
        case unknown
    }

    package func opinion(of snapshot: Standing, from giver: Int) -> Opinion {
        let thirds = (0..<count).filter { $0 != giver && $0 != index && condemned & 1 << UInt16($0) == 0 }
        let agreeing = replicas(telling: snapshot.value, at: snapshot.executed) | 1 << UInt16(giver)
        if agreeing.nonzeroBitCount >= quorum { return .confirmed }
        for standing in statements(of: giver) + [snapshot] {
            let backers = replicas(telling: standing.value, at: standing.executed) | 1 << UInt16(giver)
            guard backers.nonzeroBitCount < quorum else { continue }
            for third in thirds {
                if let told = value(of: third, at: standing.executed), told != standing.value {
                    return .contradicted(by: third)
                }
            }
        }
        return agreeing.nonzeroBitCount > 1 ? .confirmed : .unknown
    }

    private func replicas(telling value: UInt64, at executed: UInt64) -> UInt16 {
        replicas(where: { self.value(of: $0, at: executed) == value })
    }

    private func replicas(where isOne: (Int) -> Bool) -> UInt16 {
        (0..<count).reduce(0) { $0 | (isOne($1) ? 1 << UInt16($1) : 0) }
    }

    private mutating func settle(_ replicas: UInt16) {
        disputed &= ~replicas
        guard disputed == 0 else { return }
        disputedSince = .max
        isHopeless = false
    }
}
