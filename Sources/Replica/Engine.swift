import CSupport
import Consensus
import Logging
import Messaging
import PersistentMemory
import Queues
import Storage
import Wire

/// The stage that decides: batcher, core and journal in one, since all three work on the acceptor pool, which has one
/// owner (decision 0003).
///
/// A turn takes what came from peers and clients through the core, which leaves records and messages in `effects`; then
/// the journal makes all records durable with one fence, and only then the messages leave. What is decided goes to the
/// executor.
final class Engine: Stage {
    let index: Int
    let board: StatusBoard
    let acceptor: AcceptorPool
    // One lane owns the engine, and no access to these overlaps another: the checks of that would cost at every turn.
    @exclusivity(unchecked) var core: Core
    @exclusivity(unchecked) var effects = EffectBuffer()
    @exclusivity(unchecked) var batcher: Batcher

    private let memberIDs: [UInt16]
    private let memberCount: Int
    private let arrivals: SPSCRing<Arrival>
    private let decided: SPSCRing<DecidedBatch>
    private let gate: Gate?
    let traffic: PeerTraffic
    private let transfer: StateTransfer
    private let logger: Logger
    private let executor: Parker

    private let incoming = Frame()
    private let outgoing = Frame()
    /// Where runs for the leader are put together.
    @exclusivity(unchecked) private var scratch: UnsafeMutableRawBufferPointer
    /// The last instance handed to the executor.
    @exclusivity(unchecked) private var delivered: UInt64
    /// Whether batches hold enough these days to overlap: the last one did.
    @exclusivity(unchecked) private var lastWasConsiderable = false
    @exclusivity(unchecked) private var publishedRole = Role.recovering
    @exclusivity(unchecked) private var publishedExecuted: UInt64 = 0
    /// Of the batches accepted above an instance that is missing; at least that.
    @exclusivity(unchecked) private var bytesAboveHole = 0
    /// Bytes of the batch that was refused for want of room, and what was executed when room was looked for last.
    @exclusivity(unchecked) private var refusedBytes = 0
    @exclusivity(unchecked) private var refusedAt: UInt64 = 0
    /// Large batches on their way ahead of their proposals.
    @exclusivity(unchecked) var dissemination = Dissemination()
    /// Since this replica led last, what it sent ahead has not been forgotten.
    @exclusivity(unchecked) private var wasLeading = false
    @exclusivity(unchecked) private var pacing: Pacing
    /// Of the last survey: when it was, the round trip to a quorum, and whether the leader waits for a follower.
    @exclusivity(unchecked) private var surveyedAt: UInt64 = 0
    @exclusivity(unchecked) private var quorumRoundTrip: UInt64 = 0
    @exclusivity(unchecked) private var isHeldBack = false
    /// When the commands that wait for company began to; .max: none do.
    @exclusivity(unchecked) private var gatheringSince: UInt64 = .max
    /// The view in which what comes in pieces was begun.
    @exclusivity(unchecked) private var incomingView: UInt64 = 0
    /// The logs of the peers do not reach back to where this replica stands.
    @exclusivity(unchecked) private var isStranded = false
    /// Since the start, once.
    @exclusivity(unchecked) private var hasCaughtUp = false
    /// Of the cores before this one, when the node opened anew with another replica's state.
    private let before: (elections: UInt64, resent: UInt64, caughtUp: UInt64)

    /// - Parameters:
    ///   - core: restored and started into `effects`.
    ///   - memberIDs: ids by index, for the incarnations that the acceptor pool remembers.
    init(
        index: Int, memberIDs: [UInt16], core: consuming Core, startedInto effects: consuming EffectBuffer,
        acceptor: AcceptorPool, batcher: consuming Batcher, executed: UInt64, board: StatusBoard, rings: Rings,
        parkers: Parkers, gate: Gate?, traffic: PeerTraffic, transfer: StateTransfer, logger: Logger
    ) {
        before = (board.elections.load(), board.resent.load(), board.caughtUpInstances.load())
        self.traffic = traffic
        self.transfer = transfer
        self.logger = logger
        self.gate = gate
        self.index = index
        self.memberIDs = memberIDs
        memberCount = memberIDs.count
        self.core = core
        self.effects = effects
        self.acceptor = acceptor
        pacing = Pacing(count: memberIDs.count)
        scratch = .allocate(byteCount: batcher.batchBytes, alignment: 64)
        self.batcher = batcher
        self.board = board
        arrivals = rings.arrivals
        decided = rings.decided
        executor = parkers.executor
        delivered = executed
        board.acceptorPoolSize.store(UInt64(acceptor.capacity))
        super.init()
        publish()
    }

    deinit { scratch.deallocate() }

    override var nextDeadline: UInt64 {
        let deadline = min(core.nextDeadline, traffic.nextDeadline)
        guard core.role == .leader else { return deadline }
        let gathered = gatheringSince == .max ? .max : gatheringSince + longestGathering
        return min(min(deadline, batcher.nextDeadline), min(gathered, dissemination.nextDeadline))
    }

    override func close() {
        traffic.dropProposals()
        while let batch = dissemination.removeFirst() { batch.frame.discard() }
        batcher.discard()
    }

    override func poll(budget: Int, now: UInt64) -> Bool {
        var work = 0
        traffic.begin(now: now)
        while work < budget, let arrival = arrivals.pop() {
            work += take(arrival, now: now)
        }
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
        traffic.end()
        work += deliver()
        if core.needsStateTransfer || transfer.isActive { transfer.poll(standing: standing, now: now) }
        gate?.isClosed = core.role == .leader && inFlight >= (lastWasConsiderable ? Self.mostPartial : 1)
        if work > 0 || core.role != publishedRole || board.executed.load() != publishedExecuted { publish() }
        return work > 0
    }

    // MARK: Peers

    /// A frame of a state transfer counts for many others, since a chunk takes as long: votes are not to wait for more than a few.
    private static let workOfTransfer = 64

    /// - Returns: how much work that was.
    private func take(_ arrival: Arrival, now: UInt64) -> Int {
        makeRoomForEffects(now: now)
        let peer = Int(arrival.peer)
        var work = 1
        switch arrival.kind {
        case .connected:
            remember(arrival.incarnation, of: peer)
            traffic.connected(peer, now: now)
            core.connected(peer, now: now, into: &effects)
        case .hearsay:
            remember(arrival.incarnation, of: peer)
        case .frame:
            incoming.adopt(arrival.frame)
            work = take(frame: UnsafeRawBufferPointer(incoming.bytes), from: peer, now: now)
            incoming.clear()
        }
        return work
    }

    /// A replica that comes back with other pools must not pass for the one that made promises: so the incarnation is on
    /// record before anything else of that peer is looked at.
    private func remember(_ incarnation: UInt64, of peer: Int) {
        guard acceptor.incarnation(of: memberIDs[peer]) == nil else { return }
        acceptor.record(incarnation: incarnation, of: memberIDs[peer])
        acceptor.fence()
    }

    private func take(frame: UnsafeRawBufferPointer, from peer: Int, now: UInt64) -> Int {
        guard let decoded = try? PeerFrame(decoding: frame), decoded.sender == peer else {
            board.peers[peer].framesMalformed.add(1)
            return 1
        }
        switch decoded.content {
        case .message(let message): receive(message, decoded.payload, from: peer, now: now)
        case .forward(_, let checksum): takeForwarded(decoded.payload, checksum: checksum, from: peer)
        case .transfer(let message):
            transfer.take(message, decoded.payload, from: peer, standing: standing, now: now)
            return Self.workOfTransfer
        case .link(let message):
            switch traffic.take(message, decoded.payload, from: peer, whole: incoming) {
            case .nothing: break
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
            floor: core.floor)
    }

    private func takeForwarded(_ records: UnsafeRawBufferPointer, checksum: UInt32, from peer: Int) {
        guard checksum == Checksum.of(records.baseAddress!, records.count),
            isRun(records, ofReplica: peer)
        else {
            board.peers[peer].framesMalformed.add(1)
            return
        }
        // To whoever does not lead it is as if the frame had been lost: its client tries again.
        if core.role != .leader || !batcher.takeForwarded(incoming) { board.forwardsDropped.add(1) }
    }

    private func isRun(_ bytes: UnsafeRawBufferPointer, ofReplica peer: Int) -> Bool {
        guard bytes.count <= acceptor.largestBatch else { return false }
        var records = CommandRecords(bytes)
        while let record = records.next() {
            guard Int(record.origin) == peer else { return false }
        }
        return !records.isDamaged
    }

    private func receive(_ message: Message, _ payload: UnsafeRawBufferPointer, from peer: Int, now: UInt64) {
        guard message.batch.length > 0 else {
            _ = core.receive(message, from: peer, now: now, into: &effects)
            return
        }
        guard core.wants(message, from: peer) else {
            // What else the message says still counts; its batch is not copied, and must not be kept.
            let kept = core.receive(message, from: peer, now: now, into: &effects)
            precondition(!kept, "the core kept a batch that it did not want")
            return
        }
        // What lies above a missing instance can neither be executed nor dropped before that instance has come: half of the log
        // stays free for it.
        if core.accepted >= core.highest { bytesAboveHole = 0 }
        let isAboveHole = message.kind == .propose && message.view == core.view && message.instance > core.accepted + 1
        guard !isAboveHole || bytesAboveHole + payload.count <= acceptor.capacity / 2 else {
            board.batchesDropped.add(1)
            core.refuse(message, full: false, from: peer, now: now, into: &effects)
            return
        }
        // Copied once, into the arena, where it stays if the core keeps it.
        guard let place = room(for: payload.count, instance: message.instance, now: now) else {
            // The log is full of what is not executed yet. A leader is heard all the same; what else needs room is as good as lost.
            board.batchesDropped.add(1)
            if message.kind == .propose {
                refusedBytes = payload.count
                refusedAt = board.executed.load()
                makeRoomForEffects(now: now)
                core.refuse(message, full: true, from: peer, now: now, into: &effects)
            }
            return
        }
        place.copyMemory(from: payload.baseAddress!, byteCount: payload.count)
        var message = message
        let checksum = message.batch.checksum
        message.batch = acceptor.seal(payload.count, for: message.instance)
        guard message.batch.checksum == checksum else {
            acceptor.unseal(message.batch)
            board.peers[peer].framesMalformed.add(1)
            return
        }
        if core.receive(message, from: peer, now: now, into: &effects) {
            if isAboveHole { bytesAboveHole += payload.count }
        } else {
            acceptor.unseal(message.batch)
        }
    }

    /// A proposal was refused for want of room: looks whether there is some, when more is executed than at the last look.
    private func lookForRoom(now: UInt64) {
        let executed = board.executed.load()
        guard executed > refusedAt else { return }
        refusedAt = executed
        guard room(for: max(refusedBytes, 1), instance: core.accepted + 1, now: now) != nil else { return }
        makeRoomForEffects(now: now)
        core.resumeAccepting(now: now, into: &effects)
    }

    /// Contiguous room in the log for a batch of `count` bytes, and a slot for `instance`. Nil when what is in the way is
    /// not executed yet.
    private func room(for count: Int, instance: UInt64, now: UInt64) -> UnsafeMutableRawPointer? {
        guard count <= acceptor.largestBatch else { return nil }
        if acceptor.hasSlot(for: instance), let place = acceptor.reserve(count) { return place }
        dropOldest(for: count, instance: instance, now: now)
        return acceptor.hasSlot(for: instance) ? acceptor.reserve(count) : nil
    }

    /// Small batches use up the slots of the log before its bytes. A core without free slots neither proposes nor wants proposals,
    /// so that nothing would ask for room: slots are freed before they are all taken.
    private func freeSlots(now: UInt64) {
        let wanted = core.highest + UInt64(acceptor.slotCount / 8)
        guard !acceptor.hasSlot(for: wanted) else { return }
        dropOldest(for: 0, instance: wanted, now: now)
    }

    /// Lets the log give up what is executed, for `count` bytes and a slot of `instance`, as far as it can.
    private func dropOldest(for count: Int, instance: UInt64, now: UInt64) {
        // What waits to be sent may name batches that are dropped here.
        if !effects.isEmpty { commit(now: now) }
        let floor = acceptor.makeRoom(for: count, instance: instance, executed: board.executed.loadAcquiring()) {
            core.isReferenced(instance: $0, offset: $1)
        }
        core.advanceFloor(to: floor, now: now, into: &effects)
    }

    // MARK: Clients

    /// What changes slowly, and is looked at now and then only: the links, and which followers are to be waited for.
    private func survey(now: UInt64) {
        surveyedAt = now
        if core.view != incomingView {
            incomingView = core.view
            traffic.dropIncoming()
        }
        publishTraffic()
        let largest: Int
        if core.role == .leader {
            quorumRoundTrip = traffic.leastRoundTrip(toFastest: othersOfQuorum)
            largest = memberIDs.count == 1 ? .max : traffic.largestOrdinary(toFastest: othersOfQuorum)
            isHeldBack = waitsForFollower(now: now)
            for peer in 0..<memberCount where peer != index { allow(peer, now: now) }
        } else {
            largest = core.leader.map { traffic.largestOrdinary(to: $0) } ?? .max
        }
        // While some are on their way, those a little smaller join them: the ordinary ones have the right of way, and would overtake.
        let isBusy = batcher.hasLarge || !dissemination.isEmpty
        batcher.largeFrom = isBusy && largest != .max ? max(largest / 2, 16 << 10) : largest
    }
    private static let surveyInterval: UInt64 = 1_000

    /// Tells the core for how much of its proposals there is room on the links to those that lack some.
    private func allow(now: UInt64) {
        for peer in 0..<memberCount where peer != index && core.isShort(of: peer) {
            if allow(peer, now: now) <= 0 { traffic.ranShort(to: peer) }
        }
    }

    @discardableResult
    private func allow(_ peer: Int, now: UInt64) -> Int {
        makeRoomForEffects(now: now)
        let room = traffic.room(to: peer)
        core.allow(room, patience: traffic.patience(with: peer), to: peer, now: now, into: &effects)
        return room
    }

    /// Others that must accept, to make a quorum with this replica.
    private var othersOfQuorum: Int { core.configuration.quorum - 1 }

    /// Sends large batches ahead, and proposes those that have arrived.
    private func disseminate(now: UInt64) -> Int {
        var work = 0
        while dissemination.hasRoom, let batch = batcher.takeLarge() {
            dissemination.add(batch)
            work += 1
        }
        dissemination.begin(over: traffic, now: now)
        for peer in 0..<memberCount where peer != index {
            traffic.forget(upTo: core.progress(of: peer).acknowledged, for: peer)
        }
        var linked: UInt16 = 0
        for peer in 0..<memberCount where peer != index && traffic.isConnected(peer) { linked |= 1 << UInt16(peer) }
        while !isHeldBack, core.canPropose,
            let ready = dissemination.ready(over: traffic, others: othersOfQuorum, wanted: linked, now: now)
        {
            let (large, parcel) = dissemination[ready]
            guard let place = room(for: large.size, instance: core.next, now: now) else { break }
            place.copyMemory(from: large.bytes, byteCount: large.size)
            makeRoomForEffects(now: now)
            let batch = acceptor.seal(large.size)
            let commands = CommandRecords.count(in: large.records)
            // Before the proposal is emitted: it finds its payload by the instance.
            if let parcel { traffic.wasProposed(parcel, as: batch, for: core.next) }
            dissemination.remove(ready).frame.discard()
            propose(batch, commands: commands ?? 0, now: now)
            work += 1
        }
        return work
    }

    private func waitsForFollower(now: UInt64) -> Bool {
        for peer in 0..<memberCount where peer != index && traffic.isConnected(peer) {
            let acknowledged = core.progress(of: peer).acknowledged
            let behind = core.entry(at: acknowledged + 1).map { acceptor.bytes(from: $0.batch) } ?? 0
            if pacing.waits(
                for: peer, acknowledged: acknowledged, behind: behind, capacity: acceptor.capacity,
                roundTrip: traffic.patience(with: peer) ?? 0, now: now)
            {
                return true
            }
        }
        return false
    }

    private func propose(_ batch: Batch, commands: Int, now: UInt64) {
        guard core.propose(batch, now: now, into: &effects) != nil else {
            preconditionFailure("the core took back its word that it can propose")
        }
        board.batchesProposed.add(1)
        board.commandsProposed.add(UInt64(commands))
        board.bytesProposed.add(UInt64(batch.length))
    }

    /// A batch of less than a quarter goes out only while none is under way: meanwhile commands gather, which costs less than many
    /// small batches. Larger ones overlap, so that one is executed while the next is on its way; full ones go up to the window.
    /// A quarter is 16 KiB at most, or 64 commands, lest large batches of small commands leave nothing to overlap.
    private func considerable(_ size: Int) -> Int { min(batcher.batchBytes / 4, max(16 << 10, 64 * size)) }
    private static let mostPartial: UInt64 = 4

    private func mayGo(whileUnderWay count: UInt64, considerable: Int, now: UInt64) -> Bool {
        if count == 0 { return true }
        if batcher.gathered(atLeast: count < Self.mostPartial ? considerable : fullBatch) { return true }
        // Where peers are far away what is under way takes long, and is not waited for longer than for a small part of that.
        if gatheringSince == .max { gatheringSince = now }
        return now >= gatheringSince + longestGathering
    }

    /// Microseconds: a thirty-second of the round trip to a quorum. Where that is nothing, batches form by what a turn takes.
    private var longestGathering: UInt64 {
        max(Self.leastGathering, quorumRoundTrip / 32)
    }
    private static let leastGathering: UInt64 = 1_000

    /// Bytes at which a batch is full. A batch counts when its last byte has arrived; where peers are far away TCP spreads what comes at
    /// once over a part of the round trip, so there what waits makes several batches.
    private var fullBatch: Int {
        guard quorumRoundTrip >= Self.far else { return batcher.batchBytes }
        return min(batcher.batchBytes, max(Self.leastFullBatch, batcher.waitingBytes / 8))
    }
    private static let far: UInt64 = 10_000
    private static let leastFullBatch = 8 << 10

    /// Leader: instances proposed and not decided.
    private var inFlight: UInt64 { core.next - 1 - min(core.decided, core.next - 1) }

    private func propose(now: UInt64) -> Int {
        var batches = 0
        while !isHeldBack, core.canPropose, let size = batcher.nextSize() {
            let considerable = considerable(batcher.nextCommandSize() ?? size)
            guard mayGo(whileUnderWay: inFlight, considerable: considerable, now: now) else { break }
            if batcher.shouldWait(now: now) { break }
            let capacity = max(fullBatch, size)
            guard let place = room(for: capacity, instance: core.next, now: now) else { break }
            let (bytes, commands) = batcher.fill(place, capacity: capacity)
            precondition(commands > 0, "a batch without commands")
            makeRoomForEffects(now: now)
            propose(acceptor.seal(bytes), commands: commands, now: now)
            lastWasConsiderable = bytes >= considerable
            gatheringSince = .max
            batches += 1
        }
        // What is large goes ahead also while nothing may be proposed.
        if batches == 0 { batcher.sortOut() }
        return batches
    }

    /// Hands what waits to the leader, in runs of about a batch, as far as the link has room.
    private func forward(now: UInt64) -> Int {
        board.forwardsDropped.add(UInt64(batcher.dropForwarded()))
        stopDisseminating()
        guard let leader = core.leader, leader != index else { return 0 }
        batcher.sortOut()
        var runs = 0
        while !traffic.hasRun(for: leader), let batch = dissemination.removeFirst() ?? batcher.takeLarge() {
            // Another follower's, from the time that this replica led: its client tries again.
            guard batch.isOwn else {
                batch.frame.discard()
                board.forwardsDropped.add(1)
                continue
            }
            outgoing.adopt(batch.frame)
            forward(CommandRecords.count(in: batch.records) ?? 0, to: leader)
            runs += 1
        }
        while let size = batcher.nextSize() {
            guard traffic.room(to: leader) > 0 else {
                traffic.ranShort(to: leader)
                break
            }
            let capacity = max(batcher.batchBytes, size)
            if capacity > scratch.count { growScratch(to: capacity) }
            let (bytes, commands) = batcher.fill(scratch.baseAddress!, capacity: capacity)
            guard bytes > 0 else { break }
            outgoing.rebuild(size: PeerHeader.size + bytes)
            (outgoing.bytes.baseAddress! + PeerHeader.size).copyMemory(
                from: scratch.baseAddress!, byteCount: bytes)
            forward(commands, to: leader)
            runs += 1
        }
        return runs
    }

    /// Sends the run of commands in `outgoing`, behind the place of the header.
    private func forward(_ commands: Int, to leader: Int) {
        let frame = outgoing.bytes.baseAddress!
        let count = outgoing.count - PeerHeader.size
        PeerFrame.encodeForwardHeader(
            count: count, checksum: Checksum.of(frame + PeerHeader.size, count), view: core.view, sender: index,
            into: frame)
        traffic.send(outgoing, to: leader)
        board.commandsForwarded.add(UInt64(commands))
    }

    /// This replica does not lead (any more): what it sent ahead is of no use, and is handed to the leader when one is known.
    private func stopDisseminating() {
        guard wasLeading else { return }
        wasLeading = false
        traffic.dropProposals()
        dissemination.stop()
        gatheringSince = .max
    }

    private func growScratch(to size: Int) {
        scratch.deallocate()
        scratch = .allocate(byteCount: size, alignment: 64)
    }

    // MARK: Journal

    /// Makes durable what the steps so far recorded, with one fence, then lets their messages go, until nothing is left.
    private func commit(now: UInt64) {
        repeat {
            var newest: UInt64 = 0
            for record in effects.records {
                switch record.kind {
                case .promise: acceptor.record(promise: record.view)
                case .established: acceptor.record(establishedView: record.view, base: record.instance)
                case .accept:
                    acceptor.record(instance: record.instance, view: record.view, batch: record.batch)
                }
                newest = record.number
            }
            if newest > 0 {
                acceptor.fence()
                board.groupCommits.add(1)
            }
            acceptor.assertFlushed()
            sendEffects()
            effects.removeAll()
            // A disk takes long enough for the time to matter.
            if newest > 0 {
                let after = acceptor.durability == .msync ? csupport_monotonic_us() : now
                core.durable(newest, now: after, into: &effects)
            }
        } while !effects.isEmpty
    }

    private func makeRoomForEffects(now: UInt64) {
        if !effects.hasRoom { commit(now: now) }
    }

    /// One frame for a message that goes to several peers.
    private func sendEffects() {
        let sends = effects.sends
        var at = 0
        while at < sends.count {
            let message = sends[at].message
            var peers: UInt16 = 0
            repeat {
                peers |= 1 << UInt16(sends[at].to)
                at += 1
            } while at < sends.count && sends[at].message == message && peers & 1 << UInt16(sends[at].to) == 0
            traffic.send(message, to: peers)
        }
    }

    // MARK: Executor

    private func deliver() -> Int {
        var count = 0
        while delivered < core.decided, !decided.isFull {
            guard let entry = core.entry(at: delivered + 1) else {
                preconditionFailure("a decided instance is not in the log")
            }
            let bytes = acceptor.bytes(of: entry.batch)
            let pushed = decided.push(
                DecidedBatch(instance: delivered + 1, bytes: bytes.baseAddress, count: bytes.count))
            precondition(pushed, "a ring with room refused a batch")
            delivered += 1
            count += 1
        }
        if count > 0, decided.publish() { executor.wake() }
        return count
    }

    private func publish() {
        publishedRole = core.role
        publishedExecuted = board.executed.load()
        publishReadiness()
        board.view.store(core.view)
        board.decided.store(core.decided)
        board.floor.store(core.floor)
        board.acceptorPoolUsed.store(UInt64(acceptor.used))
        board.role =
            switch core.role {
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
        board.knownLeader = core.leader
        board.elections.store(before.elections + core.counters.elections)
        board.resent.store(before.resent + core.counters.retransmissions)
        board.caughtUpInstances.store(before.caughtUp + core.counters.caughtUp)
    }

    private func publishTraffic() {
        traffic.publish()
        board.progress.store(traffic.arrived &+ core.decided)
        for peer in 0..<memberCount where peer != index {
            let (sent, acknowledged) = core.progress(of: peer)
            let figures = board.peers[peer]
            figures.behind.store(core.role == .leader ? core.next - 1 - min(acknowledged, core.next - 1) : 0)
            figures.queued.store(UInt64(traffic.parcelBytes(to: peer) + bytesWaiting(after: sent)))
            figures.resent.store(core.repetitions(to: peer))
        }
    }

    /// Leader: bytes of the proposals above an instance: they wait for room on a link.
    private func bytesWaiting(after instance: UInt64) -> Int {
        guard core.role == .leader, instance + 1 < core.next else { return 0 }
        var bytes = 0
        // A look at the most of a window, not at all that a peer lacks which was away for long.
        var waiting = max(instance + 1, core.floor)
        let end = min(core.next, waiting + UInt64(core.configuration.window))
        while waiting < end {
            bytes += Int(core.entry(at: waiting)?.batch.length ?? 0)
            waiting += 1
        }
        return bytes
    }

    /// Caught up is who has executed all that was decided, but for what can be under way at any time.
    private func publishReadiness() {
        let behind = core.known - min(core.known, board.executed.load())
        let hasLeader = core.role == .leader ? core.isFollowed : core.leader != nil
        // The first time strictly: but for what is under way. Later a burst may put some more between.
        let tolerated = hasCaughtUp ? UInt64(core.configuration.window) : 2
        board.isReady = hasLeader && behind <= tolerated && !core.needsStateTransfer
        hasCaughtUp = hasCaughtUp || board.isReady
    }
}
