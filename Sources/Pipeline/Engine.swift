import Logging
import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosQueues
import MPaxosStateTransfer
import MPaxosStorage
import MPaxosWire

/// The stage that decides: batcher, core and journal in one, since all three work on the acceptor pool, which has one
/// owner (decision 0003).
///
/// A turn takes what came from peers and clients through the core, which leaves records and messages in `effects`; then
/// the journal makes all records durable with one fence, and only then the messages leave. What is decided goes to the
/// executor.
package final class Engine: Stage {
    let index: Int
    let clock: Clock
    let progress: Progress
    let board: StatusBoard
    let acceptor: AcceptorPool
    // One lane owns the engine, and no access to these overlaps another: the checks of that would cost at every turn.
    @exclusivity(unchecked) var core: Core
    @exclusivity(unchecked) var effects = EffectBuffer()
    @exclusivity(unchecked) var batcher: Batcher

    let memberIDs: [UInt16]
    let memberCount: Int
    private let arrivals: SPSCRing<Arrival>
    private let decided: SPSCRing<DecidedBatch>
    private let gate: Gate?
    let traffic: PeerTraffic
    private let transfer: StateTransfer
    let logger: Logger
    let alarm: Alarm
    @exclusivity(unchecked) var comparison: DigestComparison
    let digests: SPSCRing<DigestComparison.Standing>
    /// What the executor stated last, and when it was told to the others last.
    @exclusivity(unchecked) var digestStated: DigestComparison.Standing?
    @exclusivity(unchecked) var digestToldAt: UInt64 = 0
    /// Peers that were linked at the last look: to the others all is told that is kept.
    @exclusivity(unchecked) var toldOfDigests: UInt16 = 0
    private let executor: Parker
    private let gateway: Parker
    private let links: Parker

    let incoming = Frame()
    let outgoing = Frame()
    /// The buffer in which runs for the leader are put together.
    @exclusivity(unchecked) var scratch: UnsafeMutableRawBufferPointer
    /// The last instance handed to the executor.
    @exclusivity(unchecked) private var delivered: UInt64
    /// Whether batches hold enough these days to overlap: the last one did.
    @exclusivity(unchecked) var lastWasConsiderable = false
    @exclusivity(unchecked) private var publishedRole = Role.recovering
    @exclusivity(unchecked) private var publishedExecuted: UInt64 = 0
    /// Bytes of the batch that was refused for want of room, and what was executed when room was looked for last.
    @exclusivity(unchecked) var refusedBytes = 0
    @exclusivity(unchecked) var refusedAt: UInt64 = 0
    /// What was executed when a proposal of this replica last found no room; `.max` where the last one found some.
    @exclusivity(unchecked) var lackedRoomAt: UInt64 = .max
    /// By replica: how far it has executed, as it said last with its digest.
    @exclusivity(unchecked) var toldExecuted: [UInt64]
    /// What was executed when execution was looked at last, and since when it stands there while others get on.
    @exclusivity(unchecked) var stoodAt: UInt64 = 0
    @exclusivity(unchecked) var stoodSince: UInt64 = 0
    /// Large batches on their way ahead of their proposals.
    @exclusivity(unchecked) var dissemination = Dissemination()
    /// Since this replica led last, what it sent ahead has not been forgotten.
    @exclusivity(unchecked) var wasLeading = false
    @exclusivity(unchecked) var pacing: Pacing
    /// What the last survey found, and when: the round trip to a quorum, and whether the leader waits for a follower.
    @exclusivity(unchecked) var surveyedAt: UInt64 = 0
    @exclusivity(unchecked) var quorumRoundTrip: UInt64 = 0
    @exclusivity(unchecked) var isHeldBack = false
    /// When the commands that wait for company began to; .max: none do.
    @exclusivity(unchecked) var gatheringSince: UInt64 = .max
    @exclusivity(unchecked) private var polledAt: UInt64 = 0
    /// The view at the last survey.
    @exclusivity(unchecked) var surveyedView: UInt64 = 0
    /// The view in which what comes in pieces was begun.
    @exclusivity(unchecked) var incomingView: UInt64 = 0
    /// The logs of the peers do not reach back to where this replica stands.
    @exclusivity(unchecked) private var isStranded = false
    /// Whether this replica was ready at some time since it started.
    @exclusivity(unchecked) private var hasCaughtUp = false
    /// When each complaint about each peer may be logged next, see `mayLog`.
    @exclusivity(unchecked) var nextLogAt: [UInt64]
    /// Peers that were linked when the cluster was not founded yet.
    private var linkedBeforeFounding: UInt16 = 0
    /// The sums of the counters of earlier cores of this process, which opened anew with another replica's state.
    private let before: (elections: UInt64, resent: UInt64, caughtUp: UInt64)

    /// - Parameters:
    ///   - core: restored, and not started: it starts when the cluster is founded.
    ///   - memberIDs: ids by index, for the incarnations that the acceptor pool remembers.
    package init(
        index: Int, memberIDs: [UInt16], core: consuming Core, clock: Clock, acceptor: AcceptorPool,
        batcher: consuming Batcher, executed: UInt64, progress: Progress, board: StatusBoard, rings: Rings,
        parkers: Parkers, gate: Gate?, traffic: PeerTraffic, transfer: StateTransfer, logger: Logger,
        alarm: Alarm
    ) {
        before = (board.elections.load(), board.resent.load(), board.caughtUpInstances.load())
        self.traffic = traffic
        self.transfer = transfer
        self.logger = logger
        self.alarm = alarm
        comparison = DigestComparison(index: index, count: memberIDs.count)
        self.gate = gate
        self.index = index
        self.memberIDs = memberIDs
        memberCount = memberIDs.count
        toldExecuted = Array(repeating: 0, count: memberIDs.count)
        self.core = core
        self.acceptor = acceptor
        pacing = Pacing(count: memberIDs.count)
        nextLogAt = Array(repeating: 0, count: Complaint.allCases.count * memberIDs.count)
        scratch = .allocate(byteCount: batcher.batchBytes, alignment: 64)
        self.batcher = batcher
        self.clock = clock
        self.progress = progress
        self.board = board
        arrivals = rings.arrivals
        decided = rings.decided
        digests = rings.digests
        executor = parkers.executor
        gateway = parkers.gateway
        links = parkers.links
        delivered = executed
        board.acceptorPoolSize.store(UInt64(acceptor.capacity))
        super.init()
        publishFounding()
        board.isInDispute = false
        if isFounded {
            start(now: clock.now)
        } else {
            let others = memberIDs.filter { $0 != memberIDs[index] }.map(String.init).joined(separator: ", ")
            logger.notice(
                "the cluster is not founded yet, as far as this replica knows: it votes for nothing and serves nobody before it and replicas \(others) have all met each other; STATUS says for whom it waits (waiting_for)"
            )
        }
        publish()
    }

    deinit { scratch.deallocate() }

    /// The highest instance up to which all are known to be decided, and the batch of one that is.
    package var decidedInstance: UInt64 { core.decided }

    /// Nil when the log does not have it.
    package func decidedBatch(of instance: UInt64) -> UnsafeRawBufferPointer? {
        core.entry(at: instance).map { acceptor.bytes(of: $0.batch) }
    }

    /// The state of the engine in words, for traces.
    package var summary: String {
        "next \(core.next), accepted \(core.accepted), known \(core.known), may propose \(core.canPropose), waiting \(batcher.waitingBytes) bytes, held back \(isHeldBack), large \(batcher.hasLarge) \(!dissemination.isEmpty), full \(core.isFull), needs a state \(core.needsStateTransfer), \(acceptor.roomInWords)"
    }

    /// Whether this replica lacks instances that no log holds any more.
    package var needsState: Bool { core.needsStateTransfer }

    /// How much of commands and payloads it holds, by name.
    var held: [(what: String, count: Int)] {
        [
            ("bytes of commands to be proposed", batcher.waitingBytes), ("large batches", batcher.hasLarge ? 1 : 0),
            ("disseminated batches", dissemination.isEmpty ? 0 : 1), ("parcels to peers", traffic.parcels),
        ]
    }

    override package var nextDeadline: UInt64 {
        guard isFounded else { return .max }
        // What a transfer waits for at the desk, and of the executor, is looked for.
        let look = transfer.isActive ? polledAt + Self.transferInterval : .max
        let deadline = min(look, core.nextDeadline, traffic.nextDeadline)
        guard core.role == .leader else { return deadline }
        if isHeldBack { return min(deadline, surveyedAt + Self.surveyInterval) }
        let gathered = gatheringSince == .max ? .max : gatheringSince + longestGathering
        return min(min(deadline, ahead(batcher.nextDeadline)), min(ahead(gathered), ahead(dissemination.nextDeadline)))
    }

    private static let transferInterval: UInt64 = 20_000

    /// A time to propose that had passed at the last turn is none to wake up for: what it waits for, the window or room
    /// in the log, does not come with time.
    private func ahead(_ deadline: UInt64) -> UInt64 { deadline > polledAt ? deadline : .max }

    override package func close() {
        traffic.dropProposals()
        while let batch = dissemination.removeFirst() { batch.frame.discard() }
        batcher.discard()
    }

    override package func poll(budget: Int, now: UInt64) -> Bool {
        polledAt = now
        guard isFounded else { return awaitFounding(budget: budget, now: now) }
        var work = 0
        traffic.begin(now: now)
        // The links have stopped to receive, or are about to: they go on when there is room.
        let isCrowded = arrivals.count + Arrival.most >= arrivals.capacity
        while work < budget, let arrival = arrivals.pop() {
            work += take(arrival, now: now)
        }
        if isCrowded { links.wake() }
        lookAtExecution(now: now)
        if now >= core.nextDeadline {
            makeRoomForEffects(now: now)
            core.tick(now: now, into: &effects)
        }
        freeSlots(now: now)
        if core.isFull { lookForRoom(now: now) }
        if now >= surveyedAt + Self.surveyInterval { survey(now: now) }
        if core.role == .leader {
            wasLeading = true
            allow(now: now)
            work += propose(now: now)
            if batcher.hasLarge || !dissemination.isEmpty { work += disseminate(now: now) }
        } else {
            work += forward(now: now)
        }
        if !effects.isEmpty {
            work += 1
            commit(now: now)
        }
        work += deliver()
        if core.needsStateTransfer || transfer.isActive { transfer.poll(standing: standing, now: now) }
        traffic.end()
        gate?.isClosed = core.role == .leader && inFlight >= (lastWasConsiderable ? Self.mostPartial : 1)
        if work > 0 || core.role != publishedRole || progress.executed != publishedExecuted { publish() }
        return work > 0
    }

    // MARK: The founding

    private var isFounded: Bool { progress.founding == .founded }

    private func publishFounding() {
        progress.founding = acceptor.founding
        board.isFounded = isFounded
    }

    /// The core takes part from here on.
    private func start(now: UInt64) {
        core.start(now: now, into: &effects)
        core.standIfFirst(now: now, into: &effects)
    }

    /// Puts on record whom the links meet; what is more is dropped, as if it had been lost.
    private func awaitFounding(budget: Int, now: UInt64) -> Bool {
        var work = 0
        defer { if work > 0 { links.wake() } }
        while work < budget, !isFounded, let arrival = arrivals.pop() {
            work += 1
            switch arrival.kind {
            case .connected:
                remember(arrival.incarnation, arrival.life, of: Int(arrival.peer))
                linkedBeforeFounding |= 1 << UInt16(arrival.peer)
            case .hearsay: remember(arrival.incarnation, arrival.life, of: Int(arrival.peer))
            case .refused: acceptor.record(refusedLife: arrival.life, of: memberIDs[Int(arrival.peer)])
            case .frame:
                incoming.adopt(arrival.frame)
                incoming.clear()
            case .whole:
                acceptor.record(founding: .whole)
                publishFounding()
            case .founded: found(now: now)
            }
        }
        return work > 0
    }

    private func found(now: UInt64) {
        acceptor.record(founding: .founded)
        publishFounding()
        logger.notice("the cluster is founded: all of its replicas have met each other")
        start(now: now)
        for peer in 0..<memberCount where linkedBeforeFounding & 1 << UInt16(peer) != 0 && traffic.isConnected(peer) {
            makeRoomForEffects(now: now)
            traffic.connected(peer, now: now)
            core.connected(peer, now: now, into: &effects)
        }
        publish()
    }

    /// What was handed to the leader may be lost.
    func beginEra() {
        progress.era += 1
        gateway.wake()
    }

    // MARK: Peers

    /// A frame of a state transfer counts for many others, since a chunk takes as long: votes are not to wait for more
    /// than a few.
    private static let workOfTransfer = 64

    /// - Returns: how much work that was.
    private func take(_ arrival: Arrival, now: UInt64) -> Int {
        makeRoomForEffects(now: now)
        let peer = Int(arrival.peer)
        var work = 1
        switch arrival.kind {
        case .connected:
            remember(arrival.incarnation, arrival.life, of: peer)
            traffic.connected(peer, now: now)
            // Runs of commands on their way to the leader are lost.
            if core.leader == peer { beginEra() }
            core.connected(peer, now: now, into: &effects)
        case .hearsay:
            remember(arrival.incarnation, arrival.life, of: peer)
        case .refused: acceptor.record(refusedLife: arrival.life, of: memberIDs[peer])
        case .whole, .founded: broken("a cluster is founded once")
        case .frame:
            incoming.adopt(arrival.frame)
            work = take(frame: UnsafeRawBufferPointer(incoming.bytes), from: peer, now: now)
            incoming.clear()
        }
        return work
    }

    /// A replica that comes back with other pools, or with its own of an earlier time, must not pass for the one that
    /// made promises: so the incarnation and the life are on record before anything else of that peer is looked at.
    private func remember(_ incarnation: UInt64, _ life: Life, of peer: Int) {
        let id = memberIDs[peer]
        if acceptor.incarnation(of: id) != incarnation { acceptor.record(incarnation: incarnation, of: id) }
        let known = acceptor.life(of: id)
        let joined = known.joined(with: life)
        if joined != known { acceptor.record(life: joined, of: id) }
        acceptor.fence()
        progress.record(incarnation, of: peer)
    }

    private func take(frame: UnsafeRawBufferPointer, from peer: Int, now: UInt64) -> Int {
        guard let decoded = try? PeerFrame(decoding: frame), decoded.sender == peer else {
            board.peers[peer].framesMalformed.add(1)
            return 1
        }
        switch decoded.content {
        case .message(let message):
            let refused = core.counters.refused
            receive(message, decoded.payload, from: peer, now: now)
            if core.counters.refused != refused { tellImplausible(message.summary, from: peer, now: now) }
        case .forward(_, let checksum): takeForwarded(decoded.payload, checksum: checksum, from: peer, now: now)
        case .digest(let standing) where standing.executed < plausibleLimit: compare(standing, of: peer, now: now)
        case .digest(let standing): tellImplausible("\(standing)", from: peer, now: now)
        case .transfer(let message):
            transfer.take(message, decoded.payload, from: peer, standing: standing, now: now)
            return Self.workOfTransfer
        case .link(let message):
            if core.view != incomingView {
                // What was sent ahead in another view is of no use any more.
                incomingView = core.view
                traffic.dropIncoming()
            }
            switch traffic.take(message, decoded.payload, from: peer, whole: incoming) {
            case .nothing: break
            case .lost: board.peers[peer].parcelsLost.add(1)
            case .piece: core.hears(peer, now: now)
            case .whole: takeDelivered(from: peer, now: now)
            }
        // The links keep handshakes to themselves: one that comes here came in pieces.
        case .handshake: board.peers[peer].framesMalformed.add(1)
        }
        return 1
    }

    /// `incoming` holds a frame whose payload came in pieces.
    private func takeDelivered(from peer: Int, now: UInt64) {
        let frame = UnsafeRawBufferPointer(incoming.bytes)
        guard let decoded = try? PeerFrame(decoding: frame) else {
            board.peers[peer].framesMalformed.add(1)
            return
        }
        // A frame of the link has nothing to be delivered.
        if case .link = decoded.content {
            board.peers[peer].framesMalformed.add(1)
        } else {
            _ = take(frame: frame, from: peer, now: now)
        }
    }

    private var standing: Standing {
        Standing(
            needsState: core.needsStateTransfer, decided: core.decided, view: core.view, leader: core.leader,
            floor: core.floor, digests: comparison,
            executed: progress.executed, isInDispute: progress.isInDispute)
    }

    private func receive(_ message: Message, _ payload: UnsafeRawBufferPointer, from peer: Int, now: UInt64) {
        guard message.batch.length > 0 else {
            let repetitions = message.reportsGap ? core.repetitions(to: peer) : 0
            _ = core.receive(message, from: peer, now: now, into: &effects)
            // Proposals that wait are among those that the core repeats from here on.
            if message.reportsGap, core.repetitions(to: peer) > repetitions {
                traffic.withdrawProposals(to: peer)
            }
            return
        }
        guard core.wants(message, from: peer) else {
            // What else the message says still counts; its batch is not copied, and must not be kept.
            let kept = core.receive(message, from: peer, now: now, into: &effects)
            invariant(!kept, "the core keeps no batch that it did not want")
            return
        }
        if isInLog(message, payload) {
            // A vote for the same value in another view: the bytes stay where they are.
            var message = message
            message.batch = core.entry(at: message.instance)!.batch
            _ = core.receive(message, from: peer, now: now, into: &effects)
            return
        }
        // Copied once, into the arena, where it stays if the core keeps it.
        guard
            let place = room(
                for: payload.count, instance: message.instance, isAdopted: message.kind == .promise, now: now)
        else { return refuse(message, payload.count, from: peer, now: now) }
        place.copyMemory(from: payload.baseAddress!, byteCount: payload.count)
        var message = message
        let checksum = message.batch.checksum
        message.batch = acceptor.seal(payload.count, for: message.instance)
        guard message.batch.checksum == checksum else {
            acceptor.unseal(message.batch)
            board.peers[peer].framesMalformed.add(1)
            return
        }
        // Before the vote: what is decided is executed by all, whatever it is.
        guard isOfThisCluster(acceptor.bytes(of: message.batch)) else {
            acceptor.unseal(message.batch)
            tellNoRun("the batch of instance \(message.instance)", from: peer, now: now)
            return
        }
        if !core.receive(message, from: peer, now: now, into: &effects) { acceptor.unseal(message.batch) }
    }

    // MARK: Executor

    private func deliver() -> Int {
        var count = 0
        while delivered < core.decided, !decided.isFull {
            guard let entry = core.entry(at: delivered + 1) else {
                broken("a decided instance is in the log")
            }
            let bytes = acceptor.bytes(of: entry.batch)
            let pushed = decided.push(
                DecidedBatch(instance: delivered + 1, bytes: bytes.baseAddress, count: bytes.count))
            invariant(pushed, "a ring with room takes a batch")
            delivered += 1
            count += 1
        }
        if count > 0, decided.publish() { executor.wake() }
        return count
    }

    private func publish() {
        publishedRole = core.role
        publishedExecuted = progress.executed
        publishReadiness()
        board.view.store(core.view)
        board.decided.store(core.decided)
        board.floor.store(core.floor)
        board.acceptorPoolUsed.store(UInt64(acceptor.used))
        board.role =
            switch core.role {
            case .recovering where !isFounded: .joining
            case .leader: .leader
            case .candidate: .candidate
            case .recovering: .recovering
            case .follower: hasCaughtUp && !core.needsStateTransfer ? .follower : .recovering
            }
        if core.needsStateTransfer != isStranded {
            isStranded = core.needsStateTransfer
            if isStranded {
                logger.warning(
                    "cannot catch up from a log: a peer has no instance \(core.decided + 1) any more; this replica was away for longer than their logs reach (log_size), and takes the state of another one unless a log that reaches back turns up"
                )
            }
        }
        if progress.leader != core.leader {
            progress.leader = core.leader
            gateway.wake()
        }
        board.knownLeader = core.leader
        board.elections.store(before.elections + core.counters.elections)
        board.resent.store(before.resent + core.counters.retransmissions)
        board.caughtUpInstances.store(before.caughtUp + core.counters.caughtUp)
    }

    /// Caught up is who has executed all that was decided, but for what can be under way at any time.
    func publishReadiness() {
        let behind = core.known - min(core.known, progress.executed)
        let hasLeader = core.role == .leader ? core.isFollowed : core.leader != nil
        // The first time strictly: but for what is under way. Later a burst may put some more between.
        let tolerated = hasCaughtUp ? UInt64(core.configuration.window) : 2
        let hasCome = hasLeader && behind <= tolerated && !core.needsStateTransfer
        hasCaughtUp = hasCaughtUp || hasCome
        // Before the word that it is ready; from then on each survey tells.
        if hasCome && !board.isReady { board.isInTouch = core.isInTouch(now: polledAt) }
        // Nobody is served from a state of which it is not known whether it is the right one.
        board.isReady = hasCome && !progress.isInDispute
    }
}
