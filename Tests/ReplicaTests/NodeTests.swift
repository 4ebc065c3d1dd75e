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
    private final class Cluster: @unchecked Sendable {
        // Unchecked: `nodes` is touched by the test alone.
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "mpaxos-node-\(UInt32.random(in: 0...UInt32.max))")
        let topology: Topology
        private var nodes: [(node: ReplicaNode<ReplicatedCounter>, ended: DispatchSemaphore)] = []

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
                let node = try ReplicaNode<ReplicatedCounter>(
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
        let cluster = try Cluster(threads: threads)
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

    @Test func poolsThatAreMissingOrInUseAreRefused() throws {
        let cluster = try Cluster(threads: "fused")
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
