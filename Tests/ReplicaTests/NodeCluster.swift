import Dispatch
import Foundation
import Logging
import Replica
import StateMachines
import Testing
import Topology

/// Three replicas in this process, over `ipc://` in a folder of their own, as a user of the library runs them.
final class NodeCluster: @unchecked Sendable {
    // Unchecked: `nodes` is touched by the test alone.
    let folder = FileManager.default.temporaryDirectory.appending(
        path: "mpaxos-node-\(UInt32.random(in: 0...UInt32.max))")
    let topology: Topology
    private var nodes: [(stop: () -> Void, ended: DispatchSemaphore)] = []

    init(threads: String = "fused") throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        topology = try Self.topology(in: folder, threads: threads)
    }

    /// The topology of the replicas in a folder, also with other values than they have.
    static func topology(
        in folder: URL, threads: String = "fused", maxRequest: String = "1MiB"
    ) throws -> Topology {
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
            max_request = "\(maxRequest)"
            [pipeline]
            threads = "\(threads)"
            """
        let file = folder.appending(path: "counter.toml")
        try Data(text.utf8).write(to: file)
        return try Topology(contentsOf: file.path)
    }

    var endpoints: [String] { topology.replicas.map { $0.client.description } }

    func format<Machine: StateMachine>(_ id: UInt16, for machine: Machine.Type) throws {
        try ReplicaPools.format(topology, id: id, for: machine)
    }

    /// A replica that is not run: whether it opens.
    @discardableResult func open<Machine: StateMachine>(
        _ id: UInt16, as machine: Machine.Type, under topology: Topology? = nil
    ) throws(ReplicaError) -> ReplicaNode<Machine> {
        try ReplicaNode<Machine>(
            topology: topology ?? self.topology, id: id,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    func start<Machine: StateMachine>(_ id: UInt16, as machine: Machine.Type) throws {
        let node = try open(id, as: machine)
        let ended = DispatchSemaphore(value: 0)
        nodes.append((node.stop, ended))
        Thread.detachNewThread {
            do {
                try node.run { _, _ in }
            } catch {
                Issue.record("replica \(id): \(error)")
            }
            ended.signal()
        }
    }

    func stop() {
        for (stop, _) in nodes { stop() }
        for (_, ended) in nodes {
            #expect(ended.wait(timeout: .now() + 10) == .success, "a replica stops when it is told to")
        }
        nodes = []
    }

    deinit { try? FileManager.default.removeItem(at: folder) }
}
