import Logging
import MPaxosConsensus
import MPaxosInvariants
import MPaxosMetrics
import MPaxosQueues
import MPaxosStateMachines
import MPaxosStateTransfer
import MPaxosStorage
import MPaxosWire

/// The stages of one life of a replica, made of its pools, and joined by rings: all but the links, which its owner
/// makes. The node and the simulator put a replica together by this alone.
package struct ReplicaStages<Machine: StateMachine> {
    /// What the stages need to know of the cluster, and of this replica in it.
    package struct Options: Sendable {
        /// The index of this replica among the members.
        package var index: Int
        /// The ids of all members, ascending.
        package var memberIDs: [UInt16]
        /// The `client` endpoints by index, for REDIRECT.
        package var clientEndpoints: [String]
        /// Instances proposed and not decided at once.
        package var window: Int
        /// Microseconds.
        package var heartbeat: UInt64
        package var suspect: UInt64
        package var batchDelay: UInt64
        /// Bytes.
        package var batchBytes: Int
        package var maxRequest: Int
        package var maxOutstandingBytes: Int
        /// Requests of clients that are admitted and not answered at once.
        package var maxOutstanding: Int
        /// Microseconds after which a request that nobody decided is answered NO_LEADER.
        package var patience: UInt64

        package init(
            index: Int, memberIDs: [UInt16], clientEndpoints: [String], window: Int, heartbeat: UInt64,
            suspect: UInt64, batchDelay: UInt64, batchBytes: Int, maxRequest: Int, maxOutstandingBytes: Int,
            maxOutstanding: Int, patience: UInt64
        ) {
            self.index = index
            self.memberIDs = memberIDs
            self.clientEndpoints = clientEndpoints
            self.window = window
            self.heartbeat = heartbeat
            self.suspect = suspect
            self.batchDelay = batchDelay
            self.batchBytes = batchBytes
            self.maxRequest = maxRequest
            self.maxOutstandingBytes = maxOutstandingBytes
            self.maxOutstanding = maxOutstanding
            self.patience = patience
        }
    }

    /// What is around the stages.
    package struct Surroundings {
        package var clock: Clock
        /// Draws numbers for this life. Called while the stages are made, and for each OPEN, by the gateway's thread:
        /// nobody must be able to guess it.
        package var random: @Sendable () -> UInt64
        package var port: ClientPort
        package var parkers: Parkers
        /// The gate between engine and gateway, where they share a lane.
        package var gate: Gate?
        package var board: StatusBoard
        package var logger: Logger
        package var alarm: Alarm
        /// Called by the engine's thread when there is work at the desk.
        package var ring: @Sendable () -> Void
        package var statusReport: @Sendable () -> String

        package init(
            clock: Clock, random: @escaping @Sendable () -> UInt64, port: ClientPort, parkers: Parkers, gate: Gate?,
            board: StatusBoard, logger: Logger, alarm: Alarm, ring: @escaping @Sendable () -> Void,
            statusReport: @escaping @Sendable () -> String
        ) {
            self.clock = clock
            self.random = random
            self.port = port
            self.parkers = parkers
            self.gate = gate
            self.board = board
            self.logger = logger
            self.alarm = alarm
            self.ring = ring
            self.statusReport = statusReport
        }
    }

    package let gateway: Gateway
    package let engine: Engine
    package let executor: Executor<Machine>
    /// The rings between the stages, of which the links need some.
    package let rings: Rings
    package let progress: Progress
    /// Where the slow work of a state transfer is done.
    package let desk: TransferDesk

    /// - Parameter rings: of a size for `options.maxOutstanding`; from here on they are of these stages.
    /// - Throws: when the state has no room for the machine.
    package init(
        _ options: Options, pools: RecoveredPools, rings: Rings, in surroundings: Surroundings
    ) throws(Refusal) {
        let machine = try Machine(in: pools.state.heap.transaction)
        pools.state.commit()
        self.rings = rings
        progress = .allocate()
        desk = TransferDesk(ring: surroundings.ring)
        let executorLane = surroundings.parkers.executor
        let order = SnapshotOrder { executorLane.wake() }
        let epoch = surroundings.random()
        engine = Self.engine(options, pools, rings, progress, desk, order, surroundings)
        executor = Executor(
            index: options.index, machine: machine, pool: pools.state, maximumRequest: options.maxRequest,
            clock: surroundings.clock, progress: progress, board: surroundings.board, rings: rings,
            parkers: surroundings.parkers, snapshotOrder: order, alarm: surroundings.alarm,
            isVerified: pools.isVerified, epoch: epoch, logger: surroundings.logger)
        gateway = Gateway(
            settings: .init(
                replica: options.memberIDs[options.index], maximumRequest: options.maxRequest,
                maximumOutstanding: options.maxOutstanding, maximumOutstandingBytes: options.maxOutstandingBytes,
                patience: options.patience, clientEndpoints: options.clientEndpoints, index: options.index,
                epoch: epoch, secret: surroundings.random),
            port: surroundings.port, progress: progress, board: surroundings.board,
            validator: { Machine.validate($0, as: $1) }, statusReport: surroundings.statusReport, rings: rings,
            parkers: surroundings.parkers, gate: surroundings.gate)
    }

    private static func engine(
        _ options: Options, _ pools: RecoveredPools, _ rings: Rings, _ progress: Progress, _ desk: TransferDesk,
        _ order: SnapshotOrder, _ surroundings: Surroundings
    ) -> Engine {
        let (random, board, logger) = (surroundings.random, surroundings.board, surroundings.logger)
        let traffic = PeerTraffic(
            index: options.index, count: options.memberIDs.count, acceptor: pools.acceptor, progress: progress,
            board: board, departures: rings.departures, links: surroundings.parkers.links,
            firstParcel: (random() >> 32) << 31)
        let port = TransferTraffic(over: traffic)
        let geometry = pools.state.geometry.fingerprint
        let transfer = StateTransfer(
            giver: SnapshotGiver(
                port: port, memberIDs: options.memberIDs, order: order, geometry: geometry, board: board,
                logger: logger),
            receiver: SnapshotReceiver(
                port: port, memberIDs: options.memberIDs, desk: desk, geometry: geometry,
                // By then the core has asked each peer twice.
                reluctance: 2 * UInt64(options.memberIDs.count) * options.heartbeat, seed: random(), board: board,
                logger: logger))
        return Engine(
            index: options.index, memberIDs: options.memberIDs,
            core: pools.core(
                Configuration(
                    replica: options.index, replicaCount: options.memberIDs.count, window: options.window,
                    slotCount: pools.acceptor.slotCount, heartbeat: options.heartbeat, suspect: options.suspect,
                    retransmit: options.heartbeat, seed: random())),
            clock: surroundings.clock, acceptor: pools.acceptor,
            batcher: Batcher(
                origin: options.index, batchBytes: min(options.batchBytes, pools.acceptor.largestBatch),
                delay: options.batchDelay, rings: rings),
            executed: pools.state.executed, progress: progress, board: board, rings: rings,
            parkers: surroundings.parkers, gate: surroundings.gate, traffic: traffic, transfer: transfer,
            logger: logger, alarm: surroundings.alarm)
    }

    /// What the stages hold of requests, replies and frames, by name: nothing, while nobody asks for anything and all
    /// that was asked is answered. For simulations, in which all stages run in one thread.
    package var held: [(what: String, count: Int)] {
        (rings.held + engine.held + [("requests", gateway.waiting)]).filter { $0.count != 0 }
    }

    /// All stages must have stopped, and been closed.
    package func deallocate() {
        rings.deallocate()
        progress.deallocate()
    }
}
