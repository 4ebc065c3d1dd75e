import Testing

@testable import MPaxosPipeline

/// What engines make of the digests that executors state, which the test plays.
@Suite struct DigestExchangeTests {
    private func state(_ executed: UInt64, _ value: UInt64, by replica: EngineReplica) {
        let pushed = replica.rings.digests.push(.init(executed: executed, value: value))
        precondition(pushed, "more statements than the ring has room for")
        replica.rings.digests.publish()
    }

    @Test func whoDiffersFromAMajorityStops() throws {
        let rig = try EngineRig()
        try rig.settle()
        for (replica, value) in zip(rig.replicas, [1, 1, 2] as [UInt64]) { state(1024, value, by: replica) }
        let stops = rig.run(for: 200_000, until: rig.replicas[2].alarm.raised != nil)
        #expect(stops)
        #expect(rig.replicas[2].alarm.raised!.text.contains("with all up to instance 1024 executed"))
        rig.run(for: 200_000)
        for index in [0, 1] {
            let replica = rig.replicas[index]
            #expect(replica.alarm.raised == nil && replica.board.isReady && !replica.board.isInDispute)
            #expect(replica.board.peers[2].digestsDiffered.load() == 1)
        }
        #expect(rig.replicas[2].board.isInDispute && !rig.replicas[2].board.isReady, "it serves nothing until it ends")
    }

    /// Also one that lags behind, and so hears from both at once.
    @Test func whoIsTheLastToTellServesNothingEither() throws {
        let rig = try EngineRig()
        try rig.settle()
        for replica in rig.replicas[..<2] { state(1024, 1, by: replica) }
        rig.run(for: 200_000)
        state(1024, 2, by: rig.replicas[2])
        rig.run(for: 1_000)
        let last = rig.replicas[2]
        #expect(last.alarm.raised != nil && last.board.isInDispute && !last.board.isReady)
    }

    /// Replicas 0 and 1 differ, and 2 is cut off.
    private func dispute() throws -> EngineRig {
        let rig = try EngineRig()
        try rig.settle()
        rig.cut(0, 2)
        rig.cut(1, 2)
        state(1024, 1, by: rig.replicas[0])
        state(1024, 2, by: rig.replicas[1])
        return rig
    }

    /// While nobody can say who is right nothing is served; in the end both stop.
    @Test func aDisputeIsNotServed() throws {
        let rig = try dispute()
        rig.run(for: 200_000)
        for replica in rig.replicas[..<2] {
            #expect(replica.board.isInDispute && !replica.board.isReady && replica.alarm.raised == nil)
        }
        rig.run(for: 10_000_000)
        for replica in rig.replicas[..<2] { #expect(replica.alarm.raised != nil) }
    }

    @Test func theThirdSettlesADispute() throws {
        let rig = try dispute()
        // It has not heard of what they tell, and they have gone on.
        state(1024, 1, by: rig.replicas[2])
        rig.run(for: 200_000)
        #expect(rig.replicas[0].board.isInDispute)
        state(2048, 11, by: rig.replicas[0])
        state(2048, 12, by: rig.replicas[1])
        rig.run(for: 200_000)
        rig.mend(0, 2)
        rig.mend(1, 2)
        let settles = rig.run(for: 1_000_000, until: rig.replicas[1].alarm.raised != nil)
        #expect(settles)
        let isReady = rig.run(for: 2_000_000, until: rig.replicas[0].board.isReady)
        #expect(isReady)
        #expect(!rig.replicas[0].board.isInDispute && rig.replicas[0].alarm.raised == nil)
    }

    /// Of two, nobody is left who could say.
    @Test func twoOfTwoStopSoon() throws {
        let rig = try EngineRig(2)
        try rig.settle()
        for (replica, value) in zip(rig.replicas, [1, 2] as [UInt64]) { state(1024, value, by: replica) }
        rig.run(for: 1_300_000)
        for replica in rig.replicas {
            #expect(replica.alarm.raised?.text.contains("no majority to say which is right") == true)
        }
    }

    /// One that was away, and comes to an instance long after the others, is compared there.
    @Test func whoLagsIsCompared() throws {
        let rig = try EngineRig()
        try rig.settle()
        rig.cut(0, 2)
        rig.cut(1, 2)
        for number in 1...9 as ClosedRange<UInt64> {
            for replica in rig.replicas[..<2] { state(1024 * number, number, by: replica) }
            rig.run(for: 50_000)
        }
        rig.mend(0, 2)
        rig.mend(1, 2)
        rig.run(for: 100_000)
        state(1024, 1, by: rig.replicas[2])
        rig.run(for: 200_000)
        #expect(rig.replicas[2].alarm.raised == nil)
        state(2048, 77, by: rig.replicas[2])
        let isFound = rig.run(for: 200_000, until: rig.replicas[2].alarm.raised != nil)
        #expect(isFound)
    }
}
