import MPaxosInvariants

/// splitmix64: the one source of chance of a simulation.
package struct SimulationRandom: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed &* 0xD134_2543_DE82_EF95 &+ 0x9E37_79B9_7F4A_7C15 }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    package mutating func below(_ bound: UInt64) -> UInt64 {
        invariant(bound > 0, "a range has members")
        return next().multipliedFullWidth(by: bound).high
    }

    package mutating func index(_ count: Int) -> Int { Int(below(UInt64(count))) }

    /// True once in about `1 / probability` times; `probability` in parts of a thousand.
    package mutating func chance(perMille probability: UInt64) -> Bool { below(1000) < probability }
}
