import Dispatch
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosStateMachines
import MPaxosStateTransfer
import MPaxosStatus
import MPaxosStorage
import MPaxosTopology
import MPaxosTransport
import MPaxosWire

/// A replica from the opening of its pools to their closing: the stages, on their lanes. When another replica's state
/// takes the place of its own, it ends, and the node begins another one.
final class ReplicaLife<Machine: StateMachine> {
    let durability: Durability

    private let member: Topology.Member
    private let board: StatusBoard
    /// None without keys. Their end is that of the contexts.
    private let handlers: [ZAPHandler]
    private let stages: ReplicaStages<Machine>
    private let lanes: [Lane]
    private let gate: Gate?
    private let pools: RecoveredPools
    private let geometry: StateGeometry

    /// What a life takes from its node, and keeps to the next one.
    struct Surroundings {
        let topology: Topology
        /// Of this replica among the members.
        let index: Int
        /// Who may come in with which; nil where the topology has none.
        let keys: KeyRing?
        let board: StatusBoard
        /// For what ends the node.
        let alarm: Alarm
        let logger: Logger
        /// Called by any thread when there is work for the node's.
        let ring: @Sendable () -> Void

        var member: Topology.Member { topology.replicas[index] }
        var ids: [UInt16] { topology.replicas.map(\.id) }
    }

    /// Opens the pools and binds the sockets; nothing runs yet.
    /// - Parameters:
    ///   - skipping: positions of commands that are not to be executed.
    ///   - report: what STATUS is answered with; given the durability of the pools.
    init(
        in node: Surroundings, skipping: [UInt64], report: (Durability) -> StatusReport
    ) throws(ReplicaError) {
        let (topology, board, logger) = (node.topology, node.board, node.logger)
        member = node.member
        self.board = board

        let charter = try Charter(of: topology, for: Machine.self)
        let memory = PrivateMemory(topology: topology, index: node.index)
        let opened = try Pools(topology: topology, member: member, charter: charter, viewLimit: memory.limit)
        pools = opened.recovered
        durability = pools.durability
        geometry = pools.state.geometry
        Self.tell(of: opened, charter, to: board, logger)
        let skips = Self.skip(skipping, in: pools.state, logger)
        let (sockets, plan) = try Self.sockets(of: node, pools)
        handlers = sockets.handlers
        (lanes, gate) = (plan.lanes, plan.gate)
        let report = report(durability)
        stages = try Self.stages(
            of: pools, .init(topology: topology, index: node.index),
            in: .init(
                clock: .monotonic, random: { UInt64.random(in: 1...UInt64.max) }, port: sockets.clients,
                parkers: plan.parkers, gate: plan.gate, board: board, logger: logger, alarm: node.alarm,
                ring: node.ring, statusReport: { report.json() }))
        plan.assign(
            gateway: stages.gateway,
            links: sockets.links(
                of: node, charter: charter, skips: skips, pools: pools, stages: stages, engine: plan.parkers.engine),
            engine: stages.engine, executor: stages.executor, clients: sockets.clients, peers: sockets.peers)
        logger.info(
            "replica \(member.id) of \(topology.name): durability \(durability.rawValue), \(lanes.count) lane\(lanes.count == 1 ? "" : "s"), executed \(pools.state.executed), view \(pools.acceptor.promised); \(memory)"
        )
    }

    private static func sockets(
        of node: Surroundings, _ pools: RecoveredPools
    ) throws(ReplicaError) -> (ReplicaSockets, LanePlan) {
        do throws(MessagingError) {
            return (
                try ReplicaSockets(of: node, largestBatch: pools.acceptor.largestBatch),
                try LanePlan(
                    topology: node.topology, index: node.index, durability: pools.durability, board: node.board)
            )
        } catch {
            throw ReplicaError(.configuration, error.description)
        }
    }

    private static func stages(
        of pools: RecoveredPools, _ options: ReplicaStages<Machine>.Options,
        in surroundings: ReplicaStages<Machine>.Surroundings
    ) throws(ReplicaError) -> ReplicaStages<Machine> {
        do throws(Refusal) {
            return try ReplicaStages(
                options, pools: pools, rings: Rings(outstanding: options.maxOutstanding), in: surroundings)
        } catch {
            throw ReplicaError(
                .refused,
                "\(pools.state.path): the state machine finds no room in it (\(error)); a new cluster with a larger state_size has it: one replica alone, formatted anew, is refused by the others"
            )
        }
    }

    // MARK: What is said at the start

    /// What the opening of the pools has found.
    private static func tell(of opened: Pools, _ charter: Charter, to board: StatusBoard, _ logger: Logger) {
        let pools = opened.recovered
        if let (what, isDone) = opened.resizing { isDone ? logger.notice("\(what)") : logger.warning("\(what)") }
        board.votesDroppedTorn.add(UInt64(pools.acceptor.torn.count))
        for vote in pools.acceptor.torn {
            logger.warning(
                "\(pools.acceptor.path): \(vote) is not whole, and is dropped, as what was being written when the process was killed or the power was lost, of which nobody was told; more than a few of these mean that the memory or disk is to be looked at"
            )
        }
        if let end = pools.lastEnd { tell(end, charter, logger) }
        if pools.isVerified {
            board.statePasses.add(1)
            board.statePassedAt.store(csupport_monotonic_us())
        }
    }

    /// Says what the process before this one was executing when it ended. Once is what any kill leaves.
    private static func tell(_ end: Breadcrumbs.End, _ charter: Charter, _ logger: Logger) {
        let crumb = end.crumb
        let what =
            crumb.isQuery
            ? "the last process ended while it answered a query at position"
            : "the last process ended while it executed the command at position"
        let text =
            "\(what) \(crumb.position) (instance \(crumb.instance)) of '\(charter.machine)' version \(charter.machineVersion)"
        guard end.times > 1 else { return logger.notice("\(text)") }
        let advice =
            crumb.isQuery
            ? "the query stops whoever answers it: let the machine's validate reject it"
            : "the command stops whoever executes it: see --skip-record in docs/operations.md"
        logger.error("\(text), the same \(end.times) times in a row; if it ends there each time, \(advice)")
    }

    /// - Returns: all positions that the replica names to others.
    private static func skip(_ positions: [UInt64], in state: StatePool, _ logger: Logger) -> [UInt64] {
        let passed = state.skip(positions)
        for position in passed {
            logger.notice(
                "the command at position \(position) is not to be executed, but position \(state.position) is reached already: that does nothing here"
            )
        }
        for position in Set(positions).subtracting(passed).sorted() {
            logger.warning("the command that gets position \(position) will be refused in place of executed")
        }
        return Set(positions.filter { !passed.contains($0) } + state.breadcrumbs.skipped).sorted()
    }

    deinit {
        // The lanes have stopped, or never ran.
        stages.deallocate()
        gate?.deallocate()
        for lane in lanes { lane.parker.deallocate() }
    }

    func start() {
        let (board, id) = (board, member.id)
        for lane in lanes { lane.start { board.stand(for: id) } }
    }

    /// Does the slow work of a state transfer, if there is some.
    /// - Returns: a snapshot that is to take the place of this replica's state, as soon as this life has ended.
    func work() -> (snapshot: IncomingSnapshot, view: UInt64)? {
        stages.desk.work(
            with: PoolFiles(
                path: member.statePool, geometry: geometry, identity: pools.acceptor.identity,
                bootCount: pools.life.bootCount))
    }

    /// The last instance that is executed and committed.
    var executed: UInt64 { stages.progress.executed }

    /// Stops the lanes. What was begun is durable when it returns, and the pools are closed.
    /// - Parameters:
    ///   - promising: a view to be promised besides, at least.
    ///   - isExpelled: the pools are never to be opened again.
    func end(promising view: UInt64 = 0, isExpelled: Bool = false) {
        for lane in lanes { lane.stop() }
        for lane in lanes { lane.join() }
        pools.end(promising: view, isExpelled: isExpelled)
    }
}

/// Snapshots that come in, as files beside the state pool.
private struct PoolFiles: SnapshotFiles {
    let path: String
    let geometry: StateGeometry
    let identity: PoolIdentity
    let bootCount: UInt64

    func prepare() throws(PoolError) -> IncomingSnapshot { try IncomingSnapshot(beside: path, geometry: geometry) }

    func finish(_ snapshot: IncomingSnapshot) throws(PoolError) {
        try snapshot.finish(as: identity, bootCount: bootCount)
    }
}

extension Clock {
    /// The machine's own.
    static var monotonic: Clock { Clock { _ in csupport_monotonic_us() } }
}
