import MPaxosClusterSimulation
import MPaxosConsensus
import Testing

@testable import MPaxosLinks

/// Links between replicas that have keys.
@Suite struct LinkKeyTests {
    private static let named = [[100], [101], [102]]

    private func cluster(_ keys: [SimulatedLinkSockets.Keys?]) -> LinkCluster {
        let cluster = LinkCluster(of: keys.count)
        for (index, keys) in keys.enumerated() { cluster.start(index, keys: keys) }
        return cluster
    }

    private func all(own: [Int] = [100, 101, 102], named: [[Int]] = named) -> [SimulatedLinkSockets.Keys?] {
        own.map { .init(own: $0, named: named) }
    }

    @Test func aClusterWithKeysIsFounded() {
        let cluster = cluster(all())
        #expect(cluster.run(for: 2_000_000) { cluster.isFounded && cluster.areLinked([0, 1, 2]) })
    }

    /// Its secret key is none that the topology names, by those of lower index and by those of higher.
    @Test func whoHasAnotherKeyIsNotLinked() {
        let cluster = cluster(all(own: [100, 199, 102]))
        cluster.run(for: 3_000_000)
        #expect(cluster.areLinked([0, 2]) && !cluster.areLinked([0, 1]) && !cluster.areLinked([1, 2]))
        let told = cluster.replicas[1]?.refusal(of: 0)
        #expect(told?.contains("does not know the key of replica 1") == true, "\(told ?? "")")
        let seen = cluster.replicas[2]?.refusal(of: 1)
        #expect(seen?.contains("another key than the topology has for replica 1") == true, "\(seen ?? "")")
        for replica in [0, 1, 2] { cluster.replicas[replica]?.sockets.load([[100], [199], [102]]) }
        #expect(cluster.run(for: 1_500_000) { cluster.areLinked([0, 1, 2]) }, "the key is named now")
    }

    @Test func whoHasNoKeyIsToldSo() {
        let cluster = cluster([.init(own: 100, named: Self.named), .init(own: 101, named: Self.named), nil])
        cluster.run(for: 2_000_000)
        #expect(cluster.areLinked([0, 1]) && !cluster.areLinked([0, 2]))
        #expect(cluster.replicas[2]?.refusal(of: 0)?.contains("the topology of replica 2 has none") == true)
    }

    /// With the key of another replica, and all that can be known besides.
    @Test func nobodySpeaksWithAnothersKey() {
        let cluster = LinkCluster(of: 3, listeners: 4)
        cluster.start(0, keys: all()[0])
        cluster.start(1, keys: all()[1])
        cluster.run(for: 500_000)
        let liar = cluster.start(2, at: 3, keys: .init(own: 101, named: Self.named))
        cluster.run(for: 2_000_000)
        #expect(!liar.isLinked(to: 0) && cluster.areLinked([0, 1]))
        #expect(liar.refusal(of: 0)?.contains("says that it is replica 2 has the key of replica 1") == true)
    }

    /// Both keys are named, then the replica runs with the new one, then the old one is withdrawn.
    @Test(arguments: [0, 1, 2]) func aKeyIsReplacedWhileOthersRun(index: Int) {
        let cluster = cluster(all())
        cluster.run(for: 2_000_000) { cluster.isFounded && cluster.areLinked([0, 1, 2]) }
        var named = Self.named
        named[index].append(200)
        for replica in cluster.replicas { replica?.sockets.load(named) }
        cluster.run(for: 500_000)
        #expect(cluster.areLinked([0, 1, 2]))
        cluster.start(index, from: cluster.stop(index), keys: .init(own: 200, named: named))
        #expect(cluster.run(for: 2_000_000) { cluster.areLinked([0, 1, 2]) })
        named[index] = [200]
        for replica in cluster.replicas { replica?.sockets.load(named) }
        cluster.run(for: 2_000_000)
        #expect(cluster.areLinked([0, 1, 2]))
        named[index] = [300]
        for other in [0, 1, 2] where other != index { cluster.replicas[other]?.sockets.load(named) }
        cluster.run(for: 2_000_000)
        for other in [0, 1, 2] where other != index { #expect(!cluster.areLinked([index, other])) }
    }
}

@Suite struct ReconnectionTests {
    /// libzmq gives up on who has refused it, and tells of the connection's end after that: it is tried again soon all
    /// the same.
    @Test func whoWasRefusedIsBackSoon() {
        var reconnection = Reconnection(hasKeys: true)
        reconnection.wasRefused(now: 10)
        reconnection.heard(now: 20)
        #expect(!reconnection.isDue(now: 20))
        #expect(reconnection.isDue(now: 10 + Reconnection.refusedPause))
        reconnection.begins(now: 2_000_000)
        #expect(!reconnection.isDue(now: 2_000_000 + Reconnection.refusedPause), "a handshake takes its time")
    }
}

@Suite struct KeyedHashTests {
    /// Of the 16 bytes 0 to 15, with the key of the bytes 0 to 15: from the vectors of the reference implementation.
    @Test func itIsSipHash() {
        let (low, high): (UInt64, UInt64) = (0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908)
        #expect(KeyedHash(key: (low, high)).of(low, high) == 0x3f2a_cc7f_57c2_9bdb)
    }
}
