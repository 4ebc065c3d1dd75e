import Dispatch
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosStateMachines
import MPaxosStatus
import MPaxosStorage
import MPaxosTopology
import MPaxosTransport
import Synchronization

/// One replica of a cluster: opens its pools, assembles the stages, runs them.
///
/// ```swift
/// let node = try ReplicaNode<ReplicatedCounter>(topology: topology, id: 0, logger: logger)
/// try node.run { view, leader in print("ready") }
/// ```
///
/// A replica that finds itself broken (a violated invariant) stops the process: its memory is persistent, a restart is
/// cheap, and going on is not safe.
public final class ReplicaNode<Machine: StateMachine>: @unchecked Sendable {
    // Unchecked: built on one thread and run on one; beside it only `stop`, which touches an atomic and a semaphore.

    private let topology: Topology
    private let index: Int
    private let skipping: [UInt64]
    /// Stands before the logger that was given, so that no lane waits for it.
    private let logger: Logger
    private let log: QueuedLog
    private let board: StatusBoard
    private let started = csupport_monotonic_us()
    /// Nil when it has ended, and while one follows the other.
    private var life: ReplicaLife<Machine>?
    private let isStopping = Atomic<Bool>(false)
    /// Rung to stop, and when there is work for the thread that runs the node.
    private let bell: DispatchSemaphore
    private let alarm: Alarm
    /// Nil where the topology has none.
    private let keys: KeyRing?
    private let secrets: HTTPSecrets
    /// Who reads files last is to be believed.
    private let reloading = Mutex(())
    /// Held also while one life follows the other: nobody else gets at the pools meanwhile.
    private let folder: FolderLock

    /// Opens the pools of replica `id` and binds its sockets; nothing runs yet.
    ///
    /// - Parameter skipping: positions of commands that the machine cannot execute, as a trap in
    ///   ``StateMachine/apply(_:in:reply:)`` stops whoever tries: up to 8. They are refused, and their clients get
    ///   FULL. To be named on all replicas until all have passed them; see docs/operations.md.
    /// - Throws: `ReplicaError` with a sentence on what to do: `.refused` when a pool is missing, damaged, of another
    ///   replica or cluster, or in use, or a file of keys or of HTTP is not as it must be; `.configuration` when an
    ///   endpoint cannot be used, or `skipping` not be so.
    public init(topology: Topology, id: UInt16, logger: Logger, skipping: [UInt64] = []) throws(ReplicaError) {
        guard let index = topology.index(of: id) else { throw .noSuchReplica(id, topology) }
        try ProcessLimits.require(for: topology.replicas[index])
        let positions = Set(skipping).sorted()
        guard positions.count <= Skipping.mostAsked else {
            throw ReplicaError(
                .configuration,
                "\(positions.count) commands are to be skipped, of which \(Skipping.mostAsked) can be at once: name those that come first, and the others once these are passed"
            )
        }
        guard positions.allSatisfy({ $0 > 0 && $0 < Breadcrumbs.positionLimit }) else {
            throw ReplicaError(
                .configuration,
                "a command that is to be skipped is named by its position, 1 to \(Breadcrumbs.positionLimit - 1), which the log of the replica that it stopped tells"
            )
        }
        self.skipping = positions
        self.topology = topology
        self.index = index
        bell = DispatchSemaphore(value: 0)
        alarm = Alarm { [bell] in bell.signal() }
        board = StatusBoard(members: topology.replicas.map(\.id))
        let log = QueuedLog(before: logger, dropped: board.logLinesDropped)
        self.log = log
        self.logger = Logger(label: logger.label) { _ in log }
        let before = board.stand(for: id)
        defer { csupport_stand(before) }
        do throws(ReplicaError) {
            keys = topology.hasKeys ? try KeyRing(topology, id: id, board: board, logger: self.logger) : nil
            secrets = try HTTPSecrets(topology.replicas[index].http == nil ? nil : topology.http)
        } catch {
            log.queue.close()
            throw error
        }
        do throws(PoolError) {
            folder = try FolderLock(folderOf: topology.replicas[index].acceptorPool)
        } catch {
            log.queue.close()
            throw ReplicaError(.refused, error.description)
        }
        do {
            life = try open()
        } catch {
            log.end()
            log.queue.close()
            throw error
        }
    }

    deinit { log.queue.close() }

    private func open() throws(ReplicaError) -> ReplicaLife<Machine> {
        try ReplicaLife(
            in: .init(
                topology: topology, index: index, keys: keys, board: board, alarm: alarm, logger: logger,
                ring: { [bell] in bell.signal() }), skipping: skipping, report: report(durability:))
    }

    private func report(durability: Durability) -> StatusReport {
        StatusReport(
            board: board, cluster: topology.name, id: topology.replicas[index].id, durability: durability.rawValue,
            version: Release.version, started: started,
            security: topology.clientsHaveKeys ? .curve : topology.hasKeys ? .peers : .none)
    }

    /// Runs the replica until `stop`. Once: to run it again, make another.
    ///
    /// - Parameter onReady: called once, when a leader is known and the replica has caught up, with the view and the
    ///   leader's id.
    /// - Throws: when its pools cannot be opened or its sockets not be bound again, after it took over another
    ///   replica's state; when its state is found to differ from that of the others, or a peer has met it in a later
    ///   life than this one, so that its pools are of an earlier time (`.refused`).
    public func run(onReady: (_ view: UInt64, _ leader: UInt16) -> Void) throws(ReplicaError) {
        guard let durability = life?.durability else { broken("a node runs once") }
        let before = board.stand(for: topology.replicas[index].id)
        defer {
            log.end()
            csupport_stand(before)
        }
        let http = topology.replicas[index].http.map {
            StatusServer(
                address: $0, limits: topology.limits, report: report(durability: durability), secrets: secrets,
                logger: logger)
        }
        defer { http?.stop() }
        defer { folder.release() }
        tellOfSecurity()
        var isAnnounced = false
        // What ended the process before may end this one at its first command: that is told first.
        log.queue.flush(milliseconds: 500)
        life?.start()
        while !isStopping.load(ordering: .acquiring) {
            if let reason = alarm.raised {
                life?.end(isExpelled: reason.isExpelled)
                life = nil
                let pool = reason.isExpelled ? "" : topology.replicas[index].statePool + ": "
                throw ReplicaError(.refused, pool + reason.text)
            } else if let (snapshot, view) = life?.work() {
                try takeOver(snapshot, promising: view)
            } else if !isAnnounced, board.isReady, let leader = board.knownLeader {
                isAnnounced = true
                onReady(board.view.load(), topology.replicas[leader].id)
            }
            _ = isAnnounced ? bell.wait(timeout: .distantFuture) : bell.wait(timeout: .now() + .milliseconds(1))
        }
        logger.info("stopping")
        life?.end()
        life = nil
    }

    /// Another replica's state in the place of this one's, of which it is sure that it is no further.
    private func takeOver(_ snapshot: IncomingSnapshot, promising view: UInt64) throws(ReplicaError) {
        life?.end(promising: view)
        let executed = life?.executed ?? 0
        do throws(PoolError) {
            // A log that reached back may have turned up in the last moment.
            if snapshot.executed > executed {
                try snapshot.install(over: topology.replicas[index].statePool)
                board.statesTaken.add(1)
            }
        } catch {
            // What a loss of power would leave is not known: nothing may rest on it.
            guard !snapshot.isInstalled else { throw ReplicaError(.refused, error.description) }
            logger.error("\(error); goes on with the state it had")
        }
        snapshot.discard()
        // Its sockets close now, so that they can be bound again.
        life = nil
        // That of the state before.
        board.digest = nil
        life = try open()
        life?.start()
    }

    private func tellOfSecurity() {
        guard let keys else {
            return logger.notice(
                "in the clear: whoever reaches the ports of this replica may vote, write and read; docs/security.md says how to have keys"
            )
        }
        let counts = keys.counts
        let clients =
            topology.clientsHaveKeys
            ? "\(counts.clients) of clients from \(topology.security.clientKeysFile)"
            : "clients are in the clear: whoever reaches the client port may write and read"
        logger.notice("with keys: \(counts.replicas) of replicas; \(clients)")
    }

    /// Whether there is something for `reloadKeys` to read.
    public var hasKeysToReload: Bool { keys != nil || secrets.current.words != nil }

    /// Reads the topology file, the file of client keys, and the certificate and the token of HTTP again, and takes
    /// what they name and hold now. Whoever has come in with a key that is not among them is out; HTTP connections
    /// that stand keep the certificate that they began with. All else in the topology, and this replica's own key, are
    /// as they were when the node was made. Any thread; what came of it is in the log.
    ///
    /// - Throws: when something is wrong with the files; nothing has changed then.
    public func reloadKeys() throws(ReplicaError) {
        try reloading.withLock { _ throws(ReplicaError) in try readKeysAgain() }
    }

    private func readKeysAgain() throws(ReplicaError) {
        guard hasKeysToReload else { throw startedWithoutKeys }
        let topology: Topology
        do throws(TopologyError) {
            topology = try Topology.readAgain(self.topology.file)
        } catch {
            throw ReplicaError(.configuration, error.description)
        }
        guard keys != nil || !topology.hasKeys else { throw startedWithoutKeys }
        guard topology.name == self.topology.name, topology.replicas.map(\.id) == self.topology.replicas.map(\.id),
            topology.clientsHaveKeys == self.topology.clientsHaveKeys
        else {
            throw ReplicaError(
                .configuration,
                "\(topology.file): has another name, other replicas, or another `security` of clients, than when this replica was started: only keys are taken up while it runs"
            )
        }
        let http = try secrets.read(
            self.topology.replicas[index].http == nil ? nil : topology.http, of: topology.file)
        let change = try keys?.load(topology)
        secrets.replace(by: http)
        if let counts = keys?.counts, let change {
            logger.notice(
                "keys were read again: \(counts.replicas) of replicas, \(counts.clients) of clients\(change.isEmpty ? "" : " (\(change))")"
            )
        }
        if let words = http.words { logger.notice("read again: \(words)") }
    }

    private var startedWithoutKeys: ReplicaError {
        ReplicaError(
            .configuration,
            "\(topology.file): this replica was started without keys, and needs a start to have some")
    }

    /// Makes `run` return, after what was begun is durable. Any thread, any number of times.
    public func stop() {
        isStopping.store(true, ordering: .releasing)
        bell.signal()
    }
}

/// The release that this is, as STATUS tells it.
public enum Release {
    public static let version = "0.1.0"
}
