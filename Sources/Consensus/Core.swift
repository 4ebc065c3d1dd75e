import MPaxosInvariants

/// What a replica is busy with.
@usableFromInline package enum Role: UInt8, Sendable, BitwiseCopyable {
    /// It is being rebuilt from storage: between `init` and `start`.
    case recovering
    case follower
    case candidate
    case leader
}

/// How often things happened since this core started.
package struct Counters: BitwiseCopyable, Hashable, Sendable {
    /// Elections that this replica began, each with its pre-vote.
    package internal(set) var elections: UInt64 = 0
    /// Times this replica became leader.
    package internal(set) var leaderships: UInt64 = 0
    /// Proposals that were sent again, after a link was lost or to fill a gap that a follower named.
    package internal(set) var retransmissions: UInt64 = 0
    /// Decided entries that were learnt by catch-up.
    package internal(set) var caughtUp: UInt64 = 0
    /// Messages that no correct peer sends: their sender may not say such a thing, or their numbers cannot be.
    package internal(set) var refused: UInt64 = 0
}

/// A view that its leader has opened: phase 1 is over, and the leader has durably accepted in it all values that it
/// adopted above `base`.
package struct EstablishedView: BitwiseCopyable, Hashable, Sendable {
    package var view: View
    package var base: Instance

    package init(view: View, base: Instance) {
        self.view = view
        self.base = base
    }
}

/// Multi-Paxos as a pure state machine: events and the time go in, records and messages come out in an `EffectBuffer`.
/// `docs/consensus.md` says what its numbers mean, how they are ordered, and what each message rests on.
///
/// Everything is allocated in `init`. Steps are deterministic, allocate nothing, count no references and take no locks:
/// the compiler proves it in release builds (`@_noLocks`; debug builds see one file at a time, which is not enough for
/// the proof). Steps are the methods with `now` and `into`. A core has one owner, and is not thread-safe. Before each
/// step `effects.hasRoom` must hold. What each role does is in an extension, one a file.
@usableFromInline package struct Core: ~Copyable {
    private let inPlace = InPlace()
    /// One step emits at most so many records, and at most so many sends.
    package static let effectsPerStep = 384
    /// A step sends at most so many entries to one peer, and persists at most so many.
    static let burst: Instance = 32
    /// A step sends at most so many bytes of batches to one peer, but one batch at least.
    static let burstBytes = 1 << 20
    /// Bytes that a message takes on the way besides its batch.
    static let messageBytes = 64

    static let segmentsPerPeer = 64

    enum Phase: UInt8 {
        /// The candidate asks whether an election would succeed.
        case preVote
        /// It collects promises.
        case prepare
        /// It makes the adopted values durable in the new view.
        case adopt
        /// It makes the established record durable, and leads then.
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
    /// All records up to this one had been emitted at `watchedSince`. While it is not durable, the oldest record has
    /// waited since then, or longer.
    var watchedRecord: LogSequenceNumber = 0
    var watchedSince: Microseconds = 0

    // Acceptor.
    var log: LogIndex
    var promised: View
    var promisedRecord: LogSequenceNumber = 0
    /// The own promise is not durable yet. When it is, the time of this replica's election begins, or the time that it
    /// gives to somebody else's.
    var awaitsOwnPromise = false
    package internal(set) var established: EstablishedView
    /// The base of the promised view is known: its leader was heard, or is this replica.
    var baseKnown = false
    /// Base of the promised view; meaningful when `baseKnown`.
    package internal(set) var base: Instance = 0
    /// All in base ..< = accepted, without a gap, is accepted in the promised view or decided, and is durable or about
    /// to be.
    package internal(set) var accepted: Instance = 0
    /// The newest record that `accepted` rests on.
    var acceptedRecord: LogSequenceNumber = 0
    /// As `accepted`, for what is durable.
    package internal(set) var acceptedDurable: Instance = 0

    // Learner.
    /// All up to here, without a gap, is decided, known and durable here. The executor may execute up to here.
    package internal(set) var decided: Instance
    /// All up to here, without a gap, is decided and known here, and is durable or about to be.
    var learned: Instance
    /// All up to here is decided, by the word of the promised view's leader: entries up to here that were accepted in
    /// that view are the decided ones.
    package internal(set) var commit: Instance = 0
    /// All up to here is decided, by anybody's word, see `knowWhatIsSaid`.
    package internal(set) var known: Instance
    /// The log is complete from here to `decided`.
    package internal(set) var served: Instance
    /// A peer answered that the next instance is below its log's floor, and none has brought that instance since.
    package internal(set) var needsStateTransfer = false
    @usableFromInline var catchUpDeadline: Microseconds = .max
    /// How often the same instance was asked for: each time another peer is asked.
    var catchUpRotation = 0
    /// `learned` when the deadline was set.
    var catchUpMark: Instance = 0
    /// The first instance that was asked for last; 0 for none.
    var catchUpAsked: Instance = 0
    /// Who was asked last.
    var catchUpPeer: ReplicaIndex = 0

    // Follower.
    /// The round of the leader that was heard last in the promised view.
    var heardRound: UInt64 = 0
    /// The highest instance that the leader said, in that round, to have sent.
    var heardHighest: Instance = 0
    /// The last proposal was refused for want of room, and the leader holds back until it hears that there is some.
    package internal(set) var isFull = false
    /// Told from outside: for three suspect periods nothing that is decided was executed here, and so the log has no
    /// room for what is to be proposed; others did execute, and may have room. This replica is not to lead.
    package var standsStill = false
    /// The instance for which the log had no slot, where that is why `isFull` is set; 0 else.
    var wantedSlot: Instance = 0
    /// The leader of the promised view was heard in it.
    var leaderActive = false
    /// When a leader, or a candidate that gets on, was last heard; of no meaning unless `hadContact`.
    var lastContact: Microseconds = 0
    var hadContact = false
    @usableFromInline var electionDeadline: Microseconds = .max
    /// The candidate of the promised view has asked for promises, last for those above this instance.
    var isSolicited = false
    var solicitedAfter: Instance = 0
    /// The newest record that the answer to it rests on.
    var promiseRecord: LogSequenceNumber = 0

    /// Elections in a row that asked for promises and led to nothing, with no leader heard in between: those of this
    /// replica, and those of others that it waited for.
    var failedElections: UInt64 = 0

    // Candidate.
    var phase = Phase.preVote
    /// The view that is to be promised if the pre-vote succeeds.
    var targetView: View = 0
    /// Bit i: replica i grants the pre-vote.
    var votes: UInt16 = 0
    @usableFromInline var prepareDeadline: Microseconds = .max
    /// The highest instance that a promise, or the own log, has an entry for.
    var candidateHighest: Instance = 0
    /// The next instance to adopt a value for.
    var adoptCursor: Instance = 0
    /// What must be durable before the election goes on.
    var awaitedRecord: LogSequenceNumber = 0
    let adopted: UnsafeMutablePointer<Adopted>
    let segments: UnsafeMutablePointer<PromiseSegment>

    // Leader.
    /// The instance of the next proposal.
    var nextInstance: Instance = 0
    /// Counts the repetitions of proposals, see `Message.round`.
    var round: UInt64 = 0
    /// `learned` when it last rose, or was not below the base, and when that was.
    var lastLearned: Instance = 0
    var lastLearnedAt: Microseconds = 0

    /// A core as storage recovered it. `floor` is the lowest instance that the log may still hold (1 at first),
    /// `executed` the highest that the state machine executed; all below the floor is executed. `restore` comes next,
    /// then `start`.
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

    /// Puts back what storage recovered for one instance. The order does not matter; instances below the floor are
    /// ignored.
    package mutating func restore(instance: Instance, view: View, batch: Batch) {
        invariant(role == .recovering, "the log is restored before the start")
        invariant(view > 0, "an accepted entry has a view")
        guard instance >= log.floor else { return }
        invariant(log.fits(instance), "storage has as many slots as the core")
        log.set(
            instance, Entry(view: view, batch: batch, record: 0, isDecided: view == decidedView || instance <= decided))
        // In a crash the acceptance may have outlived the record of its promise: it implies the promise.
        if view != decidedView && view > promised { promised = view }
    }

    /// Begins to take part. A leader that was killed resumes in its own view, if its promise still stands.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func start(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .recovering, "a core starts once")
        invariant(effects.hasRoom, "effects have room for a step")
        // A snapshot of a state may have brought `executed` further than the log reaches: what is below a hole cannot
        // be served.
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

    /// A replica of a new cluster started for the first time. If it leads the first view it stands for election at
    /// once: there can be no leader to wait for. Else this does nothing.
    package mutating func standIfFirst(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(effects.hasRoom, "effects have room for a step")
        guard role == .follower, promised == 0, leadingReplica(of: 1, among: memberCount) == me else { return }
        beginElection(now: now, into: &effects)
        settle(now: now)
    }

    /// Time has passed. To be called at `nextDeadline`; other times do no harm.
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
                // The promise was given to somebody who did not come to lead.
                if isSolicited && !leaderActive { failedElections += 1 }
                beginElection(now: now, into: &effects)
            }
        case .recovering: break
        }
        if now >= catchUpDeadline { catchUpTick(now: now, into: &effects) }
        settle(now: now)
    }

    /// When `tick` has something to do, which may lie in the past; `.max` where nothing but an event can bring that.
    @inlinable package var nextDeadline: Microseconds {
        switch role {
        case .leader: min(catchUpDeadline, leaderDeadline)
        case .candidate: min(catchUpDeadline, min(electionDeadline, prepareDeadline))
        case .follower: min(catchUpDeadline, electionDeadline)
        case .recovering: .max
        }
    }

    /// Whether the bytes of `message.batch` are worth copying. Where they are not, `receive` is to be called all the
    /// same, and keeps no handle.
    package func wants(_ message: Message, from: ReplicaIndex) -> Bool {
        guard isPlausible(message, from: from), message.view <= promised + mostViewsAtOnce else { return false }
        switch message.kind {
        case .accept: return wantsProposal(message)
        case .decided: return wantsDecided(message)
        case .promise: return wantsPromise(message, from: from)
        default: return false
        }
    }

    /// A message came from a peer. Its `batch` is a local handle to a copy of the bytes. Returns whether the core keeps
    /// the handle; where it does not, the copy may be dropped.
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
        // Whoever speaks in a view has promised it, or knows of somebody who has, and this replica promises it as well.
        // Not for a pre-vote, which speaks of a view that perhaps nobody ever promises. Values that were decided in a
        // higher view count for acknowledgements only when the promise of that view is durable, see `wantsDecided`.
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

    /// Proposes a batch whose bytes are in the arena. Returns its instance, or nil when `canPropose` is false: then the
    /// handle is not kept. The batch is decided when `decided` reaches the instance, unless `entry(at:)` shows another
    /// batch by then.
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

    /// All records up to `number` are durable; the number never falls.
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
            // Nobody could hear of the promise before: neither the candidate that it is given to, nor the peers that
            // this candidate asks for theirs.
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

    /// The link to a peer is up, perhaps again: what was sent before may be lost.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func connected(_ peer: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role != .recovering, "a core is started first")
        invariant(effects.hasRoom, "effects have room for a step")
        guard peer >= 0 && peer < memberCount && peer != me else { return }
        // The peer may have restarted, and know less than it had decided: it would refuse what is far above that.
        peers[peer].decided = 0
        knowWhatIsSaid()
        // A leader sends again what it said to have sent on the old link.
        if peer == leadingReplica(of: promised, among: memberCount) { heardHighest = 0 }
        // The question to this peer, or its answer, may be lost too.
        if peer == catchUpPeer && catchUpDeadline < .max { catchUpDeadline = now }
        switch role {
        case .leader: reconnect(peer, now: now, into: &effects)
        case .candidate: solicit(peer, into: &effects)
        case .follower, .recovering: break
        }
    }

    /// How many bytes of batches may be sent to a peer from now on, and how long an answer of it may take. Proposals
    /// that do not fit wait in the log where they lie; an answer to a question ends early, and the rest is asked for.
    /// Where the driver says nothing there is no limit.
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

    /// A part of something large came from a peer: the peer is answering, though its answer is not whole yet.
    package mutating func hears(_ peer: ReplicaIndex, now: Microseconds) {
        invariant(peer >= 0 && peer < memberCount && peer != me, "a replica hears its peers")
        if catchUpDeadline != .max, peer == leader || peer == catchUpPeer && catchUpAsked != 0 {
            catchUpDeadline = max(catchUpDeadline, now + answerTime(of: peer))
        }
        // A peer whose promise is whole has nothing more to say that an election waits for.
        if role == .candidate && phase == .prepare && prepareDeadline != .max && peers[peer].covered != .max {
            prepareDeadline = max(prepareDeadline, now + answerTime(of: peer))
            restartElectionTimer(now)
        }
    }

    /// The engine has dropped all entries below `floor` from its log, where it may drop what is executed. Lower floors
    /// are ignored.
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

    /// The highest view that this replica has promised.
    package var view: View { promised }

    /// The leader of the promised view, if it was heard in that view or is this replica.
    package var leader: ReplicaIndex? {
        if role == .leader { return me }
        return leaderActive && role == .follower ? leadingReplica(of: promised, among: memberCount) : nil
    }

    /// Leader: the last instance that was sent to a peer, and the last that the peer acknowledged.
    package func progress(of peer: ReplicaIndex) -> (sent: Instance, acknowledged: Instance) {
        invariant(peer >= 0 && peer < memberCount, "a peer is a member")
        return role == .leader && peer != me ? (peers[peer].next - 1, peers[peer].acked) : (0, 0)
    }

    /// Leader: whether there are proposals that were not sent to a peer yet.
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

    /// The entry of an instance at or above the floor, or nil. Those up to `decided` may be executed.
    package func entry(at instance: Instance) -> Entry? {
        let entry = log[instance]
        return entry.view == 0 ? nil : entry
    }

    /// Whether the core may still name the batch at `offset` for `instance`, in the log or among the values that a
    /// candidate is about to adopt. If not, the bytes of the batch may be overwritten.
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
        // What a candidate may propose can be the same bytes, which came again with a promise.
        if let value = adoptedValue(instance), value.batch == entry.batch {
            adopted[Int(instance % log.slotCount)].batch = batch
        }
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

    /// Whether a record has not become durable for three suspect periods. A replica that cannot keep what it says can
    /// say nothing new: it is not to lead, and its voice is worth nothing in elections.
    func isStuck(now: Microseconds) -> Bool {
        durableRecord < watchedRecord && now >= watchedSince + 3 * configuration.suspect
            && !configuration.plantedBugs.contains(.stuckStorageUnnoticed)
    }

    /// Brings up to date all that follows from what is known: the acknowledged prefix, votes, decisions, what is
    /// missing.
    mutating func settle(now: Microseconds) {
        watchStorage(now: now)
        advanceAccepted()
        if role == .leader {
            countVotes()
        } else if quorum <= 2 && baseKnown && leadingReplica(of: promised, among: memberCount) != me {
            // The leader accepted durably before it proposed: with the own vote that is a quorum.
            raiseCommit(to: acceptedDurable)
        }
        learn()
        // Followers must hear of what a leader knows as decided without their votes: it may be trimmed before they have
        // it.
        if role == .leader && commit < decided { raiseCommit(to: decided) }
        advanceAccepted()
        scheduleCatchUp(now: now)
    }
}
