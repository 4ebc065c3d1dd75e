import Dispatch
import Foundation
import Logging
import MPaxosClient
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology
import Testing

/// Three replicas in this process, or fewer, over `ipc://` in a folder of their own, as a user of the library runs
/// them.
final class NodeCluster: @unchecked Sendable {
    // Unchecked: `nodes` is touched by the test alone.
    let folder = FileManager.default.temporaryDirectory.appending(
        path: "mpaxos-node-\(UInt32.random(in: 0...UInt32.max))")
    let topology: Topology
    private var nodes: [(stop: () -> Void, ended: DispatchSemaphore)] = []

    init(threads: String = "fused", replicas: Int = 3) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        topology = try Self.topology(in: folder, threads: threads, replicas: replicas)
    }

    /// The topology of the replicas in a folder, also with other values than they have.
    static func topology(
        in folder: URL, threads: String = "fused", replicas: Int = 3, maxRequest: String = "1MiB"
    ) throws -> Topology {
        var text = "name = \"counter\"\n"
        for id in 0..<replicas {
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
        _ id: UInt16, as machine: Machine.Type, under topology: Topology? = nil, skipping: [UInt64] = [],
        log: any LogHandler = SwiftLogNoOpLogHandler()
    ) throws(ReplicaError) -> ReplicaNode<Machine> {
        try ReplicaNode<Machine>(
            topology: topology ?? self.topology, id: id, logger: Logger(label: "test", factory: { _ in log }),
            skipping: skipping)
    }

    func start<Machine: StateMachine>(
        _ id: UInt16, as machine: Machine.Type, skipping: [UInt64] = [],
        log: any LogHandler = SwiftLogNoOpLogHandler()
    ) throws {
        let node = try open(id, as: machine, skipping: skipping, log: log)
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

    /// STATUS of a replica.
    func status(of id: Int) throws -> [String: Any] {
        let body = Data(try Connection(to: endpoints[id]).status(timeout: .seconds(30)))
        return try #require(try JSONSerialization.jsonObject(with: body) as? [String: Any])
    }

    /// Why a replica does not link with others, by their ids, once so many are told.
    func refusals(of id: Int, count: Int) throws -> [Int: String] {
        let deadline = ContinuousClock.now + .seconds(30)
        var told: [Int: String] = [:]
        repeat {
            told = [:]
            for peer in try #require(try status(of: id)["peers"] as? [[String: Any]]) {
                guard let refusal = peer["refusal"] as? String else { continue }
                #expect(peer["connected"] as? Bool == false)
                told[try #require(peer["id"] as? Int)] = refusal
            }
        } while told.count < count && ContinuousClock.now < deadline
        return told
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
