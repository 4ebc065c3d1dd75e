import MPaxosConsensus

/// What goes wrong in one run, and how often. Each kind is off in part of the runs: a run with all of them at once
/// never gets far enough to show what only one of them breaks.
struct FaultPlan {
    /// In parts of a thousand, for each message.
    var loss: UInt64 = 0
    var duplication: UInt64 = 0
    /// One-way delay is `delay` and up to `jitter` more; reordering follows from the jitter. Of a thousand messages so
    /// many as `stragglers` are up to `straggle` late.
    var delay: Microseconds = 100
    var jitter: Microseconds = 0
    var straggle: Microseconds = 0
    var stragglers: UInt64 = 10
    /// Time of a flush, and up to as much again.
    var flush: Microseconds = 50
    /// Mean time between faults; 0: none.
    var interval: Microseconds = 0
    /// Longest time that a fault lasts.
    var span: Microseconds = 600_000
    /// Chance of a crash right after a step that wrote records, in parts of a thousand; tenfold for promises and views.
    var crashAtWrite: UInt64 = 0
    /// Whether now and then the pools of a replica that is down are copied.
    var copiesPools = false
    /// Whether replicas are killed while they start.
    var cutsStarts = false
    /// Relative weights of the kinds of fault.
    var weights: [UInt64] = [UInt64](repeating: 0, count: Kind.allCases.count)

    enum Kind: Int, CaseIterable {
        case crash
        case crashAll
        case crashLeader
        case pause
        case pauseLeader
        case slowStorage
        case stuckStorage
        case split
        case oneWay
        case ring
        case isolateLeader
        /// Some kinds of messages of one replica, or to it, are lost.
        case mute
        /// Another majority, with as few members of the last one as can be, is cut off from the rest.
        case rotate
        /// The next that establishes a view, or keeps a decided value while its promise is on the way, crashes in doing
        /// so.
        case trap
        /// The next leader that decides something can tell nobody.
        case silence
        case clockJump
        case clockRate
        case lag
        case fullLog
        case losePools
        case clientDeath
        /// Two replicas lose their link, where there are links.
        case linkLoss
        /// A link becomes slow one way.
        case slowLink
        /// A replica starts from a copy of its pools that was taken some lives ago.
        case rollBack
        /// Of two processes on copies of a replica's pools the other one starts.
        case clone
        /// One of the two pools is replaced by a copy of an earlier time.
        case mixPools
        /// A bit of a fenced vote, or of the promise, flips while the replica is down.
        case flipVote
        /// A value in a replica's state changes by itself, and the replica executes otherwise than the others.
        case drift

        /// What comes from outside, and costs a replica.
        static var outside: [Kind] { [.rollBack, .clone, .mixPools, .flipVote, .drift] }
        /// What starts from copies of pools.
        static var fromCopies: [Kind] { [.rollBack, .clone, .mixPools] }
    }

    init() {}

    /// - Parameter suspect: the time after which the replicas suspect their leader: what disturbs elections is of its
    ///   size.
    init(random: inout SimulationRandom, suspect: Microseconds) {
        // Of all runs half is a storm: faults aimed at leaders, as quickly as they are elected.
        let isStorm = random.chance(perMille: 500)
        if random.chance(perMille: 500) { loss = random.below(200) }
        if random.chance(perMille: 500) { duplication = random.below(200) }
        delay = 50 + random.below(isStorm ? 500 : 2_000)
        if random.chance(perMille: 700) { jitter = 1 + random.below(isStorm ? 2_000 : 10_000) }
        if random.chance(perMille: 500) {
            straggle = 1 + random.below(random.chance(perMille: 500) ? 400_000 : 4 * suspect)
            stragglers = random.chance(perMille: 300) ? 200 : 10
        }
        flush = 1 + random.below(random.chance(perMille: 300) ? 10_000 : 300)
        if isStorm {
            interval = suspect / 2 + random.below(3 * suspect)
            span = suspect + random.below(6 * suspect)
        } else if random.chance(perMille: 900) {
            interval = 5_000 + random.below(300_000)
        }
        if random.chance(perMille: 300) { crashAtWrite = 1 + random.below(10) }
        for kind in 0..<Kind.rollBack.rawValue where random.chance(perMille: 400) {
            weights[kind] = 1 + random.below(4)
        }
        if isStorm {
            for kind in [Kind.crashLeader, .pauseLeader, .isolateLeader, .mute, .rotate, .trap, .silence]
            where random.chance(perMille: 700) {
                weights[kind.rawValue] += 4 + random.below(10)
            }
        }
        // Rare at best: without it a replica is gone for the rest of the run.
        if weights[Kind.losePools.rawValue] > 1 { weights[Kind.losePools.rawValue] = 1 }
        if random.chance(perMille: 300) {
            for kind in Kind.outside where random.chance(perMille: 500) {
                weights[kind.rawValue] = 1 + random.below(isStorm ? 8 : 3)
            }
            copiesPools = Kind.fromCopies.contains { weights[$0.rawValue] > 0 }
            cutsStarts = random.chance(perMille: 500)
        }
    }

    /// Pools that were lost before the cluster is founded cost nothing.
    mutating func losesPoolsOften(random: inout SimulationRandom) {
        if random.chance(perMille: 500) { weights[Kind.losePools.rawValue] += 1 + random.below(6) }
    }

    /// Which fault is next, or nil when all are off.
    func draw(random: inout SimulationRandom) -> Kind? {
        let total = weights.reduce(0, +)
        guard total > 0 else { return nil }
        var ticket = random.below(total)
        for (kind, weight) in weights.enumerated() {
            if ticket < weight { return Kind(rawValue: kind) }
            ticket -= weight
        }
        return nil
    }
}
