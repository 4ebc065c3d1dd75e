import Consensus

/// What goes wrong in one run, and how often. Each kind is off in part of the runs: a run with all of them at once never gets
/// far enough to show what only one of them breaks.
struct FaultPlan {
    /// In parts of a thousand, for each message.
    var loss: UInt64 = 0
    var duplication: UInt64 = 0
    /// One-way delay is `delay` and up to `jitter` more; reordering follows from the jitter. One in a hundred is `straggle` late.
    var delay: Microseconds = 100
    var jitter: Microseconds = 0
    var straggle: Microseconds = 0
    /// Time of a flush, and up to as much again.
    var flush: Microseconds = 50
    /// Mean time between faults; 0: none.
    var interval: Microseconds = 0
    /// Chance of a crash right after a step that wrote records, in parts of a thousand; tenfold for promises and views.
    var crashAtWrite: UInt64 = 0
    /// Relative weights of the kinds of fault.
    var weights: [UInt64] = [UInt64](repeating: 0, count: Kind.allCases.count)

    enum Kind: Int, CaseIterable {
        case crash
        case crashAll
        case crashLeader
        case pause
        case slowStorage
        case split
        case oneWay
        case ring
        case isolateLeader
    }

    init() {}

    init(random: inout SimulationRandom) {
        if random.chance(perMille: 500) { loss = random.below(200) }
        if random.chance(perMille: 500) { duplication = random.below(200) }
        delay = 50 + random.below(2_000)
        if random.chance(perMille: 700) { jitter = 1 + random.below(10_000) }
        if random.chance(perMille: 500) { straggle = 1 + random.below(400_000) }
        flush = 1 + random.below(random.chance(perMille: 300) ? 10_000 : 300)
        if random.chance(perMille: 900) { interval = 5_000 + random.below(300_000) }
        if random.chance(perMille: 300) { crashAtWrite = 1 + random.below(10) }
        for kind in weights.indices where random.chance(perMille: 500) { weights[kind] = 1 + random.below(4) }
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
