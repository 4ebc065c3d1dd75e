import MPaxosClusterSimulation
import MPaxosConsensus
import MPaxosFrames
import MPaxosWire
import Testing

@testable import MPaxosLinks

/// Links between whole replicas, in virtual time: how they come about, are refused, end and come back.
@Suite struct LinkTests {
    private static let stormy = Weather(lost: 150, repeated: 150, shortest: 50, longest: 30_000)

    @Test(arguments: [2, 3, 5, 9]) func aClusterIsFounded(count: Int) {
        let cluster = LinkCluster(of: count)
        cluster.startAll()
        #expect(cluster.run(for: 2_000_000) { cluster.isFounded })
        #expect(cluster.areLinked(Array(0..<count)))
        for case let replica? in cluster.replicas { #expect(replica.log.errors.isEmpty && replica.expelled == nil) }
    }

    /// Frames are lost, come twice, and overtake each other; connections break; replicas are started again.
    @Test(arguments: 1...30 as ClosedRange<UInt64>) func aClusterIsFoundedInBadWeather(seed: UInt64) {
        let cluster = LinkCluster(of: seed % 2 == 0 ? 3 : 5, seed: seed)
        cluster.weather = Self.stormy
        cluster.startAll()
        for _ in 0..<20 {
            let (first, second) = (Int(cluster.number() % UInt64(cluster.count)), Int(cluster.number() % 3))
            cluster.run(for: cluster.number() % 200_000)
            cluster.connections.cut(first, second)
            if cluster.number() % 4 == 0 { cluster.start(first, from: cluster.stop(first)) }
        }
        #expect(cluster.run(for: 20_000_000) { cluster.isFounded && cluster.areLinked(Array(0..<cluster.count)) })
        cluster.weather = Weather()
        // What is still under way may be of an earlier life.
        cluster.run(for: 100_000)
        #expect(cluster.run(for: 2_000_000) { cluster.areLinked(Array(0..<cluster.count)) })
        for case let replica? in cluster.replicas {
            #expect(replica.expelled == nil, "nobody is of an earlier life")
            for peer in 0..<cluster.count where peer != replica.index { replica.send(77, to: peer) }
        }
        let isCarried = cluster.run(for: 1_000_000) {
            cluster.replicas.allSatisfy { $0!.received.count == cluster.count - 1 }
        }
        #expect(isCarried)
    }

    @Test func oneRunIsLikeAnother() {
        let traces = (0..<2).map { _ in
            let cluster = LinkCluster(of: 3, seed: 5)
            cluster.weather = Self.stormy
            cluster.startAll()
            cluster.run(for: 3_000_000)
            return cluster.world.trace
        }
        #expect(traces[0] == traces[1] && traces[0] != 0)
    }

    // MARK: The end of connections

    /// Those of lower index learn it as they send, those of higher index at once.
    @Test func aLinkThatWasCutComesBack() {
        let cluster = LinkCluster(of: 3)
        cluster.startAll()
        cluster.run(for: 2_000_000) { cluster.isFounded && cluster.areLinked([0, 1, 2]) }
        cluster.weather.blocked = [[2, 0], [0, 2]]
        cluster.connections.cut(0, 2)
        cluster.run(for: 1_000)
        #expect(cluster.replicas[2]?.isLinked(to: 0) == false)
        cluster.replicas[0]?.send(1, to: 2)
        cluster.run(for: 1_000)
        #expect(cluster.replicas[0]?.isLinked(to: 2) == false)
        #expect(cluster.replicas[0]?.board.peers[2].framesLost.load() == 1)
        cluster.run(for: 30_000_000)
        #expect(!cluster.areLinked([0, 2]) && cluster.areLinked([0, 1]) && cluster.areLinked([1, 2]))
        cluster.weather.blocked = []
        #expect(cluster.run(for: 100_000) { cluster.areLinked([0, 1, 2]) })
        cluster.replicas[0]?.send(2, to: 2)
        cluster.replicas[2]?.send(3, to: 0)
        cluster.run(for: 1_000)
        #expect(cluster.replicas[2]?.received[0] == [2] && cluster.replicas[0]?.received[2] == [3])
    }

    /// Nothing gets from replica 2 to replica 0, though the connection stands: no link on new connections.
    @Test func aWayThatIsCutCarriesNoHandshake() {
        let cluster = LinkCluster(of: 3)
        cluster.start(0)
        cluster.start(1)
        cluster.run(for: 100_000)
        cluster.start(2)
        cluster.weather.lost = 1000
        cluster.run(for: 2_000_000)
        #expect(cluster.replicas[2]?.isLinked(to: 0) == false && cluster.replicas[0]?.isLinked(to: 2) == false)
        cluster.weather.lost = 0
        #expect(cluster.run(for: 500_000) { cluster.areLinked([0, 1, 2]) })
    }

    @Test func aReplicaThatIsStartedAgainIsLinkedAgain() {
        let cluster = LinkCluster(of: 3)
        cluster.startAll()
        cluster.run(for: 2_000_000) { cluster.isFounded }
        for index in [2, 0, 1, 0] {
            let record = cluster.stop(index)
            cluster.run(for: 3_000_000)
            let others = [0, 1, 2].filter { $0 != index }
            #expect(cluster.areLinked(others))
            cluster.start(index, from: record)
            #expect(cluster.run(for: 1_500_000) { cluster.areLinked([0, 1, 2]) })
            #expect(others.allSatisfy { cluster.replicas[$0]!.record.members[index].life.bootCount > 1 })
        }
    }

    // MARK: Refusals

    /// On pools of an earlier time: the others have met a later life. It judges so itself, whichever side connects.
    @Test(arguments: [0, 1, 2]) func aReplicaOfAnEarlierLifeIsExpelled(index: Int) {
        let cluster = LinkCluster(of: 3)
        cluster.startAll()
        cluster.run(for: 2_000_000) { cluster.isFounded }
        let copy = cluster.stop(index)!
        let newer = cluster.start(index, from: copy)
        cluster.run(for: 2_000_000) { cluster.areLinked([0, 1, 2]) }
        let record = newer.record
        cluster.stop(index)
        let older = cluster.start(index, from: copy)
        cluster.run(for: 3_000_000)
        let others = [0, 1, 2].filter { $0 != index }
        #expect(others.allSatisfy { !cluster.areLinked([index, $0]) } && cluster.areLinked(others))
        for other in others {
            let said = cluster.replicas[other]?.refusal(of: index)
            #expect(said?.contains("replica \(index) runs from pools of an earlier time") == true, "\(said ?? "")")
        }
        // Who is connected to by all has nobody's WELCOME.
        #expect((older.expelled != nil) == (index > 0))
        cluster.stop(index)
        cluster.start(index, from: record)
        #expect(cluster.run(for: 2_000_000) { cluster.areLinked([0, 1, 2]) }, "its newest pools are welcome")
    }

    @Test(arguments: [0, 2]) func whoWasFormattedForSomethingElseIsRefused(index: Int) {
        let cluster = LinkCluster(of: 3)
        for other in [0, 1, 2] where other != index { cluster.start(other) }
        var charter = cluster.charter
        charter.sessions = 65
        let stranger = cluster.start(index, charter: charter)
        cluster.run(for: 2_000_000)
        let others = [0, 1, 2].filter { $0 != index }
        #expect(cluster.areLinked(others) && !cluster.replicas.contains { $0!.isLinked(to: index) })
        for replica in others.map({ cluster.replicas[$0]! }) {
            let (own, theirs) = (replica.refusal(of: index), stranger.refusal(of: replica.index))
            for text in [own, theirs] {
                #expect(text?.contains("replica \(index) has sessions = 65") == true, "\(text ?? "")")
            }
            #expect(replica.log.errors.count == 1, "said once")
        }
        cluster.stop(index)
        cluster.start(index)
        #expect(cluster.run(for: 2_000_000) { cluster.isFounded && cluster.areLinked([0, 1, 2]) })
        #expect(others.allSatisfy { cluster.replicas[$0]!.refusal(of: index) == nil })
    }

    /// It knows all that there is to be known, and does not listen where the topology has it.
    @Test(arguments: [false, true]) func whoIsNotWhereTheTopologySaysIsNotLinked(isTheRealOneThere: Bool) {
        let cluster = LinkCluster(of: 3, listeners: 4)
        cluster.start(0)
        cluster.start(1)
        let real = isTheRealOneThere ? cluster.start(2) : nil
        cluster.run(for: 2_000_000)
        let stranger = cluster.start(2, from: real?.record, at: 3)
        cluster.run(for: 2_500_000)
        #expect(stranger.log.errors.isEmpty, "a call may take its time")
        cluster.run(for: 2_000_000)
        #expect([0, 1].allSatisfy { !stranger.isLinked(to: $0) })
        #expect(stranger.refusal(of: 0)?.contains("replica 2 was called at p2") == true)
        #expect([0, 1].allSatisfy { cluster.replicas[$0]?.isLinked(to: 2) == isTheRealOneThere })
        #expect([0, 1].allSatisfy { cluster.replicas[$0]?.record.members[2].life == (real?.record.life ?? Life.none) })
    }

    /// Who merely reaches the ports says what it likes: it is counted, and changes nothing.
    @Test func aStrangerIsNotBelieved() throws {
        let cluster = LinkCluster(of: 3, listeners: 4)
        cluster.startAll()
        cluster.run(for: 2_000_000) { cluster.isFounded && cluster.areLinked([0, 1, 2]) }
        let stranger = SimulatedLinkSockets(index: 3, memberCount: 3, over: cluster.connections)
        defer { stranger.close() }
        cluster.run(for: 100_000)
        var hello = try #require(cluster.replicas[2]).links.ownHello
        hello.life = Life(bootCount: 1 << 40, nonce: 1)
        hello.ticket = 1
        hello.proof = 2
        for target in 0..<3 {
            for bytes in [
                Handshake.hello(hello).encode(sender: 2), Handshake.welcome(hello).encode(sender: 2),
                Handshake.refused(.init(.life, "be gone")).encode(sender: 2),
                Handshake.call(.init(ticket: 1, challenge: 1)).encode(sender: 0),
                LinkReplica.frame(1, from: 2, to: target), [1, 2, 3],
            ] {
                let frame = Frame()
                bytes.withUnsafeBytes { frame.rebuild(copying: $0) }
                let outcome = stranger.send(frame, to: target)
                #expect(outcome == .sent)
            }
        }
        cluster.run(for: 1_000_000)
        #expect(cluster.areLinked([0, 1, 2]))
        for case let replica? in cluster.replicas {
            // The two that HELLO can be meant for call whom it names, who knows nothing of that.
            #expect(replica.board.strangersRefused.load() == (replica.index == 2 ? 6 + 2 : 5))
            #expect(replica.received.isEmpty && replica.expelled == nil)
        }
    }

    /// Nobody receives: what is more than the queues hold is lost, and counted.
    @Test func queuesAreBounded() {
        let cluster = LinkCluster(of: 2)
        cluster.startAll()
        cluster.run(for: 2_000_000) { cluster.areLinked([0, 1]) }
        let sender = cluster.replicas[1]!
        let before = sender.board.peers[0].framesSent.load()
        for number in 0..<10_000 {
            sender.send(UInt64(number), to: 0)
            sender.turn(now: cluster.world.now)
        }
        let lost = sender.board.peers[0].framesLost.load()
        #expect(lost > 1_000 && sender.board.peers[0].framesSent.load() - before == 10_000 - lost)
        cluster.run(for: 100_000)
        #expect(cluster.replicas[0]?.received[1]?.count == 10_000 - Int(lost) && cluster.areLinked([0, 1]))
    }

    /// A refusal is shown as long as the other tries.
    @Test func aRefusalIsForgottenWhenNobodyComes() {
        let cluster = LinkCluster(of: 3)
        cluster.start(0)
        var charter = cluster.charter
        charter.sessions = 65
        cluster.start(2, charter: charter)
        cluster.run(for: 1_000_000)
        #expect(cluster.replicas[0]?.refusal(of: 2) != nil)
        cluster.stop(2)
        cluster.run(for: 9_500_000)
        #expect(cluster.replicas[0]?.refusal(of: 2) != nil)
        cluster.run(for: 1_000_000)
        #expect(cluster.replicas[0]?.refusal(of: 2) == nil)
    }
}
