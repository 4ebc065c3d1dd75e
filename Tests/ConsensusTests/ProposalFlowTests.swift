import MPaxosConsensus
import Testing

/// When proposals leave a leader, and how often.
@Suite struct ProposalFlowTests {
    /// The proposals that reached a replica, by instance: how often each.
    private func arrivals(_ cluster: TestCluster, at replica: ReplicaIndex) -> [Instance: Int] {
        cluster.delivered.filter { $0.to == replica && $0.message.kind == .accept }
            .reduce(into: [:]) { $0[$1.message.instance, default: 0] += 1 }
    }

    /// A cluster whose link from 1 to 0 delivers in order, two seconds late, and what 1 then says to 0 within so many
    /// seconds.
    private func runSlowly(seconds: Int, plantedBugs: PlantedBugs = []) -> TestCluster {
        let cluster = TestCluster(3, window: 64, slotCount: 512, plantedBugs: plantedBugs)
        cluster.elect(1)
        cluster.settle()
        let leader = cluster.members[1]
        leader.core.allow(.max, patience: 4_000_000, to: 0, now: cluster.now, into: &leader.effects)
        var onTheWay: [(due: Microseconds, message: Message)] = []
        cluster.isLost = { from, to, message in
            guard from == 1 && to == 0 else { return false }
            onTheWay.append((cluster.now + 2_000_000, message))
            return true
        }
        for step in 0..<seconds * 100 {
            if step < 300 && step % 10 == 0 { cluster.propose(UInt64(step + 1), at: 1) }
            cluster.pass(10_000)
            while let first = onTheWay.first, first.due <= cluster.now {
                onTheWay.removeFirst()
                cluster.deliver(first.message, from: 1, to: 0)
            }
            cluster.settle()
        }
        return cluster
    }

    @Test func whatIsSlowIsNotSentAgain() {
        let cluster = runSlowly(seconds: 8)
        #expect(arrivals(cluster, at: 0).count == 30)
        #expect(arrivals(cluster, at: 0).allSatisfy { $0.value == 1 })
        #expect(cluster.members[1].core.counters.retransmissions == 0)
        #expect(cluster.members[1].core.repetitions(to: 0) == 0)
        #expect(cluster.values(0).count == 30)
        #expect(cluster.members[1].core.view == 1 && cluster.members[1].core.role == .leader)
    }

    @Test func repeatedByTimeItWouldCrowdTheLink() {
        let cluster = runSlowly(seconds: 4, plantedBugs: .resendByTime)
        #expect(arrivals(cluster, at: 0).contains { $0.value > 10 })
    }

    /// Eight answers name one gap, at once and one after the other.
    @Test func aGapIsRepairedOnce() {
        let cluster = TestCluster(3, window: 16)
        cluster.elect(1)
        cluster.isLost = { _, to, message in message.kind == .accept && (to == 2 || message.instance == 1) }
        cluster.propose(1, at: 1)
        cluster.isLost = { _, to, message in message.kind == .accept && to == 2 }
        for value in 2...9 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        #expect(arrivals(cluster, at: 0) == [1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2])
        #expect(cluster.members[1].core.repetitions(to: 0) == 9 && cluster.members[1].core.repetitions(to: 2) == 0)
        #expect(cluster.values(0) == Array(1...9))
        // Old answers, which name the gap once more.
        for _ in 0..<5 {
            cluster.deliver(
                .init(kind: .accepted, flags: .gap, view: 1, instance: 0, bound: 0, commit: 0), from: 0, to: 1)
        }
        cluster.settle()
        #expect(cluster.members[1].core.repetitions(to: 0) == 9)
    }

    /// The repetition is lost too: the follower names the gap in the round of it, when it hears of that.
    @Test func aGapThatStaysIsRepairedAgain() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { _, _, message in message.kind == .accept }
        cluster.propose(1, at: 1)
        cluster.pass(180_000)
        let repeated = cluster.members[1].core.repetitions(to: 0)
        #expect((2...4).contains(repeated), "a heartbeat every 50 ms shows the gap: \(repeated)")
        cluster.isLost = { _, _, _ in false }
        cluster.pass(60_000)
        #expect(cluster.values(0) == [1] && cluster.values(1) == [1])
        #expect(arrivals(cluster, at: 0) == [1: 1])
    }

    @Test func onlySoMuchIsSentAsThereIsRoomFor() {
        let cluster = TestCluster(3, window: 32, slotCount: 256)
        cluster.elect(1)
        cluster.allow(10_000, from: 1, to: 0)
        for value in 1...20 as ClosedRange<UInt64> { cluster.propose(value, at: 1, length: 4_000) }
        cluster.settle()
        // The third goes beyond it.
        #expect(arrivals(cluster, at: 0).keys.sorted() == [1, 2, 3])
        #expect(arrivals(cluster, at: 2).count == 20)
        #expect(cluster.members[1].core.progress(of: 0).sent == 3)
        cluster.allow(0, from: 1, to: 0)
        cluster.pass(200_000)
        #expect(arrivals(cluster, at: 0).count == 3)
        // It misses nothing that was sent to it.
        #expect(!cluster.delivered.contains { $0.from == 0 && $0.message.flags.contains(.gap) })
        #expect(cluster.members[0].core.leader == 1)
        cluster.allow(4_064, from: 1, to: 0)
        cluster.settle()
        #expect(arrivals(cluster, at: 0).keys.sorted() == [1, 2, 3, 4])
        cluster.allow(.max, from: 1, to: 0)
        cluster.settle()
        #expect(arrivals(cluster, at: 0) == Dictionary(uniqueKeysWithValues: (1...20).map { ($0, 1) }))
        #expect(cluster.values(0) == Array(1...20))
    }

    /// A follower comes back with less executed than it had told: it takes only what is near to that, and is sent no
    /// more.
    @Test func whatAFollowerToldBeforeARestartIsForgotten() {
        let cluster = TestCluster(3, window: 2, slotCount: 64)
        cluster.elect(1)
        for value in 1...20 as ClosedRange<UInt64> {
            cluster.propose(value, at: 1)
            cluster.settle()
        }
        cluster.crash(1)
        cluster.elect(2)
        cluster.settle()
        cluster.crash(0)
        cluster.members[0].executed = 2
        cluster.isLost = { _, _, message in message.kind == .decided }
        cluster.start(0)
        cluster.start(1)
        for value in 21...40 as ClosedRange<UInt64> { cluster.propose(value, at: 2) }
        cluster.settle()
        cluster.pass(100_000)
        #expect(cluster.members[2].core.base == 20 && cluster.members[2].core.decided >= 21)
        #expect(arrivals(cluster, at: 0).keys.allSatisfy { $0 <= 20 })
        cluster.isLost = { _, _, _ in false }
        cluster.pass(1_000_000)
        #expect(cluster.values(0, from: 1).suffix(2) == cluster.values(2).suffix(2))
        #expect(cluster.members[2].core.repetitions(to: 0) == 0)
    }

    /// A heartbeat that waits for its driver gives way to a later one, and keeps its place: what was sent between the
    /// two comes after it.
    @Test func aHeartbeatDoesNotSpeakOfWhatGoesOutAfterIt() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.settle()
        let leader = cluster.members[1]
        cluster.allow(0, from: 1, to: 0)
        cluster.propose(1, at: 1)
        // What a driver does that has no time to send: four steps, one buffer.
        cluster.now += 60_000
        leader.core.tick(now: cluster.now, into: &leader.effects)
        leader.core.allow(1_000, patience: nil, to: 0, now: cluster.now, into: &leader.effects)
        cluster.now += 60_000
        leader.core.tick(now: cluster.now, into: &leader.effects)
        let sends = Array(leader.effects.sends).filter { $0.to == 0 }.map(\.message)
        #expect(sends.map(\.kind) == [.heartbeat, .accept])
        #expect(sends.first?.instance == 0 && sends.first?.flags.contains(.quiet) == false)
        cluster.absorb(1)
        cluster.settle()
        #expect(!cluster.delivered.contains { $0.from == 0 && $0.message.flags.contains(.gap) })
        #expect(cluster.values(0) == [1] && leader.core.repetitions(to: 0) == 0)
    }

    // MARK: Followers without room

    @Test func aFollowerWithoutRoomIsWaitedFor() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.members[0].lacksRoom = true
        for value in 1...3 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        #expect((cluster.members[0].core.isFull) == true)
        #expect(cluster.delivered.contains { $0.from == 0 && $0.message.flags.contains(.full) })
        #expect(!cluster.delivered.contains { $0.from == 0 && $0.message.flags.contains(.gap) })
        let before = arrivals(cluster, at: 0)
        cluster.propose(4, at: 1)
        cluster.pass(3_000_000)
        // Refused proposals and heartbeats are the leader's voice, and refusals are answers.
        #expect(arrivals(cluster, at: 0) == before)
        #expect(cluster.members[0].core.counters.elections == 0 && cluster.members[0].core.leader == 1)
        #expect(cluster.members[1].core.role == .leader && cluster.members[1].core.decided == 4)
        cluster.makeRoom(0)
        cluster.settle()
        #expect((cluster.members[0].core.isFull) == false)
        #expect(cluster.values(0) == [1, 2, 3, 4])
        #expect(arrivals(cluster, at: 0) == [1: 2, 2: 2, 3: 2, 4: 1])
    }

    /// The link is made anew before there is room: the leader begins again for that, and not once more when there is.
    @Test func whatIsRepeatedAlreadyIsNoGap() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.members[0].lacksRoom = true
        cluster.propose(1, at: 1)
        cluster.settle()
        cluster.reconnect(0, 1)
        // The heartbeat passes the proposal, and says what went out before it: nothing.
        cluster.inFlight.removeAll { $0.send.to == 0 && $0.send.message.kind == .accept }
        let heartbeat = Message(
            kind: .heartbeat, view: 1, instance: 0, bound: 0, commit: 0,
            acceptedView: cluster.members[1].core.repetitions(to: 0))
        cluster.inFlight.removeAll { $0.send.to == 0 }
        cluster.deliver(heartbeat, from: 1, to: 0)
        cluster.settle()
        let before = cluster.members[1].core.repetitions(to: 0)
        cluster.makeRoom(0)
        cluster.settle()
        #expect(before == 1 && cluster.members[1].core.repetitions(to: 0) == before)
        // The proposal that was lost here after all is found by the next heartbeat.
        cluster.pass(60_000)
        #expect(cluster.values(0) == [1])
    }

    /// A refusal alone is contact: no heartbeat gets through.
    @Test func aRefusedProposalIsTheLeadersVoice() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { _, to, message in to == 0 && message.kind != .accept }
        let follower = cluster.members[0]
        follower.lacksRoom = true
        let before = follower.core.nextDeadline
        cluster.now += 250_000
        cluster.propose(1, at: 1)
        cluster.settle()
        #expect(follower.core.isFull && follower.core.nextDeadline >= cluster.now + follower.configuration.suspect)
        #expect(follower.core.nextDeadline > before)
        // Also in a view that it has not promised yet: the promise counts.
        let other = Message(kind: .accept, view: 2, instance: 1, bound: 0, commit: 0, batch: .noop)
        follower.core.refuse(other, full: true, from: 2, now: cluster.now, into: &follower.effects)
        cluster.absorb(0)
        #expect(follower.core.view == 2 && follower.core.leader == 2)
        // And not of a leader that was superseded.
        let late = Message(kind: .accept, view: 1, instance: 2, bound: 0, commit: 0, batch: .noop)
        follower.core.refuse(late, full: true, from: 1, now: cluster.now, into: &follower.effects)
        let answers = Array(follower.effects.sends)
        #expect(answers.last?.message.kind == .nack)
    }

    /// What is above a missing instance may find no room while that instance would: the gap is named.
    @Test func withoutRoomAboveAGapTheGapIsNamed() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        let follower = cluster.members[0]
        let batch = Batch(offset: 0, length: 8, checksum: 5)
        let above = Message(kind: .accept, view: 1, instance: 3, bound: 0, commit: 0, batch: batch)
        follower.core.refuse(above, full: false, from: 1, now: cluster.now, into: &follower.effects)
        #expect((follower.core.isFull) == false)
        let answers = Array(follower.effects.sends)
        #expect(answers.last?.message.flags == .gap)
    }

    /// Proposals below the leader's floor do not exist any more: to send what lies above helps nobody, before the gap
    /// is filled.
    @Test func aGapBelowTheFloorIsNotFilledByProposals() {
        let cluster = TestCluster(3, window: 8, slotCount: 64)
        cluster.elect(1)
        cluster.isLost = { _, to, _ in to == 0 }
        for value in 1...6 as ClosedRange<UInt64> {
            cluster.propose(value, at: 1)
            cluster.settle()
        }
        let leader = cluster.members[1]
        leader.core.advanceFloor(to: 4, now: cluster.now, into: &leader.effects)
        cluster.isLost = { _, _, message in message.kind == .catchUpRequest }
        cluster.reconnect(0, 1)
        cluster.settle()
        #expect(arrivals(cluster, at: 0) == [:])
        cluster.pass(200_000)
        #expect(arrivals(cluster, at: 0) == [:])
        // It gets what is missing from who has it.
        cluster.isLost = { _, _, _ in false }
        cluster.pass(2_000_000)
        #expect(cluster.values(0) == Array(1...6))
    }
}
