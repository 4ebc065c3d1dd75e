/// Which followers the leader waits for when its log would run out for them.
///
/// A quorum decides, and the log keeps what a follower lacks only as far as it reaches: beyond, the follower must take
/// a whole state. So a follower that gets on, but is behind by half of the log, is waited for: a second at once, and
/// then half of the time, up to eleven seconds in all until it has caught up. One that is slower than the load for good
/// costs no more than that, and one that does not get on at all nothing.
struct Pacing {
    private struct Follower {
        var acknowledged: UInt64 = 0
        /// When it acknowledged something new last.
        var gotOnAt: UInt64 = 0
        /// Microseconds for which it was waited for since it was near.
        var waited: UInt64 = 0
        /// When that was added to last; 0: it is not being waited for.
        var waitingSince: UInt64 = 0
        /// Since when it was far behind; 0: it is not.
        var behindSince: UInt64 = 0
    }

    private var followers: [Follower]
    private static let waitingAtOnce: UInt64 = 1_000_000
    private static let waitingLater: UInt64 = 10_000_000
    /// Looks further apart than that have a time between them in which nobody asked for this follower: another one was
    /// waited for, or this replica did not lead.
    private static let mostBetweenLooks: UInt64 = 100_000

    init(count: Int) { followers = Array(repeating: Follower(), count: count) }

    /// Whether to wait for a follower now.
    /// - Parameters:
    ///   - behind: bytes of the log that it did not acknowledge.
    ///   - capacity: bytes of the log.
    ///   - roundTrip: microseconds until something new of it can be expected.
    mutating func waits(
        for follower: Int, acknowledged: UInt64, behind: Int, capacity: Int, roundTrip: UInt64, now: UInt64
    ) -> Bool {
        if acknowledged > followers[follower].acknowledged {
            followers[follower].acknowledged = acknowledged
            followers[follower].gotOnAt = now
        }
        if followers[follower].waitingSince > 0 {
            followers[follower].waited += min(now - followers[follower].waitingSince, Self.mostBetweenLooks)
            followers[follower].waitingSince = 0
        }
        if behind < capacity / 8 {
            followers[follower].waited = 0
            followers[follower].behindSince = 0
        } else if behind > capacity / 2, followers[follower].behindSince == 0 {
            followers[follower].behindSince = now
        }
        guard behind > capacity / 2 else { return false }
        let share = min((now - followers[follower].behindSince) / 2, Self.waitingLater)
        let getsOn = now < followers[follower].gotOnAt + max(200_000, 4 * roundTrip)
        guard getsOn, followers[follower].waited < Self.waitingAtOnce + share else { return false }
        followers[follower].waitingSince = now
        return true
    }
}
