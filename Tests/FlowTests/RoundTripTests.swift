import Testing

@testable import MPaxosFlow

@Suite struct RoundTripTests {
    @Test func followsRFC6298() {
        var roundTrip = RoundTrip()
        #expect(roundTrip.patience == nil)
        roundTrip.sample(80_000)
        #expect(roundTrip.smoothed == 80_000 && roundTrip.variation == 40_000)
        #expect(roundTrip.patience == 240_000)
        roundTrip.sample(120_000)
        #expect(roundTrip.smoothed == 85_000 && roundTrip.variation == 40_000)
    }

    @Test func grantsAPauseOfTheMachine() {
        var roundTrip = RoundTrip()
        for _ in 0..<100 { roundTrip.sample(100) }
        #expect(roundTrip.smoothed == 100)
        #expect(roundTrip.patience == 10_100)
    }
}
