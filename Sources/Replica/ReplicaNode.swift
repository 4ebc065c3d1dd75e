import CSupport
import Consensus
import Dispatch
import Logging
import Messaging
import PersistentMemory
import Queues
import StateMachines
import Storage
import Synchronization
import Topology
import Wire

/// One replica of a cluster: opens its pools, assembles the stages, runs them.
///
/// ```swift
/// let node = try ReplicaNode<ReplicatedCounter>(topology: topology, id: 0, logger: logger)
/// try node.run { view, leader in print("ready") }
/// ```
///
/// A replica that finds itself broken (a violated invariant) stops the process: its memory is persistent, a restart is cheap,
/// and going on is not safe.
public final class ReplicaNode<Machine: StateMachine>: @unchecked Sendable {
    // Unchecked: built and started on one thread; afterwards only `stop`, which touches an atomic and a semaphore.

    private let topology: Topology
    private let member: Topology.Member
    private let logger: Logger
    private let board: StatusBoard
    private let report: StatusReport
    private let context: Context
    private let rings: Rings
    private let lanes: [Lane]
    private let gate: Gate?
    private let acceptor: AcceptorPool
    private let isStopping = Atomic<Bool>(false)
    private let stopSignal = DispatchSemaphore(value: 0)

    /// Opens the pools of replica `id` and binds its sockets; nothing runs yet.
    ///
    /// - Throws: `ReplicaError` with a sentence on what to do: `.refused` when a pool is missing, damaged, of another
    ///   replica or cluster, or in use; `.configuration` when an endpoint cannot be used.
    public init(topology: Topology, id: UInt16, logger: Logger) throws(ReplicaError) {
        guard let index = topology.index(of: id) else { throw .noSuchReplica(id, topology) }
        let started = csupport_monotonic_us()
        let member = topology.replicas[index]
        let ids = topology.replicas.map(\.id)
        self.topology = topology
        self.member = member
        self.logger = logger
        board = StatusBoard(members: ids)

        let pools = try Pools(topology: topology, member: member)
        acceptor = pools.acceptor
        report = StatusReport(
            board: board, cluster: topology.name, id: id, durability: pools.durability.rawValue,
            version: Release.version, started: started)
        let machine: Machine
        do {
            machine = try Machine(in: pools.state.heap.transaction)
            pools.state.commit()
        } catch {
            throw ReplicaError(
                .refused,
                "\(member.statePool): the state machine finds no room in it (\(error)); format with a larger state_size"
            )
        }
        rings = Rings(outstanding: topology.client.maxOutstanding)
        let largestFrame = PeerHeader.size + pools.acceptor.largestBatch
        do throws(MessagingError) {
            context = try Context(ioThreads: topology.pipeline.ioThreads)
            let clients = try ClientPort.bound(
                to: member.clientBind.description, topology.client, in: context, board: board)
            let router = try PeerLinks.router(
                binding: member.peerBind.description, in: context, largestFrame: largestFrame)
            var dealers: [PeerLinks.Dealer?] = []
            for other in topology.replicas {
                dealers.append(
                    other.id < id
                        ? try PeerLinks.Dealer(
                            to: other.peer.description, in: context, largestFrame: largestFrame) : nil)
            }
            let plan = try LanePlan(topology: topology, index: index)
            lanes = plan.lanes
            gate = plan.gate

            var effects = EffectBuffer()
            let core = pools.core(topology: topology, index: index, into: &effects)
            let engine = Engine(
                index: index, memberIDs: ids, core: core, startedInto: effects, acceptor: pools.acceptor,
                batcher: Batcher(
                    origin: index, batchBytes: min(topology.protocol.batchBytes, pools.acceptor.largestBatch),
                    delay: UInt64(topology.protocol.batchDelayMicroseconds), rings: rings),
                executed: pools.state.executed, board: board, rings: rings, parkers: plan.parkers, gate: plan.gate,
                logger: logger)
            let executor = Executor(
                index: index, machine: machine, pool: pools.state, maximumRequest: topology.client.maxRequest,
                board: board, rings: rings, parkers: plan.parkers)
            let report = report
            let gateway = ClientGateway(
                settings: .init(topology: topology, index: index), port: clients, board: board,
                validator: { Machine.validate($0, as: $1) }, statusReport: { report.json() }, rings: rings,
                parkers: plan.parkers, gate: plan.gate)
            let links = PeerLinks(
                settings: .init(
                    index: index, cluster: topology.name, replica: id, incarnation: pools.acceptor.identity.incarnation,
                    members: topology.replicas.map {
                        Handshake.Member(
                            id: $0.id, incarnation: pools.acceptor.incarnation(of: $0.id) ?? 0,
                            peerEndpoint: $0.peer.description, clientEndpoint: $0.client.description)
                    }),
                router: router, dealers: dealers, board: board, logger: logger, rings: rings,
                engine: plan.parkers.engine)
            plan.assign(gateway: gateway, links: links, engine: engine, executor: executor)
        } catch {
            throw ReplicaError(.configuration, error.description)
        }
        logger.info(
            "replica \(id) of \(topology.name): durability \(pools.durability.rawValue), \(lanes.count) lane\(lanes.count == 1 ? "" : "s"), executed \(pools.state.executed), view \(pools.acceptor.promised)"
        )
    }

    deinit {
        // The lanes have stopped, or never ran.
        rings.deallocate()
        gate?.deallocate()
        for lane in lanes { lane.parker.deallocate() }
    }

    /// Runs the replica until `stop`. Once: to run it again, make another.
    ///
    /// - Parameter onReady: called once, when a leader is known and the replica has caught up, with the view and the
    ///   leader's id.
    public func run(onReady: (_ view: UInt64, _ leader: UInt16) -> Void) throws(ReplicaError) {
        for lane in lanes { lane.start() }
        var http: StatusServer?
        if let address = member.http {
            do {
                http = try StatusServer(address: address, report: report, logger: logger)
            } catch {
                logger.error("\(error)")
            }
        }
        while !isStopping.load(ordering: .acquiring) {
            if board.isReady, let leader = board.knownLeader {
                onReady(board.view.load(), topology.replicas[leader].id)
                break
            }
            _ = stopSignal.wait(timeout: .now() + .milliseconds(1))
        }
        while !isStopping.load(ordering: .acquiring) { stopSignal.wait() }
        logger.info("stopping")
        http?.stop()
        for lane in lanes { lane.stop() }
        for lane in lanes { lane.join() }
        acceptor.close()
    }

    /// Makes `run` return, after what was begun is durable. Any thread, any number of times.
    public func stop() {
        isStopping.store(true, ordering: .releasing)
        stopSignal.signal()
    }
}

/// The release that this is, as STATUS tells it.
public enum Release {
    public static let version = "0.1.0"
}
