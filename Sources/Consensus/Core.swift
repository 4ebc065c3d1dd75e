import MPaxosInvariants

/// What a replica is busy with.
@usableFromInline package enum Role: UInt8, Sendable, BitwiseCopyable {
    /// Being rebuilt from storage: between `init` and `start`.
    case recovering
    case follower
    case candidate
    case leader
}

/// How often things happened since the start of this core.
package struct Counters: BitwiseCopyable, Hashable, Sendable {
    /// Elections begun (with the pre-vote).
    package internal(set) var elections: UInt64 = 0
    /// Times this replica became leader.
    package internal(set) var leaderships: UInt64 = 0
    /// Proposals sent again: after a link was lost, or to fill a gap that a follower named.
    package internal(set) var retransmissions: UInt64 = 0
    /// Decided entries that were learnt by catch-up.
    package internal(set) var caughtUp: UInt64 = 0
    /// Messages that no correct peer sends: bad sender, bad numbers.
    package internal(set) var refused: UInt64 = 0
}

/// A view that its leader opened: phase 1 is over, all adopted values above `base` are durably accepted in it.
package struct EstablishedView: BitwiseCopyable, Hashable, Sendable {
    package var view: View
    package var base: Instance

    package init(view: View, base: Instance) {
        self.view = view
        self.base = base
    }
}

/// What is known of a member; the leader's and the candidate's fields are reset when the role begins.
struct Peer: BitwiseCopyable {
    /// Leader: all in base ..< = acked it durably accepted in this view.
    var acked: Instance = 0
    /// Leader: the next instance to propose to it.
    var next: Instance = 0
    /// Leader: the commit index that it was told last.
    var toldCommit: Instance = 0
    /// Bytes of batches that may be sent to it now; whoever drives the core says how many, see `allow`.
    var room = Int.max
    /// Leader: it has no room for proposals, and will say when it has.
    var isFull = false
    /// Leader: the round in which proposals to it were repeated last. Gaps of earlier rounds are under repair.
    var repeatedInRound: UInt64 = 0
    /// Leader: when it last answered, and when the last heartbeat that wants an answer was sent to it.
    var lastHeard: Microseconds = 0
    /// Leader: it answered since this replica began to lead.
    var hasAnswered = false
    var lastHeartbeat: Microseconds = 0
    /// How often a proposal to it was repeated, since the start of this core.
    var repetitions: UInt64 = 0
    /// How long an answer of it may take, by the round trips that were measured; the configured time before the first.
    var patience: Microseconds = 0
    /// The way to it and back, with nothing in between; 0 before it was measured.
    var distance: Microseconds = 0
    /// What it said last to have decided, and so can serve, unless it restarted since.
    var decided: Instance = 0
    /// Candidate: what it accepted up to here is known; .max: all.
    var covered: Instance = 0
    /// Candidate: what it had decided when it promised. Not what it ever said: after a restart it may know less, and the base
    /// of the new view must be something that somebody can serve.
    var promisedDecided: Instance = 0
    /// Candidate: how many segments of its answers were put aside.
    var segmentCount = 0
}

/// Multi-Paxos as a pure state machine: events and the time go in, records and messages come out in an `EffectBuffer`.
///
/// Everything is allocated in `init`. Steps are deterministic, allocate nothing, count no references and take no locks: the
/// compiler proves it in release builds (`@_noLocks`; debug builds see one file at a time, which is not enough for the proof).
/// Steps are the methods with `now` and `into`. Not thread-safe: one owner. Before each step `effects.hasRoom` must
/// hold. Roles are in extensions, one a file.
@usableFromInline package struct Core: ~Copyable {
    private let inPlace = InPlace()
    /// Most records, and most sends, of one step.
    package static let effectsPerStep = 384
    /// Most entries a step sends to one peer, or persists, at once.
    static let burst: Instance = 32
    /// Most batch bytes a step sends to one peer at once (but at least one batch).
    static let burstBytes = 1 << 20
    /// What a message takes on the way besides its batch.
    static let messageBytes = 64

    static let segmentsPerPeer = 64

    enum Phase: UInt8 {
        /// Asks whether an election would succeed.
        case preVote
        /// Collects promises.
        case prepare
        /// Makes the adopted values durable in the new view, then the established record.
        case adopt
        case establish
    }

    package let configuration: Configuration
    let me: ReplicaIndex
    let memberCount: Int
    let quorum: Int
    let window: UInt64
    let peers: UnsafeMutablePointer<Peer>
    var random: Random
    @usableFromInline package internal(set) var role = Role.recovering
    package internal(set) var counters = Counters()

    // Durability.
    var lastRecord: LogSequenceNumber = 0
    var durableRecord: LogSequenceNumber = 0
    /// All records up to this one were there at `watchedSince`: while it is not durable, the oldest record waits since then, or longer.
    var watchedRecord: LogSequenceNumber = 0
    var watchedSince: Microseconds = 0

    // Acceptor.
    var log: LogIndex
    var promised: View
    var promisedRecord: LogSequenceNumber = 0
    /// The time of an election, and the time that is given to somebody else's, begin when the own promise is durable.
    var awaitsOwnPromise = false
    package internal(set) var established: EstablishedView
    var baseKnown = false
    /// Base of the promised view; meaningful when `baseKnown`.
    package internal(set) var base: Instance = 0
    /// Contiguous: all in base ..< = accepted is accepted in the promised view, or decided. Durable or about to be.
    package internal(set) var accepted: Instance = 0
    /// The newest record that `accepted` rests on.
    var acceptedRecord: LogSequenceNumber = 0
    /// As `accepted`, but durable.
    package internal(set) var acceptedDurable: Instance = 0

    // Learner.
    /// Contiguous: all up to here is decided, known and durable here. The engine executes up to here.
    package internal(set) var decided: Instance
    /// Contiguous: all up to here is decided and known here, durable or about to be.
    var learned: Instance
    /// All up to here is decided, said in the promised view by its leader: entries accepted in that view are the decided ones.
    package internal(set) var commit: Instance = 0
    /// All up to here is decided, as far as anyone said, see `knowWhatIsSaid`.
    package internal(set) var known: Instance
    /// The log is complete from here to `decided`.
    package internal(set) var served: Instance
    /// A peer answered that the next instance is below its log's floor. False again as soon as another peer helps.
    package internal(set) var needsStateTransfer = false
    @usableFromInline var catchUpDeadline: Microseconds = .max
    var catchUpRotation = 0
    /// `learned` when the deadline was set.
    var catchUpMark: Instance = 0
    var catchUpAsked: Instance = 0
    var catchUpPeer: ReplicaIndex = 0

    // Follower.
    /// The leader's round that was heard last in the promised view.
    var heardRound: UInt64 = 0
    /// The highest instance that the leader said, in that round, to have sent.
    var heardHighest: Instance = 0
    /// The last proposal was refused for want of room, and the leader holds back until it hears that there is some.
    package internal(set) var isFull = false
    /// `isFull` because the log had no slot for this instance; 0: not for that.
    var wantedSlot: Instance = 0
    /// The leader of the promised view was heard in it.
    var leaderActive = false
    var lastContact: Microseconds = 0
    var hadContact = false
    @usableFromInline var electionDeadline: Microseconds = .max
    /// The candidate of the promised view has asked for promises, last for those above this instance.
    var isSolicited = false
    var solicitedAfter: Instance = 0
    /// The newest record that the answer to it rests on.
    var promiseRecord: LogSequenceNumber = 0

    /// Elections in a row that asked for promises and led to nothing, without a leader heard between: this replica's
    /// own, and those of others that it waited for.
    var failedElections: UInt64 = 0

    // Candidate.
    var phase = Phase.preVote
    var targetView: View = 0
    var votes: UInt16 = 0
    @usableFromInline var prepareDeadline: Microseconds = .max
    var candidateHighest: Instance = 0
    var adoptCursor: Instance = 0
    /// What must be durable before the election goes on.
    var awaitedRecord: LogSequenceNumber = 0
    let adopted: UnsafeMutablePointer<Adopted>
    let segments: UnsafeMutablePointer<PromiseSegment>

    // Leader.
    var nextInstance: Instance = 0
    /// Counts the repetitions of proposals, see `Message.round`.
    var round: UInt64 = 0
    var lastLearned: Instance = 0
    var lastLearnedAt: Microseconds = 0

    /// A core as storage recovered it. `floor` is the lowest instance that the log may still hold (1 at first), `executed` the
    /// highest that the state machine executed; nothing below the floor may be unexecuted. Follow with `restore`, then `start`.
    package init(
        configuration: Configuration, promised: View, established: EstablishedView?, floor: Instance, executed: Instance
    ) {
        invariant(floor >= 1, "instances begin at 1")
        invariant(executed + 1 >= floor, "only executed instances were trimmed")
        self.configuration = configuration
        me = configuration.replica
        memberCount = configuration.replicaCount
        quorum = configuration.quorum
        window = UInt64(configuration.window)
        random = Random(seed: configuration.seed &+ UInt64(configuration.replica) &* 0x1_0000_0001)
        log = LogIndex(slotCount: configuration.slotCount, floor: floor)
        self.promised = promised
        self.established = established ?? EstablishedView(view: 0, base: 0)
        decided = executed
        learned = executed
        known = executed
        served = floor
        peers = .allocate(capacity: configuration.replicaCount)
        peers.initialize(repeating: Peer(), count: configuration.replicaCount)
        for peer in 0..<memberCount { peers[peer].patience = configuration.retransmit }
        adopted = .allocate(capacity: configuration.slotCount)
        adopted.initialize(repeating: Adopted(), count: configuration.slotCount)
        segments = .allocate(capacity: configuration.replicaCount * Self.segmentsPerPeer)
        segments.initialize(repeating: PromiseSegment(), count: configuration.replicaCount * Self.segmentsPerPeer)
        if self.established.view > self.promised { self.promised = self.established.view }
    }

    deinit {
        peers.deallocate()
        adopted.deallocate()
        segments.deallocate()
    }

    /// Puts back what storage recovered for one instance, in any order. Instances below the floor are ignored.
    package mutating func restore(instance: Instance, view: View, batch: Batch) {
        invariant(role == .recovering, "the log is restored before the start")
        invariant(view > 0, "an accepted entry has a view")
        guard instance >= log.floor else { return }
        invariant(log.fits(instance), "storage has as many slots as the core")
        log.set(
            instance, Entry(view: view, batch: batch, record: 0, isDecided: view == decidedView || instance <= decided))
        // The acceptance may have outlived the record of its promise in a crash; it implies it.
        if view != decidedView && view > promised { promised = view }
    }

    /// Begins to take part. A leader that was killed resumes in its own view, if its promise still stands and it is not refused.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func start(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .recovering, "a core starts once")
        invariant(effects.hasRoom, "effects have room for a step")
        // A state snapshot may have brought `executed` further than the log reaches: what is below a hole cannot be served.
        var instance = decided
        while instance >= log.floor {
            if log[instance].view == 0 {
                served = instance + 1
                break
            }
            instance -= 1
        }
        role = .follower
        lastContact = now
        // A cluster that never had a leader has none to be loyal to.
        hadContact = promised > 0
        restartElectionTimer(now)
        learn()
        if canResume {
            resume(now: now, into: &effects)
        } else if memberCount == 1 {
            beginElection(now: now, into: &effects)
        }
        settle(now: now)
    }

    /// A replica of a new cluster, started for the first time: if it leads the first view, it stands for election at once, where it
    /// would otherwise wait for a leader that cannot be. Else does nothing.
    package mutating func standIfFirst(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(effects.hasRoom, "effects have room for a step")
        guard role == .follower, promised == 0, leadingReplica(of: 1, among: memberCount) == me else { return }
        beginElection(now: now, into: &effects)
        settle(now: now)
    }

    /// Time passed. To be called at `nextDeadline`, or whenever.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func tick(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role != .recovering, "a core is started first")
        invariant(effects.hasRoom, "effects have room for a step")
        switch role {
        case .leader: leaderTick(now: now, into: &effects)
        case .candidate: candidateTick(now: now, into: &effects)
        case .follower:
            if now >= electionDeadline {
                // It gave its promise to somebody who did not come to lead.
                if isSolicited && !leaderActive { failedElections += 1 }
                beginElection(now: now, into: &effects)
            }
        case .recovering: break
        }
        if now >= catchUpDeadline { catchUpTick(now: now, into: &effects) }
        settle(now: now)
    }

    /// When `tick` has something to do; it may lie in the past. `.max`: never, by itself.
    @inlinable package var nextDeadline: Microseconds {
        switch role {
        case .leader: min(catchUpDeadline, leaderDeadline)
        case .candidate: min(catchUpDeadline, min(electionDeadline, prepareDeadline))
        case .follower: min(catchUpDeadline, electionDeadline)
        case .recovering: .max
        }
    }

    /// Whether the bytes of `message.batch` are worth copying. If not, call `receive` all the same, which then keeps no handle.
    package func wants(_ message: Message, from: ReplicaIndex) -> Bool {
        guard isPlausible(message, from: from), message.view <= promised + mostViewsAtOnce else { return false }
        switch message.kind {
        case .accept: return wantsProposal(message)
        case .decided: return wantsDecided(message)
        case .promise: return wantsPromise(message, from: from)
        default: return false
        }
    }

    /// A message came from a peer. Its `batch` is a local handle to a copy of the bytes. Returns whether the core keeps the
    /// handle; if not, the copy may be dropped.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func receive(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) -> Bool {
        invariant(role != .recovering, "a core is started first")
        invariant(effects.hasRoom, "effects have room for a step")
        guard isPlausible(message, from: from) else {
            counters.refused += 1
            return false
        }
        // Whoever speaks in a view has promised it, or may learn of it: so does this replica. A pre-vote speaks of a view
        // that nobody may ever promise. Values that are decided in a higher view may count for acknowledgements only once the
        // promise of that view is durable, see `wantsDecided`.
        if message.view > promised && message.kind != .preVote && message.kind != .preVoteGrant {
            guard reach(message.view, now: now, into: &effects) else { return false }
        }
        if message.commit > known { known = message.commit }
        switch message.kind {
        case .preVote, .promise, .accepted, .decided, .belowFloor, .nack: peers[from].decided = message.commit
        default: break
        }
        var kept = false
        switch message.kind {
        case .preVote: receivePreVote(message, from: from, now: now, into: &effects)
        case .preVoteGrant: receivePreVoteGrant(message, from: from, now: now, into: &effects)
        case .prepare: receivePrepare(message, from: from, now: now, into: &effects)
        case .promise: kept = receivePromise(message, from: from, now: now, into: &effects)
        case .accept: kept = receiveProposal(message, from: from, now: now, into: &effects)
        case .accepted: receiveAccepted(message, from: from, now: now, into: &effects)
        case .heartbeat: receiveHeartbeat(message, from: from, now: now, into: &effects)
        case .catchUpRequest: receiveCatchUpRequest(message, from: from, into: &effects)
        case .decided: kept = receiveDecided(message, from: from, now: now, into: &effects)
        case .belowFloor: receiveBelowFloor(message, from: from, now: now)
        case .nack: break
        }
        settle(now: now)
        return kept
    }

    /// Proposes a batch, whose bytes are in the arena. Returns its instance, or nil when `canPropose` is false: then the handle
    /// was not kept. It is decided when `decided` reaches the instance, unless `entry(at:)` then shows another batch.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func propose(_ batch: Batch, now: Microseconds, into effects: inout EffectBuffer) -> Instance? {
        invariant(effects.hasRoom, "effects have room for a step")
        guard canPropose else { return nil }
        let instance = proposeNext(batch, now: now, into: &effects)
        invariant(log[instance].batch == batch, "the proposal is in the log")
        return instance
    }

    /// All records up to `number` are durable. Never lower than before.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func durable(_ number: LogSequenceNumber, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(number >= durableRecord && number <= lastRecord, "durable is what was asked for, and only rises")
        invariant(effects.hasRoom, "effects have room for a step")
        durableRecord = number
        settle(now: now)
        if awaitsOwnPromise && promisedRecord <= durableRecord {
            awaitsOwnPromise = false
            // Before, nobody could hear of it: neither whom it was given to, nor whom this candidate asks for theirs.
            if role == .candidate && phase == .prepare {
                restartElectionTimer(now)
                prepareDeadline = now + solicitationTime
            } else if role == .follower && isSolicited && !leaderActive {
                restartElectionTimer(now)
            }
        }
        if role == .candidate && phase != .preVote {
            continueElection(now: now, into: &effects)
        }
        settle(now: now)
    }

    /// The link to a peer is up (again): what was sent before may be lost.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func connected(_ peer: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role != .recovering, "a core is started first")
        invariant(effects.hasRoom, "effects have room for a step")
        guard peer >= 0 && peer < memberCount && peer != me else { return }
        // It may have restarted, with less than it had executed: what is far above that it would refuse.
        peers[peer].decided = 0
        knowWhatIsSaid()
        // What a leader said to have sent on the old link it sends again.
        if peer == leadingReplica(of: promised, among: memberCount) { heardHighest = 0 }
        // What it was asked for may be lost too.
        if peer == catchUpPeer && catchUpDeadline < .max { catchUpDeadline = now }
        switch role {
        case .leader: reconnect(peer, now: now, into: &effects)
        case .candidate: solicit(peer, into: &effects)
        case .follower, .recovering: break
        }
    }

    /// How many bytes of batches may be sent to a peer from now on, and how long an answer of it may take. Proposals
    /// that do not fit wait in the log where they lie; an answer to a question ends early, and the rest is asked for.
    /// Without a word of the driver there is no limit.
    /// - Parameter distance: the least round trip to the peer; 0: not known.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func allow(
        _ bytes: Int, patience: Microseconds?, distance: Microseconds = 0, to peer: ReplicaIndex, now: Microseconds,
        into effects: inout EffectBuffer
    ) {
        invariant(peer >= 0 && peer < memberCount && peer != me, "a replica sends to its peers")
        invariant(effects.hasRoom, "effects have room for a step")
        peers[peer].room = bytes
        if let patience { peers[peer].patience = patience }
        if distance > 0 { peers[peer].distance = distance }
        if role == .leader && bytes > 0 { pump(peer, now: now, into: &effects) }
    }

    /// A part of something large came from a peer: it answers, though its answer is not whole.
    package mutating func hears(_ peer: ReplicaIndex, now: Microseconds) {
        invariant(peer >= 0 && peer < memberCount && peer != me, "a replica hears its peers")
        if catchUpDeadline != .max, peer == leader || peer == catchUpPeer && catchUpAsked != 0 {
            catchUpDeadline = max(catchUpDeadline, now + answerTime(of: peer))
        }
        // Whose promise is whole has nothing more to say that an election waits for.
        if role == .candidate && phase == .prepare && prepareDeadline != .max && peers[peer].covered != .max {
            prepareDeadline = max(prepareDeadline, now + answerTime(of: peer))
            restartElectionTimer(now)
        }
    }

    /// The engine dropped all entries below `floor` from the log; it may drop what is executed. Lower floors are ignored.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func advanceFloor(to floor: Instance, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(floor <= decided + 1, "only decided entries are trimmed")
        guard floor > log.floor else { return }
        log.advanceFloor(to: floor)
        if served < floor { served = floor }
        settle(now: now)
        if wantedSlot > 0 && log.fits(wantedSlot) { resumeAccepting(now: now, into: &effects) }
    }

    // MARK: Readable state

    /// The highest view promised.
    package var view: View { promised }

    /// The leader of the current view, if it was heard in it (or is this replica).
    package var leader: ReplicaIndex? {
        if role == .leader { return me }
        return leaderActive && role == .follower ? leadingReplica(of: promised, among: memberCount) : nil
    }

    /// Leader: the last instance that was sent to a peer, and the last that it acknowledged.
    package func progress(of peer: ReplicaIndex) -> (sent: Instance, acknowledged: Instance) {
        invariant(peer >= 0 && peer < memberCount, "a peer is a member")
        return role == .leader && peer != me ? (peers[peer].next - 1, peers[peer].acked) : (0, 0)
    }

    /// Leader: there are proposals that were not sent to a peer yet.
    package func isShort(of peer: ReplicaIndex) -> Bool { role == .leader && peers[peer].next < nextInstance }

    /// How often a proposal to a peer was repeated.
    package func repetitions(to peer: ReplicaIndex) -> UInt64 { peers[peer].repetitions }

    /// The lowest instance that the log may hold.
    package var floor: Instance { log.floor }

    /// The first instance for which the log has no slot.
    package var end: Instance { log.end }

    /// The highest instance in the log.
    package var highest: Instance { log.highest }

    /// Leader: the instance of the next proposal.
    package var next: Instance { role == .leader ? nextInstance : log.highest + 1 }

    /// The number of the newest record that was emitted.
    package var newestRecord: LogSequenceNumber { lastRecord }

    /// The entry of an instance at or above the floor, or nil. Decided ones (up to `decided`) are there to be executed.
    package func entry(at instance: Instance) -> Entry? {
        let entry = log[instance]
        return entry.view == 0 ? nil : entry
    }

    /// Whether the core may still name the batch at `offset` for `instance`, in the log or among the values that a candidate
    /// is about to adopt. If not, its bytes may go.
    package func isReferenced(instance: Instance, offset: UInt64) -> Bool {
        let entry = log[instance]
        if entry.view != 0 && entry.batch.offset == offset { return true }
        guard let value = adoptedValue(instance) else { return false }
        return value.batch.offset == offset
    }

    /// The bytes of the batch that an instance is voted for lie elsewhere now.
    package mutating func moved(_ instance: Instance, to batch: Batch) {
        var entry = log[instance]
        invariant(
            entry.view != 0 && entry.batch.length == batch.length && entry.batch.checksum == batch.checksum,
            "a batch that is moved is that of its instance, and stays what it is")
        entry.batch = batch
        log.set(instance, entry)
    }

    // MARK: Shared

    mutating func persist(
        _ kind: Record.Kind, view: View, instance: Instance, batch: Batch, into effects: inout EffectBuffer
    ) -> LogSequenceNumber {
        lastRecord += 1
        effects.append(Record(number: lastRecord, kind: kind, view: view, instance: instance, batch: batch))
        return lastRecord
    }

    func send(
        _ message: Message, to peer: ReplicaIndex, after: LogSequenceNumber, into effects: inout EffectBuffer
    ) {
        invariant(peer != me, "a replica sends nothing to itself")
        effects.append(Send(after: after > durableRecord ? after : 0, to: peer, message: message))
    }

    mutating func watchStorage(now: Microseconds) {
        guard durableRecord >= watchedRecord else { return }
        watchedRecord = lastRecord
        watchedSince = now
    }

    /// Whether a record has not become durable for several suspect periods. Who cannot keep what it says can say nothing new: it
    /// is not to lead, and its voice is worth nothing in elections.
    func isStuck(now: Microseconds) -> Bool {
        durableRecord < watchedRecord && now >= watchedSince + 3 * configuration.suspect
            && !configuration.plantedBugs.contains(.stuckStorageUnnoticed)
    }

    /// Brings all that follows from what is known up to date: the acknowledged prefix, votes, decisions, what is missing.
    mutating func settle(now: Microseconds) {
        watchStorage(now: now)
        advanceAccepted()
        if role == .leader {
            countVotes()
        } else if quorum <= 2 && baseKnown && leadingReplica(of: promised, among: memberCount) != me {
            // The proposer accepted durably before it proposed: with one's own vote that is a quorum.
            raiseCommit(to: acceptedDurable)
        }
        learn()
        // What a leader knows as decided without its followers' votes, they must hear of: it may be trimmed before they have it.
        if role == .leader && commit < decided { raiseCommit(to: decided) }
        advanceAccepted()
        scheduleCatchUp(now: now)
    }
}
