import Testing

@testable import MPaxosPipeline

@Suite struct PacingTests {
    private static let capacity = 8_000_000
    /// A survey each millisecond, as the engine makes them.
    private static let step: UInt64 = 1_000

    /// For how long a follower is waited for.
    /// - Parameters:
    ///   - behind: bytes that it lacks, by time.
    ///   - interval: it acknowledges something new that often.
    private func waited(
        with pacing: inout Pacing, from start: UInt64, for duration: UInt64, interval: UInt64, roundTrip: UInt64 = 0,
        behind: (UInt64) -> Int
    ) -> UInt64 {
        var waited: UInt64 = 0
        for now in stride(from: start, to: start + duration, by: Int(Self.step)) {
            let waits = pacing.waits(
                for: 1, acknowledged: now / interval, behind: behind(now - start), capacity: Self.capacity,
                roundTrip: roundTrip, now: now)
            if waits { waited += Self.step }
        }
        return waited
    }

    /// One that gets on and is behind by more than half of the log is waited for; by less, not.
    @Test func halfOfTheLog() {
        var pacing = Pacing(count: 3)
        let near = waited(with: &pacing, from: 1_000_000, for: 500_000, interval: 10_000) { _ in Self.capacity / 2 }
        #expect(near == 0)
        let far = waited(with: &pacing, from: 2_000_000, for: 500_000, interval: 10_000) { _ in Self.capacity / 2 + 1 }
        #expect(far == 500_000)
    }

    /// One that is slower than the load for good costs a second at once, then half of the time, eleven in all, and more
    /// only after it had caught up.
    @Test func aSecondThenHalfOfTheTime() {
        var pacing = Pacing(count: 3)
        let atFirst = waited(with: &pacing, from: 1_000_000, for: 10_000_000, interval: 10_000) { _ in
            Self.capacity * 3 / 4
        }
        #expect((5_980_000...6_020_000).contains(atFirst))
        let forGood = waited(with: &pacing, from: 11_000_000, for: 30_000_000, interval: 10_000) { _ in
            Self.capacity * 3 / 4
        }
        #expect((10_980_000...11_020_000).contains(atFirst + forGood))
        let nearer = waited(with: &pacing, from: 50_000_000, for: 100_000, interval: 10_000) { _ in
            Self.capacity / 4
        }
        let again = waited(with: &pacing, from: 51_000_000, for: 1_000_000, interval: 10_000) { _ in
            Self.capacity * 3 / 4
        }
        #expect(nearer == 0 && again == 0, "it has not caught up")
        let caughtUp = waited(with: &pacing, from: 60_000_000, for: 10_000, interval: 10_000) { _ in
            Self.capacity / 8 - 1
        }
        let afterwards = waited(with: &pacing, from: 61_000_000, for: 600_000, interval: 10_000) { _ in
            Self.capacity * 3 / 4
        }
        #expect(caughtUp == 0 && afterwards == 600_000)
    }

    /// The second is that of waiting: time in which it was near enough does not count.
    @Test func onlyWaitingCounts() {
        var pacing = Pacing(count: 3)
        let waited = waited(with: &pacing, from: 1_000_000, for: 4_000_000, interval: 10_000) { time in
            time / 100_000 % 4 == 0 ? Self.capacity * 3 / 4 : Self.capacity / 4
        }
        #expect((980_000...1_010_000).contains(waited))
    }

    /// One that acknowledges nothing new is not waited for, once an answer of it is overdue.
    @Test(arguments: [(0, 200_000), (10_000, 200_000), (300_000, 1_200_000)] as [(UInt64, UInt64)])
    func whoDoesNotGetOn(roundTrip: UInt64, patience: UInt64) {
        var pacing = Pacing(count: 3)
        _ = pacing.waits(
            for: 1, acknowledged: 1, behind: 0, capacity: Self.capacity, roundTrip: roundTrip, now: 10_000_000)
        for (now, isWaitedFor) in [
            (10_000_000, true), (10_000_000 + patience - 1, true), (10_000_000 + patience, false),
        ] {
            // Another look at it each time: the second that it may take in all is not at issue.
            var pacing = pacing
            let waits = pacing.waits(
                for: 1, acknowledged: 1, behind: Self.capacity, capacity: Self.capacity, roundTrip: roundTrip, now: now)
            #expect(waits == isWaitedFor, "at \(now)")
        }
    }

    /// Time in which nobody asked was no time of waiting: another follower was waited for, or this replica did not
    /// lead.
    @Test func timeWithoutSurveysDoesNotCount() {
        var pacing = Pacing(count: 3)
        let first = waited(with: &pacing, from: 1_000_000, for: 300_000, interval: 10_000) { _ in Self.capacity }
        #expect(first == 300_000)
        let second = waited(with: &pacing, from: 30_000_000, for: 550_000, interval: 10_000) { _ in Self.capacity }
        #expect(second == 550_000)
    }

    @Test func followersAreApart() {
        var pacing = Pacing(count: 3)
        let first = waited(with: &pacing, from: 1_000_000, for: 3_000_000, interval: 10_000) { _ in Self.capacity }
        #expect(first < 2_600_000)
        let other = pacing.waits(
            for: 2, acknowledged: 1, behind: Self.capacity, capacity: Self.capacity, roundTrip: 0, now: 4_000_000)
        #expect(other)
    }
}
