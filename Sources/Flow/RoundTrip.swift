/// The round-trip time of one link, smoothed as TCP smooths it (RFC 6298, section 2). Times are microseconds.
package struct RoundTrip: BitwiseCopyable, Sendable {
    /// The smoothed time; 0 before the first sample.
    package private(set) var smoothed: UInt64 = 0
    /// The smoothed distance of a sample from `smoothed`.
    package private(set) var variation: UInt64 = 0

    /// The least that `patience` grants beyond the smoothed time: the pause of a busy machine.
    static let slack: UInt64 = 10_000

    package init() {}

    /// Takes a measured time in. The weights are RFC 6298's: an eighth for the time, a quarter for the variation.
    package mutating func sample(_ time: UInt64) {
        guard smoothed > 0 else {
            smoothed = max(time, 1)
            variation = time / 2
            return
        }
        let distance = time > smoothed ? time - smoothed : smoothed - time
        variation = (3 * variation + distance) / 4
        smoothed = max((7 * smoothed + time) / 8, 1)
    }

    /// How long an answer may take before it counts as lost: RFC 6298's retransmission timeout without its lower bound
    /// of a second. Nil before the first sample.
    package var patience: UInt64? { smoothed == 0 ? nil : smoothed + max(4 * variation, Self.slack) }
}
