import Foundation
import MPaxosClient
import MPaxosKeys
import MPaxosMessaging
import MPaxosTopology
import MPaxosWire
import Synchronization
import Testing

/// Clients and replicas that know each other by keys.
@Suite struct ClientKeysTests {
    private let own: KeyPair
    private let replicaPair: KeyPair

    init() throws {
        own = try KeyPair.generate()
        replicaPair = try KeyPair.generate()
    }

    private func echo(at place: String = "tcp://127.0.0.1:*", _ door: Door?) throws -> FakeReplica {
        try FakeReplica(at: place, door: door) { request, _ in .ok(request.body) }
    }

    private func options(
        _ replicas: [String: [PublicKey]], timeout: Duration = .seconds(60)
    ) -> ClientOptions {
        ClientOptions(timeout: timeout, attempt: .seconds(60), keys: ClusterKeys(own: own, replicas: replicas))
    }

    /// The sentence of `.unanswered`.
    private func reason(_ error: ClientError?) -> String {
        guard case .unanswered(let reason, uncertain: false)? = error else {
            return "unexpected: \(String(describing: error))"
        }
        return reason
    }

    @Test func whoHasAKeyIsAnsweredAndNobodyElse() async throws {
        let replica = try echo(Door(replicaPair, own))
        defer { replica.stop() }
        let pinned = [replica.endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [replica.endpoint], options: options(pinned))
        #expect(try await client.query([7]).body == [7])
        let blocking = try ClusterClient(endpoints: [replica.endpoint], options: options(pinned))
        #expect(try blocking.query([8]).body == [8])
        let keys = ClusterKeys(own: own, replicas: pinned)
        #expect(try Connection(to: replica.endpoint, keys: keys).status().isEmpty)
        #expect(try Connection.statuses(of: [replica.endpoint], keys: keys, timeout: .seconds(60)) == [.success([])])
        let stranger = try Client(endpoints: [replica.endpoint], options: ClientOptions(timeout: .milliseconds(300)))
        await #expect(throws: ClientError.self) { try await stranger.query([9]) }
        #expect(replica.requests.count == 4)
    }

    @Test(arguments: 1...2) func eitherOfTwoKeysWillDo(place: Int) async throws {
        let other = try KeyPair.generate().publicKey
        let replica = try echo(Door(replicaPair, own))
        defer { replica.stop() }
        let pinned = place == 1 ? [replicaPair.publicKey, other] : [other, replicaPair.publicKey]
        let client = try Client(endpoints: [replica.endpoint], options: options([replica.endpoint: pinned]))
        #expect(try await client.query([7]).body == [7])
        let keys = ClusterKeys(own: own, replicas: [replica.endpoint: pinned])
        #expect(try Connection(to: replica.endpoint, keys: keys).status(timeout: .seconds(60)).isEmpty)
    }

    @Test func aReplicaMayChangeItsKey() async throws {
        let next = try KeyPair.generate()
        let before = try echo(Door(replicaPair, own))
        let endpoint = before.endpoint
        let pinned = [endpoint: [replicaPair.publicKey, next.publicKey]]
        let client = try Client(endpoints: [endpoint], options: options(pinned))
        let connection = try Connection(to: endpoint, keys: ClusterKeys(own: own, replicas: pinned))
        #expect(try await client.query([1]).body == [1])
        #expect(try connection.status().isEmpty)
        before.stop()
        let after = try echo(at: endpoint, Door(next, own))
        defer { after.stop() }
        // What was sent in the last moment of the connection is lost with it.
        let impatient = ClientOptions(timeout: .seconds(60), attempt: .milliseconds(500), keys: options(pinned).keys)
        let another = try Client(endpoints: [endpoint], options: impatient)
        #expect(try await another.query([2]).body == [2])
        #expect(try await client.query([3]).body == [3])
        #expect(try connection.status(timeout: .seconds(60)).isEmpty)
    }

    @Test func aReplicaWithAnotherKeyIsNotBelieved() async throws {
        let replica = try echo(Door(try KeyPair.generate(), own))
        defer { replica.stop() }
        let pinned = [replica.endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [replica.endpoint], options: options(pinned, timeout: .seconds(1)))
        let expected =
            "\(replica.endpoint) closes the connection in the handshake: it may have another key than the topology says, or none"
        let error = await #expect(throws: ClientError.self) { try await client.query([7]) }
        #expect(reason(error) == "no replica takes a connection; \(expected)")
        let connection = try Connection(to: replica.endpoint, keys: ClusterKeys(own: own, replicas: pinned))
        let other = #expect(throws: ClientError.self) { try connection.status(timeout: .seconds(1)) }
        #expect(reason(other) == expected)
        #expect(replica.requests.isEmpty)
    }

    /// libzmq never comes back by itself after a refusal.
    @Test func aKeyThatIsAddedLaterComesIn() async throws {
        let door = Door(replicaPair)
        let replica = try echo(door)
        defer { replica.stop() }
        let pinned = [replica.endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [replica.endpoint], options: options(pinned, timeout: .seconds(1)))
        let connection = try Connection(to: replica.endpoint, keys: ClusterKeys(own: own, replicas: pinned))
        let error = await #expect(throws: ClientError.self) { try await client.query([7]) }
        let expected =
            "\(replica.endpoint) does not let in the key \(own.publicKey): whoever keeps the cluster's clients.toml can enter it there"
        #expect(reason(error) == "no replica takes a connection; \(expected)")
        let other = #expect(throws: ClientError.self) { try connection.status(timeout: .milliseconds(500)) }
        #expect(reason(other) == expected)
        door.admit(own)
        let end = ContinuousClock.now + .seconds(5)
        var body: [UInt8]?
        while body == nil, .now < end { body = try? await client.query([7]).body }
        #expect(body == [7])
        #expect(try connection.status(timeout: .seconds(5)).isEmpty)
    }

    @Test func aReplicaInTheClearIsNotTalkedTo() async throws {
        let replica = try echo(nil)
        let endpoint = replica.endpoint
        let pinned = [endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [endpoint], options: options(pinned, timeout: .seconds(1)))
        let error = await #expect(throws: ClientError.self) { try await client.query([7]) }
        // Who closes first decides what libzmq tells.
        let sentence = reason(error)
        #expect(
            sentence.hasSuffix("\(endpoint) speaks without keys, and the topology says that clients have some")
                || sentence.hasSuffix("or none"), "\(sentence)")
        #expect(replica.requests.isEmpty)
        replica.stop()
        let after = try echo(at: endpoint, Door(replicaPair, own))
        defer { after.stop() }
        let end = ContinuousClock.now + .seconds(20)
        var body: [UInt8]?
        while body == nil, .now < end { body = try? await client.query([7]).body }
        #expect(body == [7])
    }

    @Test func onlyReplicasWithAPinnedKeyAreConnectedTo() async throws {
        let unknown = try echo(Door(replicaPair, own))
        defer { unknown.stop() }
        let place = unknown.endpoint
        let replica = try FakeReplica(door: Door(replicaPair, own)) { request, index in
            index == 0 ? .redirect(to: place) : .ok(request.body)
        }
        defer { replica.stop() }
        let pinned = [replica.endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [replica.endpoint], options: options(pinned))
        #expect(try await client.query([7]).body == [7])
        #expect(replica.requests.count == 2 && unknown.requests.isEmpty)
        let error = #expect(throws: ClientError.self) {
            try Client(endpoints: [replica.endpoint, place], options: options(pinned))
        }
        #expect(error == .setUp("the key of the replica at \(place) is not known: the topology has none for it"))
    }

    private final class Role: Sendable {
        private let isRaised = Atomic(false)
        var mayWrite: Bool { isRaised.load(ordering: .relaxed) }
        func raise() { isRaised.store(true, ordering: .relaxed) }
    }

    @Test func deniedIsFinalAndSparesTheSession() async throws {
        let role = Role()
        let replica = try FakeReplica(door: Door(replicaPair, own)) { request, _ in
            switch request.header.code {
            case .open: .opened(5)
            case .submit where !role.mayWrite:
                FakeReplica.Answer(status: .denied, body: Array("the key may read".utf8))
            default: .ok(request.body)
            }
        }
        defer { replica.stop() }
        let pinned = [replica.endpoint: [replicaPair.publicKey]]
        let client = try Client(endpoints: [replica.endpoint], options: options(pinned))
        let session = try await client.open()
        let error = await #expect(throws: ClientError.self) { try await session.submit([1]) }
        #expect(error == .denied("the key may read"))
        #expect("\(ClientError.denied("the key may read"))".contains("the key may read"))
        #expect(replica.requests.count == 2)
        role.raise()
        #expect(try await session.submit([2]).body == [2])
    }

    @Test func aTopologyAndAKeyFileAreEnough() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("mpaxos-keys-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.path + "/client.key"
        try KeyFile.write(own, named: "test", to: file)
        let replica = try echo(Door(replicaPair, own))
        defer { replica.stop() }
        let text = """
            name = "test"
            [[replica]]
            id = 0
            peer = "tcp://127.0.0.1:1"
            client = "\(replica.endpoint)"
            public_key = "\(replicaPair.publicKey)"
            [client]
            security = "curve"
            [storage]
            directory = "\(folder.path)"
            """
        let topology = try Topology(parsing: Array(text.utf8), file: "test.toml")
        #expect(try await Client(topology: topology, keyFile: file).query([1]).body == [1])
        #expect(try ClusterClient(topology: topology, keyFile: file).query([2]).body == [2])
        #expect(try Connection(to: 0, of: topology, keyFile: file).status().isEmpty)
        let none = #expect(throws: ClientError.self) { try Client(topology: topology) }
        #expect(none.map { "\($0)" }?.contains("clients of test need a key") == true)
        let wrong = #expect(throws: ClientError.self) { try ClusterClient(topology: topology, keyFile: folder.path) }
        #expect(wrong.map { "\($0)" }?.contains(folder.path) == true)
        #expect(throws: ClientError.self) { try Connection(to: 1, of: topology, keyFile: file) }
    }
}
