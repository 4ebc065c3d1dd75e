import Foundation
import MPaxosClient
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology
import Testing

/// Replicas as a user of the library runs them: inside a process of one's own, with a state machine of one's own.
@Suite(.serialized) struct NodeTests {
    private func cluster(threads: String) throws -> NodeCluster {
        let cluster = try NodeCluster(threads: threads)
        for member in cluster.topology.replicas { try cluster.format(member.id, for: ReplicatedCounter.self) }
        return cluster
    }

    private func bytes(_ value: Int64) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

    @Test(arguments: ["fused", "staged"])
    func aStateMachineOfOnesOwnSurvivesARestartOfAllReplicas(threads: String) async throws {
        let cluster = try cluster(threads: threads)
        var sum: Int64 = 0
        for round in 0..<3 {
            for member in cluster.topology.replicas { try cluster.start(member.id, as: ReplicatedCounter.self) }
            let client = try Client(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
            #expect(try await client.query([]).body == bytes(sum), "round \(round) begins where the last ended")
            let session = try await client.open()
            for delta in 1...20 as ClosedRange<Int64> {
                sum += delta
                #expect(try await session.submit(bytes(delta)).body == bytes(sum))
            }
            await #expect(throws: ClientError.self) { try await session.submit([1, 2, 3]) }
            try await session.close()
            client.shutdown()
            cluster.stop()
        }
    }

    /// A reply of a machine of one's own that is too large: the client is told so, and neither that the store is full
    /// nor that its request is too large.
    @Test func repliesThatAreTooLargeAreSaidToBe() throws {
        let cluster = try NodeCluster()
        for member in cluster.topology.replicas { try cluster.format(member.id, for: Babbler.self) }
        for member in cluster.topology.replicas { try cluster.start(member.id, as: Babbler.self) }
        defer { cluster.stop() }
        let client = try ClusterClient(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
        let session = try client.open()
        #expect(try client.submit([1], session: session).body.count == 1 << 18)
        #expect(try client.query([4]).body.count == 1 << 20)
        #expect(throws: ClientError.full("the reply is too large")) { try client.submit([5], session: session) }
        #expect(throws: ClientError.full("the reply is too large")) { try client.submit([5]) }
        #expect(throws: ClientError.replyTooLarge(limit: 1 << 20)) { try client.query([5]) }
        #expect(throws: ClientError.replyTooLarge(limit: 1 << 20)) { try client.query([5], local: true) }
        #expect(try client.submit([0], session: session).body.isEmpty)
    }

    @Test func poolsThatAreMissingOrInUseAreRefused() throws {
        let cluster = try cluster(threads: "fused")
        let first = try cluster.open(0, as: ReplicatedCounter.self)
        #expect(throws: ReplicaError.self) { try cluster.open(0, as: ReplicatedCounter.self) }
        #expect(throws: ReplicaError.self) { try cluster.format(0, for: ReplicatedCounter.self) }
        try FileManager.default.removeItem(atPath: cluster.topology.replicas[1].statePool)
        #expect(throws: ReplicaError.self) { try cluster.open(1, as: ReplicatedCounter.self) }
        #expect(throws: ReplicaError.self) { try cluster.open(9, as: ReplicatedCounter.self) }
        withExtendedLifetime(first) {}
    }
}

/// Replies with as many quarters of a mebibyte as it is told to.
private struct Babbler: StateMachine {
    init(in transaction: Transaction) {}

    static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? {
        body.count == 1 ? nil : "say how much, in a byte"
    }

    func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        babble(command, &reply)
    }

    func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        babble(query, &reply)
    }

    private func babble(_ command: UnsafeRawBufferPointer, _ reply: inout Reply) {
        let quarter = [UInt8](repeating: 7, count: 1 << 18)
        for _ in 0..<command[0] { quarter.withUnsafeBytes { reply.append(bytes: $0) } }
    }
}
