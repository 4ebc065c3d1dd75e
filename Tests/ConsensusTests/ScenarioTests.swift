import MPaxosConsensus
import Testing

@Suite struct ScenarioTests {
    @Test func aProposalIsDecidedOnAllReplicasWithoutAHeartbeat() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        #expect(cluster.members[1].core.view == 1)
        #expect(cluster.propose(41, at: 1) == 1)
        #expect(cluster.propose(42, at: 1) == 2)
        cluster.settle()
        // With a quorum of two, a durable acceptance of a durable proposal decides.
        for index in 0..<3 { #expect(cluster.values(index) == [41, 42]) }
        #expect(cluster.members[0].core.leader == 1)
        #expect(cluster.propose(1, at: 0) == nil)
        #expect(cluster.violations.isEmpty)
    }

    @Test func withFiveReplicasTheCommitIndexIsToldAtOnce() {
        let cluster = TestCluster(5)
        cluster.elect(2)
        cluster.propose(41, at: 2)
        cluster.settle()
        #expect(cluster.members[2].core.decided == 1)
        #expect(cluster.members[0].core.decided == 0)
        #expect(cluster.members[2].core.nextDeadline <= cluster.now)
        cluster.members[2].core.tick(now: cluster.now, into: &cluster.members[2].effects)
        cluster.absorb(2)
        cluster.settle()
        for index in 0..<5 { #expect(cluster.values(index) == [41]) }
    }

    @Test func aSingleReplicaLeadsAtOnceAndDecidesWhenDurable() {
        let cluster = TestCluster(1)
        let member = cluster.members[0]
        #expect(member.core.role == .leader)
        member.isHeld = true
        #expect(cluster.propose(7, at: 0) == 1)
        #expect(member.core.decided == 0)
        cluster.flush(0)
        cluster.absorb(0)
        #expect(member.core.decided == 1)
        cluster.crash(0)
        cluster.start(0)
        #expect(member.core.role == .leader)
        #expect(member.core.view == 1)
        #expect(cluster.propose(8, at: 0) == 2)
    }

    @Test func theWindowBoundsWhatIsUndecided() {
        let cluster = TestCluster(3, window: 4)
        cluster.elect(1)
        cluster.isLost = { _, _, message in message.kind == .accept }
        for value in 1...4 as ClosedRange<UInt64> { #expect(cluster.propose(value, at: 1) == value) }
        #expect((cluster.members[1].core.canPropose) == false)
        #expect(cluster.propose(5, at: 1) == nil)
        cluster.isLost = { _, _, _ in false }
        cluster.pass(200_000)
        #expect((cluster.members[1].core.canPropose) == true)
        #expect(cluster.values(0) == [1, 2, 3, 4])
        #expect(cluster.members[1].core.counters.retransmissions > 0)
    }

    @Test func theLogBoundsWhatIsProposed() {
        let cluster = TestCluster(3, window: 4, slotCount: 32)
        cluster.elect(1)
        var proposed: UInt64 = 0
        while cluster.propose(proposed + 1, at: 1) != nil {
            proposed += 1
            cluster.settle()
        }
        #expect(proposed == 31 || proposed == 32)
        #expect(cluster.members[1].core.end == 33)
        for index in 0..<3 {
            cluster.members[index].core.advanceFloor(
                to: 11, now: cluster.now, into: &cluster.members[index].effects)
            cluster.absorb(index)
        }
        #expect((cluster.members[1].core.canPropose) == true)
        #expect(cluster.members[1].core.entry(at: 10) == nil)
        #expect(cluster.members[1].core.entry(at: 11)?.batch.offset == 11)
        #expect(cluster.violations.isEmpty)
    }

    @Test func aNewLeaderAdoptsWhatIsInFlightAndFillsHoles() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.propose(10, at: 1)
        cluster.settle()
        // 2 reaches nobody, 3 reaches replica 0 alone; no acknowledgement comes back.
        cluster.isLost = { _, to, message in
            message.kind == .accepted || (message.kind == .accept && (message.instance == 2 || to == 2))
        }
        cluster.propose(20, at: 1)
        cluster.propose(30, at: 1)
        cluster.settle()
        #expect(cluster.members[0].core.entry(at: 3)?.batch.offset == 30)
        cluster.crash(1)
        cluster.isLost = { _, _, _ in false }
        cluster.now += 400_000
        cluster.elect(2)
        cluster.settle()
        #expect(cluster.members[2].core.view == 2)
        #expect(cluster.values(2) == [10, 0, 30])
        #expect(cluster.values(0) == [10, 0, 30])
        // The old leader is back, believes in its own view, and is corrected: its 20 was never chosen.
        cluster.start(1)
        cluster.settle()
        cluster.pass(300_000)
        #expect(cluster.members[1].core.role == .follower)
        #expect(cluster.values(1) == [10, 0, 30])
        #expect(cluster.violations.isEmpty)
    }

    @Test func aKilledLeaderGoesOnInItsOwnView() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        for value in 1...5 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        // Durable at the leader, unknown to others, when it is killed.
        cluster.isLost = { _, _, message in message.kind == .accept }
        cluster.propose(6, at: 1)
        cluster.settle()
        cluster.crash(1)
        cluster.isLost = { _, _, _ in false }
        cluster.now += 100_000
        cluster.start(1)
        cluster.settle()
        #expect(cluster.members[1].core.role == .leader)
        #expect(cluster.members[1].core.view == 1)
        #expect(cluster.members[1].core.counters.elections == 0)
        cluster.pass(100_000)
        for index in 0..<3 { #expect(cluster.values(index) == [1, 2, 3, 4, 5, 6]) }
        #expect(cluster.propose(7, at: 1) == 7)
        cluster.settle()
        #expect(cluster.values(0).last == 7)
        #expect(cluster.members[0].core.counters.elections == 0)
    }

    @Test func allKilledAtOnceComeBackWithAllDecided() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        for value in 1...6 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        for index in 0..<3 { cluster.crash(index) }
        // The state machines had executed less than what is in the logs.
        for index in 0..<3 { cluster.members[index].executed = Instance(index) }
        for index in [2, 0, 1] { cluster.start(index) }
        cluster.settle()
        cluster.pass(50_000)
        for index in 0..<3 { #expect(cluster.values(index) == [1, 2, 3, 4, 5, 6]) }
        #expect(cluster.members[1].core.role == .leader)
        #expect(cluster.members[1].core.view == 1)
    }

    @Test func lateAcceptsOfAnOldViewDoNotCount() {
        let cluster = TestCluster(5)
        cluster.elect(1)
        cluster.isLost = { _, _, message in message.kind == .accept || message.kind == .accepted }
        cluster.propose(10, at: 1)
        cluster.settle()
        cluster.now += 700_000
        cluster.isLost = { from, to, message in from == 1 || to == 1 || message.kind == .accept }
        cluster.elect(2)
        #expect(cluster.propose(20, at: 2) == 1)
        cluster.isLost = { _, _, _ in false }
        // Two acceptances of view 1 reach the leader of view 2: had they counted, 20 would be decided with one vote of
        // its own.
        for from in [0, 3, 4] {
            cluster.deliver(
                Message(kind: .accepted, view: 1, instance: 1, bound: 0, commit: 0), from: from, to: 2)
        }
        #expect(cluster.members[2].core.decided == 0)
        #expect(cluster.members[2].core.commit == 0)
        cluster.settle()
        cluster.pass(100_000)
        #expect(cluster.values(2) == [20])
        #expect(cluster.values(1) == [20])
    }

    @Test func theCommitIndexDecidesOnlyEntriesOfItsView() {
        let cluster = TestCluster(5)
        let member = cluster.members[0]
        let old = Batch(offset: 10, length: 8, checksum: 10)
        let new = Batch(offset: 20, length: 8, checksum: 20)
        #expect(
            cluster.deliver(
                Message(kind: .accept, view: 1, instance: 1, bound: 0, commit: 0, batch: old), from: 1, to: 0))
        cluster.deliver(Message(kind: .heartbeat, view: 2, instance: 1, bound: 0, commit: 1), from: 2, to: 0)
        #expect(member.core.view == 2)
        #expect(member.core.known == 1)
        #expect(member.core.decided == 0)
        #expect(
            cluster.deliver(
                Message(kind: .accept, view: 2, instance: 1, bound: 0, commit: 1, batch: new), from: 2, to: 0))
        #expect(member.core.decided == 1)
        #expect(member.core.entry(at: 1)?.batch == new)
    }

    @Test func aStaleLeaderIsTold() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { from, to, _ in from == 1 || to == 1 }
        cluster.now += 400_000
        cluster.elect(2)
        cluster.isLost = { _, _, _ in false }
        #expect(cluster.members[1].core.role == .leader)
        cluster.propose(1, at: 1)
        cluster.settle()
        #expect(cluster.members[1].core.role == .follower)
        #expect(cluster.members[1].core.view == 2)
        #expect(cluster.delivered.contains { $0.message.kind == .nack && $0.message.view == 2 && $0.to == 1 })
    }

    @Test func aLeaderWithoutAQuorumStepsDown() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { _, to, _ in to == 1 }
        cluster.pass(650_000)
        #expect(cluster.members[1].core.role != .leader)
    }

    @Test func aReplicaThatWasCutOffDeposesNobody() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { from, to, _ in from == 0 || to == 0 }
        cluster.pass(2_000_000)
        #expect(cluster.members[0].core.counters.elections > 1)
        #expect(cluster.members[0].core.view == 1)
        cluster.isLost = { _, _, _ in false }
        cluster.pass(300_000)
        #expect(cluster.members[1].core.role == .leader)
        #expect(cluster.members[1].core.view == 1)
        #expect(cluster.members[0].core.leader == 1)
    }

    @Test func duellingCandidatesEndWithOneLeader() {
        let cluster = TestCluster(5)
        // All timers run out at once.
        cluster.now += 700_000
        for index in 0..<5 {
            cluster.members[index].core.tick(now: cluster.now, into: &cluster.members[index].effects)
            cluster.absorb(index)
        }
        cluster.settle()
        cluster.pass(3_000_000)
        let leaders = cluster.members.indices.filter { cluster.members[$0].core.role == .leader }
        #expect(leaders.count == 1)
        #expect(Set(cluster.members.map { $0.core.view }).count == 1)
    }

    @Test func aFollowerThatWasAwayInOneViewGetsItByProposals() {
        let cluster = TestCluster(3, window: 8, slotCount: 512)
        cluster.elect(1)
        cluster.crash(0)
        for value in 1...200 as ClosedRange<UInt64> {
            #expect(cluster.propose(value, at: 1) == value)
            cluster.settle()
        }
        cluster.start(0)
        cluster.settle()
        cluster.pass(500_000)
        #expect(cluster.values(0) == Array(1...200))
        #expect(cluster.members[0].core.counters.caughtUp == 0)
        #expect(cluster.members[0].slots[3]?.view == 1)
    }

    @Test func aFollowerThatWasAwayFetchesWhatItMissed() {
        let cluster = TestCluster(3, window: 8, slotCount: 512)
        cluster.elect(1)
        cluster.crash(0)
        for value in 1...200 as ClosedRange<UInt64> {
            #expect(cluster.propose(value, at: 1) == value)
            cluster.settle()
        }
        cluster.now += 400_000
        cluster.isLost = { from, to, _ in from == 1 || to == 1 }
        cluster.start(0)
        cluster.elect(2)
        cluster.isLost = { _, _, _ in false }
        #expect(cluster.members[2].core.base == 200)
        cluster.pass(500_000)
        #expect(cluster.values(0) == Array(1...200))
        #expect(cluster.members[0].core.counters.caughtUp == 200)
        #expect(cluster.members[0].slots[3]?.view == decidedView)
        #expect((cluster.members[0].core.needsStateTransfer) == false)
        #expect(cluster.violations.isEmpty)
    }

    @Test func belowTheFloorAStateTransferIsNeeded() {
        let cluster = TestCluster(3, window: 4, slotCount: 64)
        cluster.elect(1)
        cluster.crash(0)
        for value in 1...100 as ClosedRange<UInt64> {
            #expect(cluster.propose(value, at: 1) == value)
            cluster.settle()
            for index in 1...2 where value > 20 {
                cluster.members[index].core.advanceFloor(
                    to: value - 10, now: cluster.now, into: &cluster.members[index].effects)
            }
        }
        cluster.start(0)
        cluster.settle()
        cluster.pass(500_000)
        #expect((cluster.members[0].core.needsStateTransfer) == true)
        #expect(cluster.members[0].core.decided == 0)
        #expect(cluster.members[1].core.role == .leader)
        #expect(cluster.delivered.contains { $0.message.kind == .belowFloor && $0.to == 0 })
    }

    @Test func aValueThatIsDecidedInAHigherViewWaitsForThePromise() {
        let cluster = TestCluster(3)
        let member = cluster.members[0]
        let batch = Batch(offset: 10, length: 8, checksum: 10)
        let message = Message(kind: .decided, view: 5, instance: 1, commit: 1, batch: batch)
        #expect((member.core.wants(message, from: 1)) == false)
        #expect(!cluster.deliver(message, from: 1, to: 0))
        #expect(member.core.view == 5)
        #expect(member.promised == 5)
        #expect((member.core.wants(message, from: 1)) == true)
        #expect(cluster.deliver(message, from: 1, to: 0))
        #expect(member.core.decided == 1)
        #expect(member.slots[1]?.view == decidedView)
    }

    @Test func anAcceptanceLeavesOnlyWhenDurable() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.members[0].isHeld = true
        cluster.crash(2)
        cluster.propose(10, at: 1)
        cluster.settle()
        #expect(cluster.members[0].core.accepted == 1)
        #expect(cluster.members[0].core.acceptedDurable == 0)
        #expect(cluster.members[0].core.decided == 0)
        #expect(cluster.members[1].core.decided == 0)
        #expect(cluster.members[0].waiting.contains { $0.message.kind == .accepted && $0.message.instance == 1 })
        cluster.flush(0)
        cluster.absorb(0)
        cluster.settle()
        #expect(cluster.members[1].core.decided == 1)
    }

    @Test func whatIsAdoptedIsReferencedUntilItIsAccepted() {
        let cluster = TestCluster(5)
        cluster.now += 700_000
        let member = cluster.members[0]
        cluster.isLost = { _, _, message in message.kind == .promise }
        for _ in 0..<50 where member.core.view == 0 {
            cluster.now += 20_000
            member.core.tick(now: cluster.now, into: &member.effects)
            cluster.absorb(0)
            cluster.settle()
        }
        let view = member.core.view
        #expect(view == 5)
        let batch = Batch(offset: 77, length: 8, checksum: 77)
        let promise = Message(
            kind: .promise, view: view, instance: 2, bound: 0, commit: 0, acceptedView: 3, batch: batch)
        #expect((member.core.wants(promise, from: 1)) == true)
        #expect(cluster.deliver(promise, from: 1, to: 0))
        #expect((member.core.wants(promise, from: 1)) == false)
        #expect((member.core.isReferenced(instance: 2, offset: 77)) == true)
        #expect((member.core.isReferenced(instance: 2, offset: 78)) == false)
        #expect(member.core.entry(at: 2) == nil)
        for from in [1, 2] {
            cluster.deliver(
                Message(kind: .promise, flags: .last, view: view, bound: from == 1 ? 2 : 0), from: from, to: 0)
        }
        #expect(member.core.role == .leader)
        #expect(member.core.entry(at: 2)?.batch == batch)
        #expect(member.core.entry(at: 1)?.batch == .noop)
        #expect((member.core.isReferenced(instance: 2, offset: 77)) == true)
    }

    @Test func promisesMayComeInAnyOrderAndTwice() {
        let cluster = TestCluster(3, window: 16, slotCount: 256)
        cluster.elect(1)
        cluster.isLost = { from, _, message in message.kind == .accepted || (message.kind == .accept && from != 1) }
        for value in 1...16 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        cluster.crash(1)
        var held: [(from: ReplicaIndex, to: ReplicaIndex, message: Message)] = []
        cluster.isLost = { from, to, message in
            if message.kind == .promise { held.append((from, to, message)) }
            return message.kind == .promise
        }
        cluster.now += 700_000
        let member = cluster.members[2]
        for _ in 0..<50 where member.core.view == 1 {
            cluster.now += 20_000
            member.core.tick(now: cluster.now, into: &member.effects)
            cluster.absorb(2)
            cluster.settle()
        }
        cluster.isLost = { _, _, _ in false }
        #expect(!held.isEmpty)
        for (from, to, message) in (held + held).reversed() { cluster.deliver(message, from: from, to: to) }
        cluster.settle()
        #expect(member.core.role == .leader)
        #expect(cluster.values(2) == Array(1...16))
    }

    @Test func impossibleMessagesAreRefused() {
        let cluster = TestCluster(3)
        let member = cluster.members[0]
        let bad: [(Message, ReplicaIndex)] = [
            (Message(kind: .heartbeat, view: 1), 2),
            (Message(kind: .heartbeat, view: 3), 0),
            (Message(kind: .accept, view: .max, instance: 1), 1),
            (Message(kind: .accept, view: 1, instance: 3, bound: 3), 1),
            (Message(kind: .nack, view: 0), 1),
            (Message(kind: .decided, view: 1, instance: 9, commit: 3), 1),
            (Message(kind: .nack, view: 1), 17),
            (Message(kind: .nack, view: 1), -1),
        ]
        for (message, from) in bad { #expect(!cluster.deliver(message, from: from, to: 0)) }
        #expect(member.core.counters.refused == UInt64(bad.count))
        #expect(member.core.view == 0)
    }
}
