import MPaxosConsensus
import Testing

/// How elections end, or do not.
@Suite struct ElectionTests {
    /// A replica whose log is full of what it has not trimmed cannot adopt what lies above: it lets others try, who
    /// can.
    @Test func aCandidateWithoutSlotsLetsOthersTry() {
        let cluster = TestCluster(5, window: 2, slotCount: 16)
        cluster.elect(1)
        for value in 1...16 as ClosedRange<UInt64> {
            #expect(cluster.propose(value, at: 1) == value)
            cluster.settle()
        }
        cluster.pass(60_000)
        for index in [0, 1, 3, 4] {
            let member = cluster.members[index]
            #expect(member.core.decided == 16)
            member.core.advanceFloor(to: 11, now: cluster.now, into: &member.effects)
        }
        // 17 is accepted by a majority, and nobody knows.
        cluster.isLost = { _, _, message in message.kind == .accepted }
        #expect(cluster.propose(17, at: 1) == 17)
        cluster.settle()
        #expect(cluster.members[0].core.entry(at: 17)?.batch.offset == 17)
        #expect(cluster.members[2].core.end == 17)
        cluster.crash(1)
        cluster.isLost = { _, _, _ in false }
        let candidate = cluster.members[2]
        cluster.now += 700_000
        candidate.core.tick(now: cluster.now, into: &candidate.effects)
        cluster.absorb(2)
        cluster.settle()
        #expect(candidate.core.view == 2)
        #expect(candidate.core.role == .follower)
        #expect(candidate.core.nextDeadline >= cluster.now + 2 * candidate.configuration.suspect)
        cluster.pass(2_000_000)
        let leaders = cluster.members.indices.filter {
            cluster.members[$0].isUp && cluster.members[$0].core.role == .leader
        }
        #expect(leaders.count == 1 && leaders != [2])
        #expect(cluster.values(0, from: 11) == Array(11...17))
        #expect(cluster.violations.isEmpty)
    }

    /// A candidate's own vote that a promise brings once more, in a later view, keeps its bytes;
    /// and both move together.
    @Test func aVoteThatIsAdoptedMovesAsOne() {
        var effects = EffectBuffer()
        var core = Core(
            configuration: Configuration(replica: 2, replicaCount: 3, window: 4, slotCount: 32, seed: 1), promised: 4,
            established: nil, floor: 1, executed: 0)
        let batch = Batch(offset: 64, length: 8, checksum: 5)
        core.restore(instance: 1, view: 1, batch: batch)
        core.start(now: 0, into: &effects)
        let now = core.nextDeadline
        core.tick(now: now, into: &effects)
        let asked = effects.sends.first { $0.message.kind == .preVote }?.message.view ?? 0
        effects.removeAll()
        _ = core.receive(Message(kind: .preVoteGrant, view: asked), from: 0, now: now, into: &effects)
        core.durable(core.newestRecord, now: now, into: &effects)
        #expect(core.role == .candidate && core.view == asked)
        let promise = Message(kind: .promise, view: asked, instance: 1, acceptedView: 3, batch: batch)
        #expect(core.wants(promise, from: 0) && core.receive(promise, from: 0, now: now, into: &effects))
        let moved = Batch(offset: 512, length: 8, checksum: 5)
        core.moved(1, to: moved)
        #expect(core.isReferenced(instance: 1, offset: 512) && !core.isReferenced(instance: 1, offset: 64))
    }

    /// A candidate that gets on keeps others waiting; one that repeats itself does not.
    @Test func onlyACandidateThatGetsOnKeepsOthersWaiting() {
        let cluster = TestCluster(3)
        let voter = cluster.members[0]
        func prepare(after: Instance) -> Microseconds {
            cluster.now += 50_000
            cluster.deliver(Message(kind: .prepare, view: 4, instance: after), from: 1, to: 0)
            return voter.core.nextDeadline
        }
        let first = prepare(after: 0)
        #expect(first >= cluster.now + voter.configuration.suspect)
        #expect(prepare(after: 0) == first)
        #expect(prepare(after: 0) == first)
        #expect(prepare(after: 5) >= cluster.now + voter.configuration.suspect)
        let last = voter.core.nextDeadline
        #expect(prepare(after: 5) == last)
    }

    /// Large batches come one at a time: the election takes far longer than the timeouts, and is not overtaken.
    /// (Simulator, seed 23227 of three replicas: the same election began anew for ever.)
    @Test func anElectionLastsAsLongAsItGetsOn() {
        let cluster = TestCluster(5, window: 16, slotCount: 128)
        cluster.elect(1)
        cluster.isLost = { _, to, message in message.kind == .accepted || to == 2 || to == 4 }
        for value in 1...16 as ClosedRange<UInt64> {
            #expect(cluster.propose(value, at: 1, length: 1 << 20) == value)
            cluster.settle()
        }
        cluster.crash(1)
        cluster.crash(4)
        cluster.isLost = { _, _, _ in false }
        let (voter, candidate) = (cluster.members[0], cluster.members[2])
        cluster.now += 700_000
        candidate.core.tick(now: cluster.now, into: &candidate.effects)
        cluster.absorb(2)
        let start = cluster.now
        for _ in 0..<60 where candidate.core.role != .leader {
            cluster.now += 60_000
            let arriving = cluster.inFlight
            cluster.inFlight = []
            for (from, send) in arriving where cluster.members[send.to].isUp {
                cluster.deliver(send.message, from: from, to: send.to)
            }
            // Timers run from the first promise on.
            for index in [0, 2, 3] where voter.core.view > 1 && cluster.members[index].core.nextDeadline <= cluster.now
            {
                cluster.members[index].core.tick(now: cluster.now, into: &cluster.members[index].effects)
                cluster.absorb(index)
            }
        }
        #expect(candidate.core.role == .leader)
        #expect(candidate.core.view == 2)
        #expect(cluster.now - start > 4 * voter.configuration.suspect)
        #expect(voter.core.counters.elections == 0)
        #expect(candidate.core.entry(at: 16)?.batch.offset == 16)
    }

    /// A leader may hold decided values above an undecided one. Once that is decided, the commit index covers all of
    /// them: else a follower would not know that it lacks what the leader trims. (Simulator, seed 91736 of three
    /// replicas.)
    @Test func whatALeaderKnowsAsDecidedItTells() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.isLost = { _, _, _ in true }
        cluster.crash(1)
        let leader = cluster.members[1]
        for value in 1...5 as ClosedRange<UInt64> {
            let batch = Batch(offset: value, length: 8, checksum: UInt32(value))
            leader.slots[value] = (value == 1 ? 1 : decidedView, batch)
        }
        cluster.start(1)
        #expect(leader.core.role == .leader)
        #expect(leader.core.commit == 0)
        cluster.deliver(Message(kind: .accepted, view: 1, instance: 1, bound: 0, commit: 0), from: 0, to: 1)
        #expect(leader.core.decided == 5)
        #expect(leader.core.commit == 5)
        #expect(cluster.violations.isEmpty)
    }
}
