import MPaxosCSupport
import MPaxosInvariants
import Synchronization

/// What the stages tell the outside about themselves: a block of words that each stage writes and that STATUS, /metrics
/// and /healthz read at any time, without a lock and without asking a stage.
///
/// Every word has one writer, the stage it is listed under, so that counting is a load and a store. Reads are relaxed:
/// two words may be a moment apart. What must be seen as one (the digest and its position) has a sequence lock; what is
/// no word (why a peer is refused) is a `Note`.
package final class StatusBoard: Sendable {
    /// What a replica is doing, in the words of STATUS.
    package enum Role: UInt64, Sendable, CaseIterable {
        /// Nothing known yet: the pools are being opened, or no leader was heard since the start.
        case recovering
        case follower
        case candidate
        case leader
        /// The cluster is not founded: not all of its members are known to have met.
        case joining

        package var name: String { "\(self)" }
    }

    /// One peer, written by the links.
    package struct Peer: Sendable {
        package let id: UInt16
        /// 1 while the handshake stands.
        package let connected: Gauge
        package let framesSent: Counter
        package let framesReceived: Counter
        /// Frames not sent, since the queue was full or the peer away.
        package let framesLost: Counter
        /// Frames from this peer that could not be understood.
        package let framesMalformed: Counter
        /// Why this peer is refused, or refuses this replica; nil when neither is so.
        package let refusal: Note

        /// Microseconds, smoothed; 0 before it is known.
        package let roundTrip: Gauge
        /// Bytes that may be under way to this peer, bytes that are, and bytes that wait for room.
        package let window: Gauge
        package let underWay: Gauge
        package let queued: Gauge
        /// As leader: instances proposed and not acknowledged by this peer.
        package let behind: Gauge
        /// Of frames with a payload.
        package let bytesSent: Counter
        /// Proposals sent to this peer again.
        package let resent: Counter
        /// Pieces and DELIVERs of this peer that belong to no parcel, or not where they came.
        package let parcelsLost: Counter
        /// Frames of this peer that were understood, and in which it said what no replica in its place can have to say.
        package let framesImplausible: Counter
        /// How often the state of this peer was found to differ from that of a majority.
        package let digestsDiffered: Counter
    }

    // MARK: Gateway

    package let requests: Counter
    package let replies: Counter
    package let repliesLost: Counter
    package let rejectedMalformed: Counter
    package let rejectedTooLarge: Counter
    package let rejectedBusy: Counter
    package let redirected: Counter
    package let unanswered: Counter
    package let repetitionsRecognised: Counter
    /// Requests that were ordered once more, since the leader changed before they were answered.
    package let orderedAgain: Counter
    package let outstanding: Gauge
    /// Of clients; not known with libzmq's sockets.
    package let connections: Gauge
    /// Dropped, since the client broke the ZeroMQ protocol or a limit.
    package let connectionsBroken: Counter
    /// Dropped, since the client said nothing and answered no PING.
    package let connectionsSilent: Counter
    /// Idle ones that made place for others.
    package let connectionsEvicted: Counter
    /// Requests beyond what the role of the client's key allows.
    package let denied: Counter

    // MARK: HTTP

    /// Requests without the token.
    package let httpRequestsDenied: Counter

    // MARK: Engine

    package let view: Gauge
    package let decided: Gauge
    package let floor: Gauge
    package let acceptorPoolUsed: Gauge
    package let acceptorPoolSize: Gauge
    package let batchesProposed: Counter
    package let commandsProposed: Counter
    package let bytesProposed: Counter
    package let commandsForwarded: Counter
    /// Runs of a follower's commands that came when this replica did not lead, or had too many already.
    package let forwardsDropped: Counter
    /// Batches of peers for which the log had no room.
    package let batchesDropped: Counter
    /// Batches of the log that were found damaged when a peer was to have them.
    package let batchesDamaged: Counter
    /// Messages that found the way to the links full.
    package let departuresDropped: Counter
    package let groupCommits: Counter
    package let elections: Counter
    package let resent: Counter
    package let caughtUpInstances: Counter
    /// To replicas that no log helped any more.
    package let statesGiven: Counter
    private let roleWord: Gauge
    private let leaderWord: Gauge
    private let readyWord: Gauge
    private let foundedWord: Gauge
    private let disputeWord: Gauge
    private let outOfTouchWord: Gauge

    // MARK: Executor

    package let executed: Gauge
    package let position: Gauge
    package let sessions: Gauge
    package let statePoolUsed: Gauge
    package let statePoolSize: Gauge
    package let commandsExecuted: Counter
    package let commandsRepeated: Counter
    package let recordsSkipped: Counter
    package let queriesServed: Counter
    package let stateCommits: Counter
    /// How often all of the state was read and found to be what commits have made, and when that was last, on the
    /// monotonic clock.
    package let statePasses: Counter
    package let statePassedAt: Gauge
    private let digestVersion: Gauge
    private let digestPosition: Gauge
    private let digestExecuted: Gauge
    private let digestValue: Gauge
    private let digestIsKnown: Gauge

    // MARK: Lanes

    /// When each lane began the turn that it is at, on the monotonic clock, or, while it sleeps, will begin the next
    /// one; 0 where there is no such lane.
    package let lanes: [(name: String, turn: Gauge)]

    // MARK: Links

    /// By replica index; the replica itself is among them, and stays at zero.
    package let peers: [Peer]
    /// Frames at the peer port from nobody known: a stranger, or a peer of another cluster.
    package let strangersRefused: Counter
    /// Connections to the peer port that were no links, and wanted too much.
    package let connectionsCutOff: Counter
    /// Bit i: the founding of the cluster waits for the replica with index i.
    private let awaitedWord: Gauge

    // MARK: Node

    /// Connections whose keys may not come in, at either port.
    package let peerKeysRefused: Counter
    package let clientKeysRefused: Counter
    /// Connections of clients by libzmq that wanted too much, or whose key was withdrawn.
    package let clientConnectionsCutOff: Counter
    /// From other replicas, in the place of this one's.
    package let statesTaken: Counter
    package let votesDroppedTorn: Counter
    /// For want of a reader, by the threads that had them.
    package let logLinesDropped: Counter

    /// Everything that /metrics shows, in order.
    package let catalogue: [Metric]
    private let block: CellBlock
    private static let noLeader = UInt64.max

    /// - Parameter members: ids of all replicas, ascending: the order of their indices.
    package init(members: [UInt16]) {
        invariant((1...9).contains(members.count), "a cluster has 1 to 9 replicas")
        var builder = CatalogueBuilder()
        // Each lane beside what its stages write; "replica" is the lane of the gateway where lanes are few.
        var lanes: [(name: String, turn: Gauge)] = []
        builder.beginSection()
        lanes.append(("replica", builder.hidden()))
        lanes.append(("gateway", builder.hidden()))
        requests = builder.counter("requests_total", "Requests received from clients, well-formed or not")
        replies = builder.counter("replies_total", "Replies handed to the client socket")
        repliesLost = builder.counter(
            "replies_lost_total", "Replies dropped because their client was gone or did not read")
        rejectedMalformed = builder.counter(
            "rejected_total", "Requests refused before ordering", labels: [("reason", "malformed")])
        rejectedTooLarge = builder.counter("rejected_total", "", labels: [("reason", "too_large")])
        rejectedBusy = builder.counter("rejected_total", "", labels: [("reason", "busy")])
        redirected = builder.counter("redirected_total", "Requests answered REDIRECT")
        unanswered = builder.counter("no_leader_total", "Requests answered NO_LEADER")
        repetitionsRecognised = builder.counter(
            "repetitions_recognised_total", "Requests that were repeated while they were on their way")
        orderedAgain = builder.counter(
            "ordered_again_total", "Requests ordered once more, since the leader changed before they were answered")
        outstanding = builder.gauge("outstanding", "Requests admitted and not yet answered")
        connections = builder.gauge("client_connections", "Connections of clients; not counted with libzmq's sockets")
        connectionsBroken = builder.counter(
            "client_connections_broken_total",
            "Connections dropped since the client broke the ZeroMQ protocol or a limit")
        connectionsSilent = builder.counter(
            "client_connections_silent_total", "Connections dropped since the client said nothing for too long")
        connectionsEvicted = builder.counter(
            "client_connections_evicted_total", "Idle connections dropped to make place for others")
        denied = builder.counter("denied_total", "Requests refused since the client's key does not allow them")

        builder.beginSection()
        lanes.append(("engine", builder.hidden()))
        view = builder.gauge("view", "The view this replica is in")
        decided = builder.gauge("decided_instance", "Highest instance up to which all are known to be decided")
        floor = builder.gauge("log_floor_instance", "Lowest instance that the log may hold")
        acceptorPoolUsed = builder.gauge("acceptor_pool_used_bytes", "Bytes of the log in use")
        acceptorPoolSize = builder.gauge("acceptor_pool_size_bytes", "Bytes that the log has room for")
        batchesProposed = builder.counter("batches_proposed_total", "Batches proposed as the leader")
        commandsProposed = builder.counter("commands_proposed_total", "Commands in the batches proposed")
        bytesProposed = builder.counter("bytes_proposed_total", "Bytes of the batches proposed")
        commandsForwarded = builder.counter("commands_forwarded_total", "Commands of clients handed on to the leader")
        forwardsDropped = builder.counter(
            "forwards_dropped_total", "Runs of forwarded commands that could not be taken")
        batchesDropped = builder.counter("batches_dropped_total", "Batches of peers for which the log had no room")
        batchesDamaged = builder.counter(
            "batches_damaged_total", "Batches of the log found damaged when a peer was to have them")
        departuresDropped = builder.counter("departures_dropped_total", "Messages to peers that found their queue full")
        groupCommits = builder.counter(
            "group_commits_total", "Fences of the acceptor pool, each for all records gathered")
        elections = builder.counter("elections_total", "Views that this replica tried to lead")
        resent = builder.counter("proposals_resent_total", "Proposals sent again to a follower that lacked them")
        caughtUpInstances = builder.counter("catch_up_instances_total", "Decided instances fetched from peers")
        statesGiven = builder.counter("states_given_total", "Snapshots of the state given to other replicas")
        roleWord = builder.hidden()
        leaderWord = builder.hidden()
        readyWord = builder.hidden()
        outOfTouchWord = builder.hidden()
        foundedWord = builder.gauge("founded", "1 when all members of the cluster are known to have met")
        disputeWord = builder.gauge(
            "state_in_dispute", "1 while states differ and no majority says which is right: nothing is served")

        builder.beginSection()
        lanes.append(("executor", builder.hidden()))
        executed = builder.gauge("executed_instance", "Highest instance executed")
        position = builder.gauge("position", "Commands executed since the cluster began")
        sessions = builder.gauge("sessions", "Sessions open")
        statePoolUsed = builder.gauge("state_pool_used_bytes", "Bytes of the replicated state in use")
        statePoolSize = builder.gauge("state_pool_size_bytes", "Bytes that the replicated state has room for")
        commandsExecuted = builder.counter("commands_executed_total", "Commands executed by this process")
        commandsRepeated = builder.counter("commands_repeated_total", "Commands that were repeats of executed ones")
        recordsSkipped = builder.counter(
            "records_skipped_total", "Commands refused in place of executed, since an operator named their positions")
        queriesServed = builder.counter("queries_total", "Queries answered")
        stateCommits = builder.counter("state_commits_total", "Failure-atomic commits of the state pool")
        statePasses = builder.counter(
            "state_verifications_total", "Passes over the bytes of the state that found its digest confirmed")
        statePassedAt = builder.hidden()
        digestVersion = builder.hidden()
        digestPosition = builder.gauge("digest_position", "Position at which the digest stands; 0 before there is one")
        digestExecuted = builder.hidden()
        digestValue = builder.hidden()
        digestIsKnown = builder.hidden()

        builder.beginSection()
        lanes.append(("links", builder.hidden()))
        strangersRefused = builder.counter("strangers_refused_total", "Frames at the peer port from nobody known")
        connectionsCutOff = builder.counter(
            "peer_connections_cut_off_total", "Connections to the peer port that were no links and wanted too much")
        awaitedWord = builder.hidden()
        peers = builder.peers(members)

        builder.beginSection()
        peerKeysRefused = builder.counter("peer_keys_refused_total", "Connections to the peer port with unknown keys")
        clientKeysRefused = builder.counter(
            "client_keys_refused_total", "Connections to the client port with unknown keys")
        clientConnectionsCutOff = builder.counter(
            "client_connections_cut_off_total",
            "With keys: connections to the client port that were strangers or too many, or whose key was withdrawn")
        httpRequestsDenied = builder.counter(
            "http_requests_denied_total", "HTTP requests refused since they had no token, or a wrong one")
        statesTaken = builder.counter(
            "states_taken_total", "States of other replicas that took the place of this one's")
        votesDroppedTorn = builder.counter(
            "votes_dropped_torn_total",
            "Votes of an unfinished group commit that were found torn at the start, and dropped")
        logLinesDropped = builder.counter(
            "log_lines_dropped_total", "Log lines dropped, since the reader of the log was too slow")

        self.lanes = lanes
        catalogue = builder.metrics
        block = builder.block
        leaderWord.store(Self.noLeader)
    }

    /// Set by the engine.
    package var role: Role {
        get {
            guard let role = Role(rawValue: roleWord.load()) else { broken("a role is one of the known") }
            return role
        }
        set { roleWord.store(newValue.rawValue) }
    }

    /// Index of the leader of the current view, nil while nobody is known to lead it. Set by the engine.
    package var knownLeader: Int? {
        get {
            let word = leaderWord.load()
            return word == Self.noLeader ? nil : Int(word)
        }
        set {
            invariant(newValue.map { peers.indices.contains($0) } ?? true, "a leader is a member")
            leaderWord.store(newValue.map(UInt64.init) ?? Self.noLeader)
        }
    }

    /// Whether the state differs from another one, and it is not settled which is right. Set by the engine.
    package var isInDispute: Bool {
        get { disputeWord.load() != 0 }
        set { disputeWord.store(newValue ? 1 : 0) }
    }

    /// Whether the replica knows a leader, has caught up, and may serve its state. Set by the engine.
    package var isReady: Bool {
        get { readyWord.load() != 0 }
        set { readyWord.store(newValue ? 1 : 0) }
    }

    /// Whether the word of others that this replica leads, or follows, is of late. Set by the engine.
    package var isInTouch: Bool {
        get { outOfTouchWord.load() == 0 }
        set { outOfTouchWord.store(newValue ? 0 : 1) }
    }

    /// Whether all members of the cluster are known to have met; before that the replica serves nobody. Set by the
    /// engine.
    package var isFounded: Bool {
        get { foundedWord.load() != 0 }
        set { foundedWord.store(newValue ? 1 : 0) }
    }

    /// Whom the founding of the cluster waits for, bit i for the replica with index i. Set by the links.
    package var awaited: UInt16 {
        get { UInt16(truncatingIfNeeded: awaitedWord.load()) }
        set { awaitedWord.store(UInt64(newValue)) }
    }

    /// The digest of the replicated state, and where it stands: the last instance that is executed in it, and its
    /// position. Nil in the middle of an instance, and before there is an executor. Set by the executor.
    package var digest: (position: UInt64, executed: UInt64, value: UInt64)? {
        get {
            while true {
                let before = digestVersion.loadAcquiring()
                let isKnown = digestIsKnown.load() != 0
                let found = (digestPosition.load(), digestExecuted.load(), digestValue.load())
                atomicMemoryFence(ordering: .acquiring)
                if before & 1 == 0, digestVersion.load() == before { return isKnown ? found : nil }
                csupport_pause()
            }
        }
        set {
            let version = digestVersion.load()
            digestVersion.store(version + 1)
            atomicMemoryFence(ordering: .releasing)
            digestPosition.store(newValue?.position ?? 0)
            digestExecuted.store(newValue?.executed ?? 0)
            digestValue.store(newValue?.value ?? 0)
            digestIsKnown.store(newValue == nil ? 0 : 1)
            digestVersion.storeReleasing(version + 2)
        }
    }
}

extension StatusBoard {
    /// The calling thread works for the replica of this board: an invariant that it breaks is told with where that one
    /// stands. The board must live until `csupport_stand` is called with the standing that was before, which it
    /// returns, or the thread ends.
    @discardableResult
    package func stand(for replica: UInt16) -> csupport_standing {
        csupport_stand(
            csupport_standing(
                who: UnsafeRawPointer(Self.noun.utf8Start).assumingMemoryBound(to: CChar.self), number: UInt64(replica),
                view: view.word, decided: decided.word, executed: executed.word, position: position.word))
    }

    private static var noun: StaticString { "replica" }
}

/// A word that its one writer sets and anybody reads.
package struct Gauge: @unchecked Sendable {
    // Unchecked: the pointee is atomic, and lives as long as the board that handed this out.
    private let cell: UnsafeMutablePointer<Atomic<UInt64>>

    init(_ cell: UnsafeMutablePointer<Atomic<UInt64>>) { self.cell = cell }

    package func store(_ value: UInt64) { cell.pointee.store(value, ordering: .relaxed) }
    package func load() -> UInt64 { cell.pointee.load(ordering: .relaxed) }

    /// For who reads it as plain memory, by an atomic load.
    var word: UnsafePointer<UInt64> { UnsafeRawPointer(cell).assumingMemoryBound(to: UInt64.self) }

    fileprivate func loadAcquiring() -> UInt64 { cell.pointee.load(ordering: .acquiring) }
    fileprivate func storeReleasing(_ value: UInt64) { cell.pointee.store(value, ordering: .releasing) }
}

/// A word that its one writer counts up and anybody reads.
package struct Counter: @unchecked Sendable {
    // Unchecked: as for `Gauge`.
    private let cell: UnsafeMutablePointer<Atomic<UInt64>>

    init(_ cell: UnsafeMutablePointer<Atomic<UInt64>>) { self.cell = cell }

    /// The writer's thread alone: a load and a store, no locked instruction.
    package func add(_ count: UInt64) {
        cell.pointee.store(cell.pointee.load(ordering: .relaxed) &+ count, ordering: .relaxed)
    }

    /// For a count with several writers, any thread.
    package func addShared(_ count: UInt64) { cell.pointee.wrappingAdd(count, ordering: .relaxed) }

    /// For a count that the writer keeps by itself.
    package func store(_ count: UInt64) { cell.pointee.store(count, ordering: .relaxed) }

    package func load() -> UInt64 { cell.pointee.load(ordering: .relaxed) }
}

/// A sentence that its one writer sets now and then, and anybody reads. Behind a lock: not for what is on a request's
/// way.
package final class Note: Sendable {
    private let text = Mutex<String?>(nil)

    package init() {}

    package func set(_ text: String?) { self.text.withLock { $0 = text } }
    package func read() -> String? { text.withLock { $0 } }
}

/// The memory behind a board.
final class CellBlock: @unchecked Sendable {
    // Unchecked: `base` is set once, and all that it points to is atomic.
    static let capacity = 512
    /// Cells to a section's alignment: two cache lines, since processors fetch lines in pairs.
    static let sectionCells = 16

    let base: UnsafeMutablePointer<Atomic<UInt64>>

    init() {
        let raw = UnsafeMutableRawPointer.allocate(byteCount: Self.capacity * 8, alignment: Self.sectionCells * 8)
        base = raw.bindMemory(to: Atomic<UInt64>.self, capacity: Self.capacity)
        for index in 0..<Self.capacity { (base + index).initialize(to: Atomic(0)) }
    }

    deinit {
        base.deinitialize(count: Self.capacity)
        base.deallocate()
    }
}
