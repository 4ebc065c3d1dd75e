import MPaxosConsensus
import MPaxosInvariants

/// What a replica takes for the time: runs too fast or too slow, and jumps ahead. Never goes back: nor does the node's.
package struct SimulatedClock {
    package init() {}

    private var base: Microseconds = 1_000_000
    private var since: Microseconds = 0
    /// In thousandths.
    private var rate: UInt64 = 1000

    package func local(_ now: Microseconds) -> Microseconds {
        // Nearly always right.
        rate == 1000 ? base + (now - since) : base + (now - since) * rate / 1000
    }

    /// The first moment at which the clock shows `deadline`, or more.
    package func global(_ deadline: Microseconds) -> Microseconds {
        guard deadline < .max / 2000 else { return .max }
        guard deadline > base else { return since }
        if rate == 1000 { return since + (deadline - base) }
        return since + ((deadline - base) * 1000 + rate - 1) / rate
    }

    package mutating func change(now: Microseconds, rate newRate: UInt64, jump: Microseconds) {
        invariant(newRate > 0, "a clock does not stand still for ever")
        base = local(now) + jump
        since = now
        rate = newRate
    }
}
