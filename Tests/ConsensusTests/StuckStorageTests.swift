import MPaxosConsensus
import Testing

/// Replicas whose storage takes records and never says that they are durable.
@Suite struct StuckStorageTests {
    /// Replica 1 leads, its storage gets stuck with a proposal on the way, and ten seconds pass.
    private func clusterWithStuckLeader(_ count: Int, plantedBugs: PlantedBugs = []) -> TestCluster {
        let cluster = TestCluster(count, plantedBugs: plantedBugs)
        cluster.elect(1)
        cluster.propose(1, at: 1)
        cluster.settle()
        cluster.pass(60_000)
        cluster.members[1].isHeld = true
        cluster.propose(2, at: 1)
        cluster.pass(10_000_000)
        return cluster
    }

    private func leaderships(_ cluster: TestCluster) -> UInt64 {
        cluster.members.filter(\.isUp).reduce(0) { $0 + $1.core.counters.leaderships }
    }

    @Test(arguments: [3, 4, 5])
    func anotherReplicaLeads(count: Int) throws {
        let cluster = clusterWithStuckLeader(count)
        let leader = try #require(cluster.members.firstIndex { $0.core.role == .leader })
        #expect(leader != 1 && leaderships(cluster) == 2)
        let instance = try #require(cluster.propose(3, at: leader))
        cluster.settle()
        #expect(cluster.members[leader].core.decided == instance)
        // Who is stuck promised the new view to itself only; when its storage goes on, it follows.
        #expect(cluster.members[1].core.leader == leader && cluster.members[1].core.decided == 1)
        cluster.members[1].isHeld = false
        cluster.flush(1)
        cluster.absorb(1)
        cluster.pass(200_000)
        #expect(cluster.values(1).last == 3 && cluster.values(1).first == 1)
        #expect(leaderships(cluster) == 2)
        #expect(cluster.violations.isEmpty)
    }

    /// The same with the planted bug: the leader stays, and nothing is decided.
    @Test func unnoticedItStaysTheLeader() {
        let cluster = clusterWithStuckLeader(3, plantedBugs: .stuckStorageUnnoticed)
        #expect(cluster.members[1].core.role == .leader && leaderships(cluster) == 1)
        #expect(cluster.members.allSatisfy { $0.core.decided == 1 })
    }

    /// Nobody can decide without it: it is no use to step down.
    @Test(arguments: [1, 2])
    func aLeaderThatCannotBeReplacedStays(count: Int) {
        let cluster = TestCluster(count)
        let leader = count - 1
        cluster.elect(leader)
        cluster.members[leader].isHeld = true
        cluster.propose(1, at: leader)
        cluster.pass(5_000_000)
        #expect(cluster.members[leader].core.role == .leader)
        cluster.members[leader].isHeld = false
        cluster.flush(leader)
        cluster.absorb(leader)
        cluster.pass(100_000)
        #expect(cluster.members.allSatisfy { $0.core.decided == 1 })
    }

    /// Slow is not stuck: what is durable late, but again and again, deposes nobody.
    @Test func aSlowLeaderStays() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.members[1].isHeld = true
        for value in 1...12 as ClosedRange<UInt64> {
            cluster.propose(value, at: 1)
            cluster.pass(400_000)
            cluster.flush(1)
            cluster.absorb(1)
            cluster.settle()
        }
        #expect(leaderships(cluster) == 1)
        #expect(cluster.members[1].core.decided == 12)
    }

    /// The leader is gone, and one of the others cannot keep its promises: each further view of it would refuse whom
    /// the others elect.
    @Test(arguments: [false, true])
    func aStuckCandidateGivesUp(isUnnoticed: Bool) {
        let cluster = TestCluster(5, plantedBugs: isUnnoticed ? .stuckStorageUnnoticed : [])
        cluster.elect(1)
        cluster.members[2].isHeld = true
        cluster.crash(1)
        let stuck = cluster.members[2]
        func waitForIt() {
            // The others' timers stand still.
            for _ in 0..<40 {
                cluster.now += 100_000
                if stuck.core.nextDeadline <= cluster.now { stuck.core.tick(now: cluster.now, into: &stuck.effects) }
                cluster.absorb(2)
                cluster.settle()
            }
        }
        waitForIt()
        let view = stuck.core.view
        #expect(view > 1)
        waitForIt()
        #expect((stuck.core.view > view) == isUnnoticed)
        #expect((stuck.core.role == .candidate) == isUnnoticed)
        cluster.pass(3_000_000)
        let leader = cluster.members.firstIndex { $0.isUp && $0.core.role == .leader }
        #expect(leader != nil && leader != 2)
        #expect(cluster.violations.isEmpty)
    }

    /// What waits for its record is not lost: it waits once, however long that takes.
    @Test func proposalsThatWaitAreNotRepeated() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.members[1].isHeld = true
        for value in 1...4 as ClosedRange<UInt64> { cluster.propose(value, at: 1) }
        cluster.pass(800_000)
        #expect(cluster.members[1].core.role == .leader)
        #expect(cluster.members[1].waiting.count == 8)
        #expect(cluster.members[1].core.counters.retransmissions == 0)
    }
}
