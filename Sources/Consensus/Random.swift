import MPaxosInvariants

/// The generator xorshift64*: small, fast and the same everywhere. It is for timeouts, and for whatever may be guessed.
package struct Random: BitwiseCopyable, RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) {
        // One round of splitmix64 keeps neighbouring seeds from giving neighbouring streams. The state of xorshift may
        // not be 0.
        var z = seed &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        z ^= z >> 31
        state = z == 0 ? 0x9E37_79B9_7F4A_7C15 : z
        invariant(state != 0, "xorshift never leaves 0")
    }

    package mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_F491_4F6C_DD1D
    }

    /// A number in 0 ..< bound. The bias is irrelevant here.
    mutating func below(_ bound: UInt64) -> UInt64 {
        invariant(bound > 0, "a range has members")
        return next() % bound
    }
}
