import Testing

@testable import MPaxosFlow

/// A window on a simulated way: how much it carries, and how long what is sent waits.
@Suite struct SendWindowTests {
    private static let megabit = 125_000.0

    private func rig(_ megabits: Double, _ roundTrip: Double, count: Int = 1) -> SimulatedSenders {
        SimulatedSenders(SimulatedWay(rate: megabits * Self.megabit, roundTrip: roundTrip), count: count)
    }

    private func target(_ roundTrip: Double) -> Double { max(Double(SendWindow.queueTarget), roundTrip / 8) }

    /// Megabits a second and the round trip in microseconds.
    @Test(
        arguments: [
            (10, 200), (10, 20_000), (10, 300_000), (100, 200), (100, 40_000), (100, 300_000), (1_000, 200),
            (1_000, 10_000),
            (1_000, 100_000), (10_000, 200), (10_000, 5_000),
        ] as [(Double, Double)])
    func aWayIsFilledAndItsQueueIsShort(megabits: Double, roundTrip: Double) {
        let rig = rig(megabits, roundTrip)
        rig.run(seconds: 10)
        // Two searches for the lowest round trip are in it.
        let measured = rig.run(seconds: megabits > 1_000 ? 21 : 41)
        let target = target(roundTrip)
        let chunk = Double(rig.window.pieceSize) * 1e6 / rig.way.rate
        #expect(measured.used >= 0.95, "\(measured)")
        #expect(measured.queue <= 1.5 * target + chunk && measured.queue >= 0.5 * target, "\(measured)")
        // Also while the window opens again after a search.
        #expect(measured.longest <= roundTrip / 2 + 1.5 * target + 2 * chunk, "\(measured)")
    }

    @Test(arguments: [(100, 20_000), (100, 200), (1_000, 100_000)] as [(Double, Double)])
    func twoShareAWay(megabits: Double, roundTrip: Double) {
        let rig = rig(megabits, roundTrip, count: 2)
        rig.run(seconds: 30)
        let measured = rig.run(seconds: 60)
        #expect(measured.used >= 0.95, "\(measured)")
        #expect(measured.queue <= 2 * target(roundTrip), "\(measured)")
        for sent in measured.sent { #expect(sent >= 0.25 * measured.sent.reduce(0, +), "\(measured)") }
    }

    /// Two seconds, and the time in which what waits on a way that became slower is through three times.
    @Test(
        arguments: [
            (100, 10, 200), (100, 10, 20_000), (1_000, 10, 20_000), (100, 30, 200_000), (10, 100, 20_000),
            (10, 1_000, 20_000),
        ] as [(Double, Double, Double)])
    func followsTheRateOfTheWay(before: Double, after: Double, roundTrip: Double) {
        let rig = rig(before, roundTrip)
        rig.run(seconds: 12)
        rig.way.rate = after * Self.megabit
        rig.run(seconds: 2 + 3 * Double(rig.window.size) / rig.way.rate)
        let measured = rig.run(seconds: 10)
        #expect(measured.used >= 0.9, "\(measured)")
        #expect(measured.queue <= 2 * target(roundTrip), "\(measured)")
    }

    /// Another route, longer or shorter: it is not taken for a queue for long, nor is a queue for the route.
    @Test(arguments: [(20_000, 80_000), (20_000, 300_000), (200, 100_000), (80_000, 20_000)] as [(Double, Double)])
    func followsTheRoute(before: Double, after: Double) {
        let rig = rig(100, before)
        rig.run(seconds: 12)
        rig.way.delay = after / 2
        rig.run(seconds: 10)
        let measured = rig.run(seconds: 21)
        let least = Double(rig.window.leastRoundTrip)
        #expect(least >= after && least <= after + target(after), "\(least)")
        #expect(measured.used >= 0.9, "\(measured)")
        #expect(measured.queue <= 2 * target(after), "\(measured)")
    }

    /// Who has less to send than the way carries keeps it short of a queue, and has the whole of it when there is more.
    @Test func whatIsOfferedIsCarried() {
        let rig = rig(100, 40_000)
        rig.senders[0].offered = 3_000_000
        rig.run(seconds: 5)
        let quiet = rig.run(seconds: 20)
        #expect(abs(quiet.sent[0] / 20 - 3_000_000) < 60_000 && quiet.queue < 5_000, "\(quiet)")
        rig.senders[0].offered = nil
        rig.run(seconds: 3)
        let busy = rig.run(seconds: 10)
        #expect(busy.used >= 0.95, "\(busy)")
    }

    /// A window that was never full says nothing of the way: an idle hour leaves it what it was.
    @Test func anIdleLinkForgetsNothing() {
        let rig = rig(100, 40_000)
        rig.run(seconds: 10)
        let size = rig.window.size
        rig.senders[0].offered = 1
        rig.run(seconds: 3_600)
        #expect(rig.window.size == size)
        #expect(rig.window.underWay <= 1)
    }

    /// After the link was lost the window opens again from the beginning, within some round trips.
    @Test func aResetForgetsWhatWasUnderWay() {
        let rig = rig(100, 40_000)
        rig.run(seconds: 10)
        #expect(rig.window.underWay > 0)
        rig.senders[0].reset(now: rig.now)
        #expect(rig.window.underWay == 0 && rig.window.room == SendWindow.initialSize)
        rig.run(seconds: 1)
        let measured = rig.run(seconds: 10)
        #expect(measured.used >= 0.95, "\(measured)")
    }

    /// In the middle of a search too.
    @Test func aResetEndsASearch() {
        let rig = rig(10, 200_000)
        rig.run(seconds: 10)
        // Epochs of 20 s: the next begins within this.
        for _ in 0..<200 where rig.window.room <= rig.window.size / 4 { rig.run(seconds: 0.05) }
        let least = rig.window.leastRoundTrip
        rig.senders[0].reset(now: rig.now)
        rig.run(seconds: 3)
        #expect(rig.window.leastRoundTrip < 2 * least && rig.window.leastRoundTrip > 0)
        #expect(rig.run(seconds: 10).used >= 0.9)
    }

    /// Marks that do not come back: nothing more is sent than the window holds, until the link is made anew.
    @Test func lostMarksDoNotWedgeIt() {
        let rig = rig(100, 40_000)
        rig.run(seconds: 5)
        rig.senders[0].isLosingMarks = true
        rig.run(seconds: 5)
        #expect(rig.window.underWay >= rig.window.size && rig.run(seconds: 5).used == 0)
        rig.senders[0].isLosingMarks = false
        rig.senders[0].reset(now: rig.now)
        rig.run(seconds: 1)
        #expect(rig.run(seconds: 5).used >= 0.95)
    }

    /// One mark that is lost is made good by the next: what was sent before that has arrived.
    @Test func aLostMarkIsMadeGoodByTheNext() throws {
        var window = SendWindow()
        window.sent(5_000, pieces: false, now: 1_000)
        let first = try mark(&window, now: 1_000)
        window.sent(5_000, pieces: false, now: 2_000)
        let second = try mark(&window, now: 2_000)
        #expect((window.returned(second, now: 9_000)) == true)
        #expect(window.underWay == 0 && window.leastRoundTrip == 7_000)
        #expect((window.returned(first, now: 9_500)) == false)
        #expect(window.leastRoundTrip == 7_000)
    }
}
