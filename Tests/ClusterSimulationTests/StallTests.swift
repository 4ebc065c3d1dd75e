import MPaxosConsensus
import MPaxosSimulation
import MPaxosStorage
import Testing

@testable import MPaxosClusterSimulation

/// What once stood still for ever, though a majority was up.
@Suite struct StallTests {
    /// Three replicas on links without faults, whose logs hold `batches` of the largest requests, and whose window is
    /// no bound; as many clients, which ask replica 1, the first leader.
    private func cluster(
        seed: UInt64, batches: Int, clients: Int, shape: ClusterPlan.Shape? = nil, slots: Int = 1024
    ) -> ClusterSimulator {
        ClusterSimulator(seed: seed, options: ClusterOptions(replicaCount: 3)) { plan in
            plan.shape = shape ?? plan.shape
            plan.largestValue = 8_000
            plan.maxRequest = 8_256
            plan.isHeavy = true
            plan.batchBytes = 256
            plan.batchDelay = 0
            plan.window = slots / 16
            plan.maxOutstanding = 128
            plan.budget = 256
            plan.rings = .init()
            plan.geometry = AcceptorGeometry(slots: slots, arenaSize: 8_320 * batches)
            plan.journalSize = 64 << 10
            plan.stateSize = 4 << 20
            plan.clients = clients
            plan.clientLoss = 0
            plan.thinkTime = 100
            plan.suspect = 100_000
            plan.patience = 400_000
            plan.isWild = false
            plan.interval = 0
            plan.strangers = 0
            plan.damage = 0
            plan.driftTime = 0
            plan.isFounded = true
            plan.delay = 100
            plan.jitter = 50
            plan.fence = 2
            plan.earlyCrash = 0
        }
    }

    /// A leader whose state's storage is stuck for good, and the log's is not, decides until its log is full of what it
    /// has not executed: out of bytes, or out of slots. Another must lead then.
    @Test(arguments: [(batches: 40, slots: 1024), (batches: 400, slots: 64)])
    func aLeaderThatExecutesNothing(batches: Int, slots: Int) throws {
        let cluster = cluster(seed: 1, batches: batches, clients: 8, shape: .executorApart, slots: slots)
        for host in cluster.hosts { try cluster.start(host) }
        cluster.isFaulty = false
        for client in cluster.clients { cluster.schedule(client, after: 100) }
        try cluster.run(until: 2_000_000, orWhen: { cluster.clients.allSatisfy { $0.completed > 2 } })
        let leader = try #require(cluster.hosts.first { $0.isLeader })
        leader.lanes[leader.executorLane].stuckUntil = .max / 2
        try cluster.converge(cluster.hosts.filter { $0 !== leader })
        // As long as the log has room the leader stays.
        let executed = try #require(leader.life?.stages.progress.executed)
        try cluster.run(
            until: cluster.now + 200_000_000,
            orWhen: { cluster.hosts.contains { $0 !== leader && $0.isLeader } })
        #expect(cluster.hosts.contains { $0 !== leader && $0.isLeader })
        #expect(leader.life?.stages.progress.executed == executed)
        try cluster.converge(cluster.hosts.filter { $0 !== leader })
        leader.lanes[leader.executorLane].stuckUntil = 0
        cluster.schedule(leader, leader.executorLane, at: cluster.now + 1)
        try cluster.converge(cluster.hosts)
    }

    /// A leader that lost its followers votes for as much as its log holds, and dies. The others decide something else,
    /// little enough to be still in their logs, and it comes back; then one of the two dies.
    @Test(arguments: 2...4 as ClosedRange<UInt64>) func aLogFullOfUndecidedVotes(seed: UInt64) throws {
        let cluster = cluster(seed: seed, batches: 16, clients: 40)
        for host in cluster.hosts { try cluster.start(host) }
        try cluster.run(until: 300_000)
        let leader = try #require(cluster.hosts.first { $0.isLeader })
        let others = cluster.hosts.filter { $0 !== leader }
        for client in cluster.clients {
            client.host = leader.index
            cluster.schedule(client, after: 100)
        }
        // All have their sessions.
        try cluster.run(until: 1_000_000, orWhen: { cluster.clients.allSatisfy { $0.completed > 0 } })
        for other in others {
            other.isAway = true
            try cluster.crash(other)
        }
        try cluster.run(until: cluster.now + 50_000)
        leader.isAway = true
        try cluster.crash(leader)
        for client in cluster.clients { client.isResting = true }
        for other in others {
            other.isAway = false
            try cluster.start(other)
        }
        try cluster.run(until: cluster.now + 2_000_000, orWhen: { others.contains { $0.isLeader } })
        // Few of the clients go on: what is decided now stays in the logs.
        let mark = cluster.checker.highestDecided
        for client in cluster.clients.prefix(2) {
            client.host = others[0].index
            client.isResting = false
            cluster.schedule(client, after: 100)
        }
        try cluster.run(until: cluster.now + 2_000_000, orWhen: { cluster.checker.highestDecided >= mark + 4 })
        for client in cluster.clients { client.isResting = true }
        leader.isAway = false
        try cluster.start(leader)
        try cluster.run(until: cluster.now + 300_000)
        others[0].isAway = true
        try cluster.crash(others[0])
        cluster.isFaulty = false
        for client in cluster.clients.prefix(2) {
            client.isResting = false
            cluster.schedule(client, after: 100)
        }
        try cluster.converge([leader, others[1]])
    }
}
