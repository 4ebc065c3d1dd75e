import Client
import Dispatch
import Foundation
import Logging
import Replica
import StateMachines
import Testing
import Topology

/// Replicas as a user of the library runs them: inside a process of one's own, with a state machine of one's own.
@Suite(.serialized) struct NodeTests {
    /// A cluster of three in this process, over `ipc://` in a folder of its own.
    private final class Cluster<Machine: StateMachine>: @unchecked Sendable {
        // Unchecked: `nodes` is touched by the test alone.
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "mpaxos-node-\(UInt32.random(in: 0...UInt32.max))")
        let topology: Topology
        private var nodes: [(node: ReplicaNode<Machine>, ended: DispatchSemaphore)] = []

        init(threads: String) throws {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            var text = "name = \"counter\"\n"
            for id in 0..<3 {
                text += """
                    [[replica]]
                    id = \(id)
                    peer = "ipc://\(folder.path)/p\(id)"
                    client = "ipc://\(folder.path)/c\(id)"

                    """
            }
            text += """
                [storage]
                directory = "\(folder.path)"
                log_size = "8MiB"
                state_size = "32MiB"
                [client]
                sessions = 64
                [pipeline]
                threads = "\(threads)"
                """
            let file = folder.appending(path: "counter.toml")
            try Data(text.utf8).write(to: file)
            topology = try Topology(contentsOf: file.path)
            for member in topology.replicas { try ReplicaPools.format(topology, id: member.id) }
        }

        var endpoints: [String] { topology.replicas.map { $0.client.description } }

        func start() throws {
            for member in topology.replicas {
                let node = try ReplicaNode<Machine>(
                    topology: topology, id: member.id,
                    logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
                let ended = DispatchSemaphore(value: 0)
                nodes.append((node, ended))
                Thread.detachNewThread {
                    do {
                        try node.run { _, _ in }
                    } catch {
                        Issue.record("replica \(member.id): \(error)")
                    }
                    ended.signal()
                }
            }
        }

        func stop() {
            for (node, _) in nodes { node.stop() }
            for (_, ended) in nodes {
                #expect(ended.wait(timeout: .now() + 10) == .success, "a replica stops when it is told to")
            }
            nodes = []
        }

        deinit { try? FileManager.default.removeItem(at: folder) }
    }

    private func bytes(_ value: Int64) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

    @Test(arguments: ["fused", "staged"])
    func aStateMachineOfOnesOwnSurvivesARestartOfAllReplicas(threads: String) async throws {
        let cluster = try Cluster<ReplicatedCounter>(threads: threads)
        var sum: Int64 = 0
        for round in 0..<3 {
            try cluster.start()
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

    /// A reply of a machine of one's own that is too large: the client is told so, and neither that the store is full nor that its
    /// request is too large.
    @Test func repliesThatAreTooLargeAreSaidToBe() throws {
        let cluster = try Cluster<Babbler>(threads: "fused")
        try cluster.start()
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
        let cluster = try Cluster<ReplicatedCounter>(threads: "fused")
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let first = try ReplicaNode<ReplicatedCounter>(topology: cluster.topology, id: 0, logger: logger)
        #expect(throws: ReplicaError.self) {
            _ = try ReplicaNode<ReplicatedCounter>(topology: cluster.topology, id: 0, logger: logger)
        }
        #expect(throws: ReplicaError.self) { try ReplicaPools.format(cluster.topology, id: 0) }
        try FileManager.default.removeItem(atPath: cluster.topology.replicas[1].statePool)
        #expect(throws: ReplicaError.self) {
            _ = try ReplicaNode<ReplicatedCounter>(topology: cluster.topology, id: 1, logger: logger)
        }
        #expect(throws: ReplicaError.self) {
            _ = try ReplicaNode<ReplicatedCounter>(topology: cluster.topology, id: 9, logger: logger)
        }
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
