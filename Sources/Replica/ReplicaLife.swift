import Dispatch
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosMessaging
import MPaxosPersistentMemory
import MPaxosQueues
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology
import MPaxosWire

/// A replica from the opening of its pools to their closing: the stages, on their lanes. When another replica's state
/// takes the place of its own, it ends, and the node begins another one.
final class ReplicaLife<Machine: StateMachine> {
    let durability: Durability

    private let member: Topology.Member
    private let board: StatusBoard
    private let logger: Logger
    private let context: Context
    /// None without keys. Their end is that of the contexts.
    private let handlers: [ZAPHandler]
    private let rings: Rings
    private let lanes: [Lane]
    private let gate: Gate?
    private let acceptor: AcceptorPool
    private let desk: TransferDesk
    private let geometry: StateGeometry
    private let life: Life

    /// Opens the pools and binds the sockets; nothing runs yet.
    /// - Parameters:
    ///   - keys: who may come in with which; nil where the topology has none.
    ///   - skipping: positions of commands that are not to be executed.
    ///   - report: what STATUS is answered with; given the durability of the pools.
    ///   - bell: rung when there is work for the node's thread.
    ///   - alarm: for what ends the node.
    init(
        topology: Topology, index: Int, keys: KeyRing?, skipping: [UInt64], board: StatusBoard,
        report: (Durability) -> StatusReport, bell: DispatchSemaphore, alarm: Alarm, logger: Logger
    ) throws(ReplicaError) {
        let member = topology.replicas[index]
        let ids = topology.replicas.map(\.id)
        self.member = member
        self.board = board
        self.logger = logger

        let charter = try Charter(of: topology, for: Machine.self)
        let memory = PrivateMemory(topology: topology, index: index)
        let pools = try Pools(topology: topology, member: member, charter: charter, viewLimit: memory.limit)
        if let (what, isDone) = pools.resizing { isDone ? logger.notice("\(what)") : logger.warning("\(what)") }
        acceptor = pools.acceptor
        life = pools.life
        board.votesDroppedTorn.add(UInt64(acceptor.torn.count))
        for vote in acceptor.torn {
            logger.warning(
                "\(acceptor.path): \(vote) is not whole, and is dropped, as what was being written when the process was killed or the power was lost, of which nobody was told; more than a few of these mean that the memory or disk is to be looked at"
            )
        }
        if let end = pools.lastEnd { Self.tell(end, charter, logger) }
        let skips = Self.skip(skipping, in: pools.state, logger)
        if pools.isVerified {
            board.statePasses.add(1)
            board.statePassedAt.store(csupport_monotonic_us())
        }
        durability = pools.durability
        geometry = pools.state.geometry
        desk = TransferDesk(bell: bell)
        let machine: Machine
        do {
            machine = try Machine(in: pools.state.heap.transaction)
            pools.state.commit()
        } catch {
            throw ReplicaError(
                .refused,
                "\(member.statePool): the state machine finds no room in it (\(error)); a new cluster with a larger state_size has it: one replica alone, formatted anew, is refused by the others"
            )
        }
        rings = Rings(outstanding: topology.client.maxOutstanding)
        // Also where this replica's log is smaller than that of others: a batch that it has no room for is no reason to
        // lose the link.
        let largestFrame = PeerHeader.size + max(pools.acceptor.largestBatch, Self.largestBatchElsewhere)
        do throws(MessagingError) {
            let context = try Context(ioThreads: topology.pipeline.ioThreads)
            self.context = context
            // Clients with keys have threads of libzmq's of their own: a handshake costs more than a request, whoever
            // comes, and the links between replicas must not wait for those of strangers.
            let clientContext =
                topology.clientsHaveKeys ? try Context(ioThreads: topology.pipeline.ioThreads) : context
            // Before there is a port: libzmq lets everybody in where it finds no handler.
            var handlers: [ZAPHandler] = []
            if let keys {
                for context in clientContext === context ? [context] : [context, clientContext] {
                    handlers.append(try ZAPHandler(in: context, naming: KeyRing.clients) { keys.admit($0) })
                }
            }
            self.handlers = handlers
            let clients = try ClientPort.bound(
                to: member.clientBind.description, topology.client, topology.limits, in: clientContext,
                keys: topology.clientsHaveKeys ? keys : nil, board: board)
            let peerPort = try PeerLinks.Port(
                binding: member.peerBind.description, in: context, keys: keys, largestFrame: largestFrame,
                bounds: .init(budget: topology.limits.peerInput, seconds: topology.limits.messageSeconds),
                board: board)
            var dealers: [PeerLinks.Dealer?] = []
            for (place, other) in topology.replicas.enumerated() {
                dealers.append(
                    other.id < member.id
                        ? try PeerLinks.Dealer(
                            to: other.peer.description, of: place, in: context, keys: keys, largestFrame: largestFrame)
                        : nil)
            }
            let plan = try LanePlan(topology: topology, index: index, durability: durability, board: board)
            lanes = plan.lanes
            gate = plan.gate

            let order = SnapshotOrder()
            let traffic = PeerTraffic(
                index: index, count: ids.count, acceptor: pools.acceptor, board: board, departures: rings.departures,
                links: plan.parkers.links)
            let port = TransferPort(memberIDs: ids, board: board, traffic: traffic)
            let heartbeat = UInt64(topology.protocol.heartbeatMilliseconds) * 1000
            let transfer = StateTransfer(
                giver: SnapshotGiver(port: port, order: order, geometry: geometry.fingerprint, logger: logger),
                receiver: SnapshotReceiver(
                    port: port, desk: desk, geometry: geometry.fingerprint,
                    // In that time the core has asked each peer twice.
                    reluctance: 2 * UInt64(ids.count) * heartbeat, logger: logger))
            let core = pools.core(topology: topology, index: index)
            let engine = Engine(
                index: index, memberIDs: ids, core: core, now: csupport_monotonic_us(), acceptor: pools.acceptor,
                batcher: Batcher(
                    origin: index, batchBytes: min(topology.protocol.batchBytes, pools.acceptor.largestBatch),
                    delay: UInt64(topology.protocol.batchDelayMicroseconds), rings: rings),
                executed: pools.state.executed, board: board, rings: rings, parkers: plan.parkers, gate: plan.gate,
                traffic: traffic, transfer: transfer, logger: logger, alarm: alarm)
            let settings = ClientGateway.Settings(topology: topology, index: index)
            let executor = Executor(
                index: index, machine: machine, pool: pools.state, maximumRequest: topology.client.maxRequest,
                board: board, rings: rings, parkers: plan.parkers, snapshotOrder: order, alarm: alarm,
                isVerified: pools.isVerified, epoch: settings.epoch, logger: logger)
            let report = report(durability)
            let gateway = ClientGateway(
                settings: settings, port: clients, board: board,
                validator: { Machine.validate($0, as: $1) }, statusReport: { report.json() }, rings: rings,
                parkers: plan.parkers, gate: plan.gate)
            let links = PeerLinks(
                settings: .init(
                    index: index, cluster: topology.name, replica: member.id, charter: charter,
                    fingerprint: charter.fingerprint(layout: geometry.fingerprint),
                    members: topology.replicas.map {
                        Handshake.Member(
                            id: $0.id, incarnation: 0, life: .none,
                            peerEndpoint: $0.peer.description, clientEndpoint: $0.client.description)
                    }, acquaintances: pools.acquaintances(of: ids, index: index), skips: skips, keys: keys),
                port: peerPort, dealers: dealers,
                callBack: CallBack(to: topology.replicas.map(\.peer.description), in: context, pair: keys?.pair),
                board: board,
                logger: logger, rings: rings, engine: plan.parkers.engine,
                expelled: {
                    alarm.raise(
                        .init(
                            text: "\(member.acceptorPool) and \(member.statePool) cannot be used any more: \($0)",
                            isExpelled: true))
                })
            plan.assign(gateway: gateway, links: links, engine: engine, executor: executor)
        } catch {
            throw ReplicaError(.configuration, error.description)
        }
        logger.info(
            "replica \(member.id) of \(topology.name): durability \(durability.rawValue), \(lanes.count) lane\(lanes.count == 1 ? "" : "s"), executed \(pools.state.executed), view \(pools.acceptor.promised); \(memory)"
        )
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

    /// Bytes: a batch of one request of the largest `max_request`, 16 MiB, and more than any `batch_bytes`.
    private static var largestBatchElsewhere: Int { 17 << 20 }

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
        rings.deallocate()
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
        desk.work(beside: member.statePool, geometry: geometry, identity: acceptor.identity, bootCount: life.bootCount)
    }

    /// Stops the lanes. What was begun is durable when it returns, and the pools are closed.
    /// - Parameters:
    ///   - promising: a view to be promised besides, at least.
    ///   - isExpelled: the pools are never to be opened again.
    func end(promising view: UInt64 = 0, isExpelled: Bool = false) {
        for lane in lanes { lane.stop() }
        for lane in lanes { lane.join() }
        // Before a state is installed that was decided in that view: what is decided in it counts as accepted in the
        // view promised.
        if view > acceptor.promised { acceptor.record(promise: view) }
        if isExpelled { acceptor.expel() }
        acceptor.close()
    }
}
