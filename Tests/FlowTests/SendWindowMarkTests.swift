import Testing

@testable import MPaxosFlow

/// What a window counts, step by step.
@Suite struct SendWindowMarkTests {
    /// A window that was measured once.
    private func measured(roundTrip: UInt64 = 10_000) -> SendWindow {
        var window = SendWindow()
        window.reset(now: 5_000_000)
        window.sent(1_000, pieces: false, now: 5_000_000)
        if let stamp = window.newMark(now: 5_000_000) {
            _ = window.returned(stamp, now: 5_000_000 + roundTrip)
        }
        return window
    }

    @Test func countsWhatIsUnderWay() throws {
        var window = SendWindow()
        #expect(window.room == SendWindow.initialSize && window.underWay == 0)
        window.sent(20_000, pieces: false, now: 1)
        #expect(window.underWay == 20_000 && window.room == SendWindow.initialSize - 20_000)
        let stamp = try mark(&window, now: 1)
        window.sent(20_000, pieces: false, now: 2)
        #expect(window.room < 0)
        #expect((window.returned(stamp, now: 30_000)) == true)
        #expect(window.underWay == 20_000)
    }

    @Test func stampsThatAreNotUnderWayMeanNothing() throws {
        var window = measured()
        window.sent(1_000, pieces: false, now: 5_020_000)
        let stamp = try mark(&window, now: 5_020_000)
        for foreign in [0, stamp - 1, stamp + 1, .max] {
            #expect((window.returned(foreign, now: 5_030_000)) == false)
        }
        #expect(window.underWay == 1_000)
        #expect((window.returned(stamp, now: 5_030_000)) == true)
        #expect((window.returned(stamp, now: 5_900_000)) == false)
        #expect(window.underWay == 0 && window.roundTrip.smoothed <= 10_000)
    }

    /// A mark of the connection before is none of this one, also when it comes late.
    @Test func marksOfAnEarlierConnectionMeanNothing() throws {
        var window = measured()
        window.sent(3_000, pieces: true, now: 5_020_000)
        let stamp = try mark(&window, now: 5_020_000)
        window.reset(now: 6_000_000)
        #expect(window.underWay == 0)
        window.sent(2_000, pieces: false, now: 6_000_000)
        #expect((window.returned(stamp, now: 6_000_500)) == false)
        #expect(window.underWay == 2_000 && window.leastRoundTrip == 10_000)
        let next = try mark(&window, now: 6_000_000)
        #expect(next > stamp)
        #expect((window.returned(next, now: 6_012_000)) == true)
    }

    /// On a way that is not short.
    @Test func aMarkFollowsSoonBehindWhatIsSent() throws {
        var window = measured(roundTrip: 30_000)
        let quiet = window.takeMark(now: 5_031_000)
        #expect(quiet == nil)
        window.sent(100, pieces: false, now: 5_031_000)
        #expect(window.nextDeadline == 5_036_000)
        var none = window.takeMark(now: 5_035_999)
        #expect(none == nil)
        let due = window.takeMark(now: 5_036_000)
        #expect(due != nil)
        none = window.takeMark(now: 5_036_000)
        #expect(none == nil)
        // At once behind much.
        window.sent(SendWindow.initialSize / SendWindow.marksPerWindow + 2_048, pieces: false, now: 5_037_000)
        let much = window.takeMark(now: 5_037_000)
        #expect(much != nil)
    }

    /// A mark wakes both replicas: on a short way it waits until the window is half full.
    @Test func onAShortWayThatIsNotBusyMarksAreFew() {
        var window = measured(roundTrip: 500)
        window.sent(SendWindow.initialSize / 2 - 1, pieces: false, now: 5_001_000)
        #expect(window.nextDeadline == 5_001_000 + SendWindow.idleMarkDelay)
        let none = window.takeMark(now: 5_001_000 + SendWindow.idleMarkDelay - 1)
        #expect(none == nil)
        window.sent(1, pieces: false, now: 5_002_000)
        let due = window.takeMark(now: 5_002_000)
        #expect(due != nil)
        window.sent(4 << 10, pieces: false, now: 5_002_000)
        let busy = window.takeMark(now: 5_002_000)
        #expect(busy != nil)
    }

    @Test func anIdleLinkIsProbed() {
        var window = measured()
        #expect(window.nextDeadline == 6_000_000)
        var stamps: [UInt64] = []
        for now in stride(from: 5_020_000 as UInt64, to: 25_000_000, by: 10_000) {
            guard let stamp = window.takeMark(now: now) else { continue }
            stamps.append(stamp)
            _ = window.returned(stamp, now: now + 9_000)
        }
        #expect((19...20).contains(stamps.count))
        #expect(window.leastRoundTrip == 9_000)
        // A link that comes up is measured at once.
        window.reset(now: 40_000_000)
        let first = window.takeMark(now: 40_000_000)
        #expect(first != nil)
    }

    /// There are only so many marks; the next is sent when one is back.
    @Test func marksAreBounded() {
        var window = SendWindow()
        var stamps: [UInt64] = []
        for now in 0..<200 as Range<UInt64> {
            window.sent(10, pieces: false, now: now)
            if let stamp = window.newMark(now: now) { stamps.append(stamp) }
        }
        #expect(stamps.count == SendWindow.mostMarks && window.nextDeadline == .max)
        #expect((window.returned(stamps[0], now: 300)) == true)
        #expect(window.nextDeadline < .max)
        let next = window.newMark(now: 300)
        #expect(next == stamps.last.map { $0 + 1 })
    }

    /// Pieces leave what comes in order all the room that it may have, and have a quarter whatever that takes.
    @Test func piecesAndProposalsShare() {
        var window = SendWindow()
        let size = SendWindow.initialSize
        window.sent(size, pieces: true, now: 1)
        #expect(window.room == size && window.roomForPieces == 0)
        window.sent(size, pieces: false, now: 1)
        #expect(window.room == 0 && window.roomForPieces < 0)
        var other = SendWindow()
        other.sent(2 * size, pieces: false, now: 1)
        #expect(other.roomForPieces == size / 4 && other.room == -size)
        other.sent(size / 4, pieces: true, now: 1)
        #expect(other.roomForPieces == 0)
        #expect(other.largestWhole >= 16 << 10 && other.pieceSize >= 4 << 10 && other.pieceSize <= 64 << 10)
    }

    @Test func bothKindsOnABusyWayGetOn() {
        let rig = SimulatedSenders(SimulatedWay(rate: 12_500_000, roundTrip: 20_000))
        rig.senders[0].isPieces = true
        rig.run(seconds: 5)
        let measured = rig.run(seconds: 10)
        #expect(measured.used >= 0.95, "\(measured)")
    }

    /// A peer may keep marks for as long as it likes, or return them at once: the window stays what it may be.
    @Test(arguments: [1, 30 * 86_400_000_000, .max >> 2] as [UInt64])
    func marksThatAreKept(for time: UInt64) throws {
        var window = measured(roundTrip: 1_000)
        var now: UInt64 = 6_000_000
        for round in 0..<400 {
            window.sent(round < 200 ? window.size : 64 << 10, pieces: false, now: now)
            window.ranShort()
            let stamp = try mark(&window, now: now)
            now += round < 200 ? 1_000 : min(time, (.max - now) / 8)
            #expect((window.returned(stamp, now: now)) == true)
            #expect(window.size >= SendWindow.leastSize && window.size <= SendWindow.mostSize)
        }
        #expect(window.roundTrip.smoothed <= 60_000_000)
    }
}
