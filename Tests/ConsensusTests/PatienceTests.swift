import MPaxosConsensus
import Testing

/// How long a replica waits for what may only be slow.
@Suite struct PatienceTests {
    private static let suspect: Microseconds = 300_000

    /// Replica 0 asks again and again to be elected, and gets grants but no promise. Returns the time between its
    /// elections.
    /// - Parameter talker: pieces of something large come from this replica all the time.
    private func pauses(_ cluster: TestCluster, count: Int, talker: ReplicaIndex? = nil) -> [Microseconds] {
        let candidate = cluster.members[0]
        var (pauses, elections) = ([Microseconds](), candidate.core.counters.elections)
        var last = cluster.now
        for _ in 0..<200_000 where pauses.count < count {
            cluster.now += 5_000
            if let talker { candidate.core.hears(talker, now: cluster.now) }
            candidate.core.tick(now: cluster.now, into: &candidate.effects)
            cluster.absorb(0)
            cluster.settle()
            if candidate.core.counters.elections > elections {
                elections = candidate.core.counters.elections
                pauses.append(cluster.now - last)
                last = cluster.now
            }
        }
        return pauses
    }

    @Test func electionsBackOff() {
        let cluster = TestCluster(3)
        cluster.isLost = { _, _, message in message.kind == .promise }
        let pauses = pauses(cluster, count: 9)
        #expect(pauses.count == 9)
        for (failed, pause) in pauses.dropFirst().enumerated() {
            let least = Self.suspect << min(UInt64(failed), 4)
            #expect(pause >= least && pause <= 2 * least + 10_000, "after \(failed) elections: \(pause)")
        }
    }

    @Test func withoutBackOffTheyDoNot() {
        let cluster = TestCluster(3, plantedBugs: .noBackOff)
        cluster.isLost = { _, _, message in message.kind == .promise }
        #expect(pauses(cluster, count: 9).dropFirst().allSatisfy { $0 <= 2 * Self.suspect + 10_000 })
    }

    /// A pre-vote that nobody grants is no election that failed: who was cut off is not slower for it when it is back.
    @Test func refusedPreVotesDoNotCount() {
        let cluster = TestCluster(3)
        cluster.isLost = { _, _, message in message.kind == .preVoteGrant }
        #expect(pauses(cluster, count: 6).dropFirst().allSatisfy { $0 <= 2 * Self.suspect + 10_000 })
    }

    /// Pieces of an answer prolong an election; not those of who has answered, whatever it sends.
    @Test func whoHasPromisedProlongsNothing() {
        let cluster = TestCluster(5)
        cluster.isLost = { from, _, message in message.kind == .promise && from != 1 }
        let pauses = pauses(cluster, count: 3, talker: 1)
        #expect(pauses.count == 3 && pauses.dropFirst().allSatisfy { $0 <= 4 * Self.suspect + 20_000 }, "\(pauses)")
    }

    @Test func aLeaderEndsTheBackOff() {
        let cluster = TestCluster(3)
        cluster.isLost = { _, _, message in message.kind == .promise }
        let last = pauses(cluster, count: 6).last ?? 0
        #expect(last >= 8 * Self.suspect)
        let candidate = cluster.members[0]
        let view = candidate.core.view + 1
        cluster.deliver(
            Message(kind: .heartbeat, view: view, instance: 0, bound: 0, commit: 0), from: Int(view % 3), to: 0)
        #expect(candidate.core.leader == Int(view % 3))
        #expect(candidate.core.nextDeadline <= cluster.now + 2 * Self.suspect)
        // The first election after it is as quick as the first of all.
        #expect(pauses(cluster, count: 2)[1] <= 2 * Self.suspect + 10_000)
    }

    /// Far away a heartbeat that TCP has to send again is late by a round trip and more: a leader there is given six;
    /// but no way is so long that it excuses everything.
    @Test(
        arguments: [(0, 300_000), (50_000, 300_000), (300_000, 1_800_000), (5_000_000, 2_400_000)]
            as [(Microseconds, Microseconds)])
    func aLeaderFarAwayIsSuspectedLater(distance: Microseconds, expected: Microseconds) {
        let cluster = TestCluster(3)
        let follower = cluster.members[0]
        cluster.allow(.max, distance: distance, from: 0, to: 2)
        cluster.deliver(Message(kind: .heartbeat, view: 2, instance: 0, bound: 0, commit: 0), from: 2, to: 0)
        let heard = cluster.now
        func hasGranted() -> Bool { cluster.inFlight.contains { $0.send.message.kind == .preVoteGrant } }
        #expect((heard + expected..<heard + 2 * expected).contains(follower.core.nextDeadline))
        // Nor does it grant anybody else a view while it may still hear from its leader.
        cluster.now = heard + expected - 1
        cluster.deliver(Message(kind: .preVote, view: 4, commit: 0), from: 1, to: 0)
        #expect(!hasGranted())
        cluster.now = heard + expected
        cluster.deliver(Message(kind: .preVote, view: 4, commit: 0), from: 1, to: 0)
        #expect(hasGranted())
    }

    /// Slow storage is no reason to begin anew: others hear of the election only when the promise is durable.
    @Test func theTimeOfAnElectionBeginsWithTheDurablePromise() {
        let cluster = TestCluster(3)
        let candidate = cluster.members[0]
        candidate.isHeld = true
        _ = pauses(cluster, count: 1)
        #expect(candidate.core.view == 3 && candidate.core.role == .candidate)
        let began = cluster.now
        #expect(candidate.core.nextDeadline == began + 4 * Self.suspect)
        for _ in 0..<200 {
            cluster.now += 5_000
            candidate.core.tick(now: cluster.now, into: &candidate.effects)
            cluster.absorb(0)
        }
        #expect(candidate.core.counters.elections == 1 && candidate.core.view == 3)
        #expect(!cluster.delivered.contains { $0.message.kind == .prepare })
        // What it asks is still on the way when the time would be over that began with the question.
        candidate.isHeld = false
        cluster.flush(0)
        cluster.absorb(0)
        #expect(candidate.core.counters.elections == 1)
        #expect(cluster.inFlight.allSatisfy { $0.send.message.kind == .prepare } && cluster.inFlight.count == 2)
        cluster.now += 200_000
        cluster.settle()
        #expect(candidate.core.role == .leader && candidate.core.view == 3)
        #expect(cluster.now > began + 2 * Self.suspect)
    }

    /// Storage that is slower than any election may be: others are let try.
    @Test func aPromiseThatIsNotDurableInTimeEndsTheElection() {
        let cluster = TestCluster(3)
        let candidate = cluster.members[0]
        candidate.isHeld = true
        _ = pauses(cluster, count: 1)
        func tick(after delay: Microseconds) {
            cluster.now += delay
            candidate.core.tick(now: cluster.now, into: &candidate.effects)
            cluster.absorb(0)
        }
        tick(after: 4 * Self.suspect - 1)
        #expect(candidate.core.role == .candidate)
        tick(after: 1)
        #expect(candidate.core.role == .follower && candidate.core.view == 3)
        #expect(candidate.core.nextDeadline >= cluster.now + 2 * Self.suspect)
        #expect(!cluster.delivered.contains { $0.message.kind == .prepare })
    }

    /// Two who overtake each other have both failed: each next election waits longer. (Simulator, seed 1100 of three
    /// replicas: with slow storage, each election was overtaken before its promises were durable, for ever.)
    @Test func anElectionThatIsOvertakenHasFailed() {
        let cluster = TestCluster(3)
        cluster.isLost = { _, _, message in message.kind == .promise }
        let candidate = cluster.members[0]
        var least: [Microseconds] = []
        for _ in 0..<6 {
            _ = pauses(cluster, count: 1)
            #expect(candidate.core.role == .candidate)
            // Replica 1 has got further.
            let view = candidate.core.view + 1
            cluster.deliver(Message(kind: .nack, view: view), from: 1, to: 0)
            #expect(candidate.core.role == .follower && candidate.core.view == view)
            least.append(candidate.core.nextDeadline - cluster.now)
        }
        for (failed, pause) in least.enumerated() {
            #expect(pause >= Self.suspect << min(UInt64(failed) + 1, 4), "after \(failed + 1): \(pause)")
        }
    }

    /// An answer that waits for its promise leaves once, however often it is asked for meanwhile: it may carry much.
    @Test func anAnswerThatWaitsIsNotRepeated() {
        let cluster = TestCluster(5)
        cluster.elect(1)
        cluster.isLost = { _, _, message in message.kind == .accepted }
        for value in 1...3 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.settle()
        let voter = cluster.members[0]
        voter.isHeld = true
        for _ in 0..<5 {
            cluster.now += 50_000
            cluster.deliver(Message(kind: .prepare, view: 2, instance: 0), from: 2, to: 0)
        }
        func promises() -> Int { cluster.inFlight.filter { $0.from == 0 && $0.send.message.kind == .promise }.count }
        #expect(promises() == 0 && voter.waiting.filter { $0.message.kind == .promise }.count == 4)
        voter.isHeld = false
        cluster.flush(0)
        cluster.absorb(0)
        #expect(promises() == 4)
        // What has left may be lost.
        cluster.deliver(Message(kind: .prepare, view: 2, instance: 0), from: 2, to: 0)
        #expect(promises() == 8)
    }

    /// As long as parts of an answer come, the rest is not asked for.
    @Test func anAnswerThatComesInPartsIsNotAskedForAgain() {
        let cluster = TestCluster(5)
        let candidate = cluster.members[0]
        cluster.isLost = { _, _, message in message.kind == .promise }
        _ = pauses(cluster, count: 1)
        let view = candidate.core.view
        func prepares() -> Int {
            cluster.delivered.filter { $0.from == 0 && $0.message.kind == .prepare && $0.message.view == view }.count
        }
        let first = prepares()
        #expect(candidate.core.role == .candidate && first == 4)
        for instance in 1...8 as ClosedRange<Instance> {
            cluster.now += candidate.configuration.retransmit - 1_000
            let batch = Batch(offset: instance, length: 8, checksum: UInt32(instance))
            cluster.deliver(
                Message(
                    kind: .promise, view: view, instance: instance, bound: instance - 1, acceptedView: 1, batch: batch),
                from: 1, to: 0)
            candidate.core.tick(now: cluster.now, into: &candidate.effects)
            cluster.absorb(0)
            cluster.settle()
        }
        #expect(prepares() == first)
        cluster.now += candidate.configuration.retransmit + 1_000
        candidate.core.tick(now: cluster.now, into: &candidate.effects)
        cluster.absorb(0)
        cluster.settle()
        #expect(prepares() == 2 * first)
    }

    // MARK: Catch-up

    /// A cluster of three whose replica 0 lacks what was decided before view 2, of which 2 is the leader.
    private func clusterWithALaggard() -> TestCluster {
        let cluster = TestCluster(3, window: 8, slotCount: 512)
        cluster.elect(1)
        cluster.crash(0)
        for value in 1...40 as ClosedRange<UInt64> {
            cluster.propose(value, at: 1)
            cluster.settle()
        }
        cluster.isLost = { from, to, _ in from == 1 || to == 1 }
        cluster.start(0)
        cluster.elect(2)
        cluster.isLost = { _, _, _ in false }
        return cluster
    }

    private func requests(_ cluster: TestCluster) -> [(to: ReplicaIndex, from: Instance)] {
        cluster.inFlight.filter { $0.from == 0 && $0.send.message.kind == .catchUpRequest }
            .map { ($0.send.to, $0.send.message.instance) }
    }

    /// The first that was asked answers after another was asked too: its answer is taken, and the next part asked for.
    @Test func catchUpTakesASlowFirstAnswer() throws {
        let cluster = clusterWithALaggard()
        let laggard = cluster.members[0]
        func tick(after delay: Microseconds) {
            cluster.now += delay
            laggard.core.tick(now: cluster.now, into: &laggard.effects)
            cluster.absorb(0)
        }
        tick(after: 1_000)
        let first = try #require(requests(cluster).first)
        #expect(first.to == 2 && first.from == 1)
        tick(after: laggard.configuration.retransmit + 1_000)
        #expect(requests(cluster).map(\.to) == [2, 1] && requests(cluster).map(\.from) == [1, 1])
        cluster.inFlight = []
        for instance in 1...32 as ClosedRange<Instance> {
            let batch = Batch(offset: instance, length: 8, checksum: UInt32(instance))
            let message = Message(
                kind: .decided, flags: instance == 32 ? .last : .none, view: 2, instance: instance, commit: 40,
                batch: batch)
            #expect(cluster.deliver(message, from: 2, to: 0))
        }
        #expect(laggard.core.decided == 32)
        #expect(requests(cluster).map(\.to) == [2] && requests(cluster).map(\.from) == [33])
    }

    /// Pieces of an answer are signs of it: nobody else is asked as long as they come.
    @Test func piecesOfAnAnswerAreWaitedFor() {
        let cluster = clusterWithALaggard()
        let laggard = cluster.members[0]
        func tick(after delay: Microseconds) {
            cluster.now += delay
            laggard.core.tick(now: cluster.now, into: &laggard.effects)
            cluster.absorb(0)
        }
        tick(after: 1_000)
        #expect(requests(cluster).map(\.to) == [2])
        for _ in 0..<20 {
            laggard.core.hears(2, now: cluster.now)
            tick(after: laggard.configuration.retransmit - 1_000)
        }
        #expect(requests(cluster).map(\.to) == [2])
        tick(after: 2_000)
        #expect(requests(cluster).map(\.to) == [2, 1])
    }

    /// How long an answer may take is what the link's round trips say; but a link that was held up for long is not
    /// waited for as long.
    @Test(arguments: [(900_000, 900_000), (20_000_000, 1_200_000)] as [(Microseconds, Microseconds)])
    func catchUpWaitsAsLongAsTheLinkTakes(patience: Microseconds, expected: Microseconds) {
        let cluster = clusterWithALaggard()
        let laggard = cluster.members[0]
        cluster.allow(.max, patience: patience, from: 0, to: 2)
        func tick(after delay: Microseconds) {
            cluster.now += delay
            // The leader is heard.
            cluster.deliver(Message(kind: .heartbeat, view: 2, instance: 40, bound: 40, commit: 40), from: 2, to: 0)
            laggard.core.tick(now: cluster.now, into: &laggard.effects)
            cluster.absorb(0)
        }
        tick(after: 1_000)
        #expect(requests(cluster).map(\.to) == [2])
        let asked = cluster.now
        while cluster.now < asked + expected - 50_000 { tick(after: 50_000) }
        #expect(requests(cluster).map(\.to) == [2])
        tick(after: 60_000)
        #expect(requests(cluster).map(\.to) == [2, 1])
    }

    /// With the link what was asked on it is lost too.
    @Test func aNewLinkIsAskedAgain() {
        let cluster = clusterWithALaggard()
        let laggard = cluster.members[0]
        cluster.allow(.max, patience: 900_000, from: 0, to: 2)
        cluster.now += 1_000
        laggard.core.tick(now: cluster.now, into: &laggard.effects)
        cluster.absorb(0)
        #expect(requests(cluster).map(\.to) == [2])
        cluster.reconnect(0, 2)
        #expect(requests(cluster).isEmpty)
        #expect(laggard.core.nextDeadline <= cluster.now)
        laggard.core.tick(now: cluster.now, into: &laggard.effects)
        cluster.absorb(0)
        #expect(requests(cluster).map(\.from) == [1])
    }
}
