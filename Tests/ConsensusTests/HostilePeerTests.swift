import MPaxosConsensus
import Testing

/// Whatever a peer says, no core stops for it, and none is spent by it.
///
/// `MPAXOS_SEED`, `MPAXOS_FUZZ_ROUNDS` and `MPAXOS_FUZZ_TRACE` are as with the decoders: the last message printed is
/// the one that a core stopped for.
@Suite struct HostilePeerTests {
    private func clusters(_ count: Int, rounds: Int, _ body: (UInt64) throws -> Void) rethrows {
        print("hostile peers of \(count): MPAXOS_SEED=\(Fuzz.seed)")
        for round in 0..<Fuzz.rounds(rounds) { try body(Fuzz.seed &+ UInt64(round)) }
    }

    @Test(arguments: [2, 3, 4, 5, 9])
    func anything(count: Int) throws {
        var (hostile, refused) = (0, 0)
        try clusters(count, rounds: 150) { seed in
            if Fuzz.traces { print("seed \(seed)") }
            let run = HostileCluster(count, seed: seed)
            for _ in 0..<1000 { try run.step() }
            hostile += run.hostile
            refused += Int(run.refused)
        }
        print("of \(hostile) messages \(refused) were refused")
        #expect(refused > hostile / 20 && refused < hostile)
    }

    /// What was put on record by lies spends nothing for good.
    @Test(arguments: [2, 3, 5])
    func usableAfterRestart(count: Int) throws {
        try clusters(count, rounds: 100) { seed in
            let run = HostileCluster(count, seed: seed, isTrimming: false)
            do {
                for _ in 0..<300 { try run.step() }
                try run.recover()
            } catch {
                throw Violation(description: "\(error), MPAXOS_SEED=\(seed)")
            }
        }
    }

    /// A view that nobody can have come to is refused, and moves the promise by a part that is nothing of all views.
    @Test func viewsAreNotSpent() {
        let cluster = TestCluster(3)
        let member = cluster.members[0]
        let absurd: [View] = [1 << 62 - 2, 1 << 61, mostViewsAtOnce * 3 + 2]
        for (number, view) in absurd.enumerated() {
            let refused = member.core.counters.refused
            cluster.deliver(Message(kind: .nack, view: view), from: 2, to: 0)
            #expect(member.core.counters.refused == refused + 1)
            #expect(member.core.view == UInt64(number + 1) * mostViewsAtOnce)
        }
        cluster.deliver(Message(kind: .nack, view: member.core.view + mostViewsAtOnce), from: 2, to: 0)
        #expect(member.core.view == 4 * mostViewsAtOnce)
        // A pre-vote promises nothing, so it is answered whatever it says.
        let before = cluster.inFlight.count
        cluster.deliver(Message(kind: .preVote, view: 3 << 60 + 2), from: 2, to: 0)
        #expect(member.core.view == 4 * mostViewsAtOnce && cluster.inFlight.count == before + 1)
        // They go on as ever.
        cluster.inFlight.removeAll()
        cluster.pass(5_000_000)
        #expect(cluster.members.contains { $0.core.isFollowed })
    }

    /// One that was away for more views than a message moves it gets there all the same: to follow, and to vote where
    /// it is needed for a majority.
    @Test func awayForManyViews() throws {
        let cluster = TestCluster(3)
        cluster.crash(0)
        for index in [1, 2] {
            cluster.crash(index)
            cluster.members[index].promised = 1 << 20
        }
        cluster.start(1)
        cluster.start(0)
        // Only replicas 0 and 1: the vote of the one that was away is needed.
        cluster.pass(20_000_000)
        let leader = try #require(cluster.members.firstIndex { $0.isUp && $0.core.isFollowed })
        #expect(cluster.members[0].core.view > 1 << 20)
        let instance = try #require(cluster.propose(7, at: leader))
        cluster.pass(1_000_000)
        #expect(cluster.members[0].core.decided >= instance && cluster.members[1].core.decided >= instance)
    }

    /// What is said to be missing, and is not, is missed no longer than the link to who said so stands.
    @Test func aFloorThatIsNone() {
        let cluster = TestCluster(3)
        cluster.elect(1)
        cluster.propose(7, at: 1)
        cluster.pass(100_000)
        for index in [0, 1] {
            let message = Message(kind: .belowFloor, view: cluster.members[index].core.view, instance: 9, commit: 12)
            cluster.deliver(message, from: 2, to: index)
            #expect(cluster.members[index].core.needsStateTransfer && cluster.members[index].core.known == 12)
        }
        cluster.pass(1_000_000)
        #expect((cluster.members[0].core.needsStateTransfer) == true, "none of the others has what is missing")
        for index in [0, 1] { cluster.reconnect(index, 2) }
        cluster.pass(100_000)
        #expect(cluster.members.allSatisfy { $0.core.known == 1 && !$0.core.needsStateTransfer })
    }

    /// A base that nobody can have decided gets onto the record of a leader, by one promise that is wrong, and its word
    /// to the others. With the next views it is gone from all.
    @Test(arguments: [false, true])
    func absurdBase(isRestarted: Bool) throws {
        let cluster = TestCluster(3)
        let member = cluster.members[0]
        cluster.isLost = { _, to, message in to == 2 || message.kind == .promise }
        for _ in 0..<200 where member.core.role != .candidate || member.core.view == 0 { cluster.pass(5_000) }
        cluster.deliver(
            Message(kind: .promise, flags: .last, view: member.core.view, commit: 1 << 60), from: 2, to: 0)
        cluster.settle()
        try #require(member.core.role == .leader && member.established?.base == 1 << 60)
        #expect(cluster.members[1].core.known == 1 << 60)
        cluster.isLost = { _, _, _ in false }
        if isRestarted {
            for index in 0..<3 { cluster.crash(index) }
            for index in 0..<3 { cluster.start(index) }
        }
        cluster.pass(10_000_000)
        let leader = try #require(cluster.members.firstIndex { $0.core.isFollowed })
        cluster.propose(7, at: leader)
        cluster.pass(1_000_000)
        #expect(cluster.members.allSatisfy { $0.core.decided == 1 && $0.core.known == 1 })
        #expect(cluster.violations.isEmpty)
    }
}
