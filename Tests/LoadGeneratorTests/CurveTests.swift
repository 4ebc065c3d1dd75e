import Foundation
import MPaxosKeys
import MPaxosWire
import Testing

@testable import MPaxosLoadGenerator

/// Runs against replicas that know their clients by keys.
@Suite(.serialized) struct CurveTests {
    private let own: KeyPair
    private let replicaPair: KeyPair

    init() throws {
        own = try KeyPair.generate()
        replicaPair = try KeyPair.generate()
    }

    private func replica(
        _ door: Door? = nil, _ change: (inout FakeReplica.Script) -> Void = { _ in }
    ) throws -> FakeReplica {
        var script = FakeReplica.Script()
        script.leader = 0
        change(&script)
        return try FakeReplica(door: door ?? Door(replicaPair, own), script)
    }

    private func configuration(_ replica: FakeReplica, _ keys: PublicKey...) -> BenchConfiguration {
        var configuration = BenchConfiguration(endpoints: [replica.endpoint])
        let pinned = keys.isEmpty ? [replicaPair.publicKey] : keys
        configuration.clusterKeys = ClusterKeys(own: own, replicas: [replica.endpoint: pinned])
        configuration.sessions = 12
        configuration.connections = 3
        configuration.seconds = 0.2
        configuration.warmup = 0.05
        configuration.keys = 50
        configuration.requestTimeout = 20
        return configuration
    }

    private func failure(_ configuration: BenchConfiguration) -> BenchError? {
        #expect(throws: BenchError.self) { try Bench(configuration).run { _ in } }
    }

    /// No signal of something received is missed: with one that is, a session would wait until the end.
    @Test(arguments: [(12, 3), (64, 1), (1, 1)])
    func closedLoop(sessions: Int, connections: Int) throws {
        let replica = try replica()
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.sessions = sessions
        configuration.connections = connections
        configuration.readShare = 0.5
        let result = try Bench(configuration).run { _ in }
        let record = replica.record
        #expect(record.violations.prefix(3) == [])
        #expect(record.openSessions == 0)
        #expect(record.requests[.open] == sessions)
        #expect(record.peers.count == connections)
        #expect(record.retries == 0)
        #expect(result.total.completed > 12)
        #expect(record.executed >= Int(result.total.completed))
        #expect(result.total.counts == BenchCounts())
        #expect(result.total.max < 1e6)
    }

    @Test func openLoop() throws {
        let replica = try replica()
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.load = .open(rate: 1000)
        configuration.seconds = 0.5
        let result = try Bench(configuration).run { _ in }
        #expect(replica.record.violations.isEmpty)
        #expect(result.total.completed > 250)
        #expect(result.total.counts == BenchCounts())
    }

    @Test func largeValues() throws {
        let replica = try replica()
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.valueSizes = 0...100_000
        let result = try Bench(configuration).run { _ in }
        #expect(replica.record.violations.isEmpty)
        #expect(result.total.completed > 12)
        #expect(result.total.counts == BenchCounts())
    }

    @Test func eitherOfTwoKeysWillDo() throws {
        let replica = try replica()
        defer { replica.stop() }
        let other = try KeyPair.generate().publicKey
        for keys in [[replicaPair.publicKey, other], [other, replicaPair.publicKey]] {
            let result = try Bench(configuration(replica, keys[0], keys[1])).run { _ in }
            #expect(result.total.completed > 12)
        }
    }

    @Test func aBrokenConnectionIsMadeAgain() throws {
        let replica = try replica { $0.stopAt = 20 }
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.seconds = 1
        let result = try Bench(configuration).run { _ in }
        let record = replica.record
        #expect(record.violations.prefix(3) == [])
        #expect(record.executed > 40)
        #expect(result.total.counts.disconnects == 3 && result.total.counts.reconnects == 3)
        #expect(result.total.counts.timeouts == 0)
    }

    @Test func whyNobodyAnswersIsSaid() throws {
        let stranger = try replica(Door(replicaPair))
        defer { stranger.stop() }
        var configuration = configuration(stranger)
        configuration.timeout = 0.3
        var error = failure(configuration)
        #expect(error?.kind == .noAnswer)
        #expect(
            error?.description.contains("does not let in the key \(own.publicKey)") == true,
            "\(String(describing: error))")

        configuration.clusterKeys?.replicas[stranger.endpoint] = [own.publicKey]
        error = failure(configuration)
        #expect(
            error?.description.contains("closes the connection in the handshake") == true,
            "\(String(describing: error))")

        configuration.clusterKeys?.replicas = [:]
        error = failure(configuration)
        #expect(error?.kind == .usage)
        #expect(error?.description.contains("the key of the replica at \(stranger.endpoint) is not known") == true)
    }

    @Test func aReplicaInTheClearIsNotTalkedTo() throws {
        var script = FakeReplica.Script()
        script.leader = 0
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.timeout = 0.3
        let error = failure(configuration)
        // Who closes first decides what libzmq tells.
        let sentence = "\(String(describing: error))"
        #expect(sentence.contains("speaks without keys") || sentence.contains("or none"), "\(sentence)")
        #expect(replica.record.requests.isEmpty)
    }

    @Test func onlyReplicasWithAPinnedKeyAreConnectedTo() throws {
        let other = try replica()
        defer { other.stop() }
        let place = other.endpoint
        let replica = try replica { $0.redirect = place }
        defer { replica.stop() }
        let error = failure(configuration(replica))
        #expect(error?.description.contains("redirects to '\(place)', whose key the topology does not have") == true)
        #expect(other.record.requests.isEmpty)
    }

    @Test func deniedEndsTheRun() throws {
        let replica = try replica { $0.denies = true }
        defer { replica.stop() }
        #expect(failure(configuration(replica)) == BenchError(.denied, "denied: the key may read"))
    }
}
