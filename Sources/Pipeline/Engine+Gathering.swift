import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosWire

/// How waiting commands become proposals, or go to the leader.
extension Engine {
    /// Looks at what changes slowly: the links, and which followers are to be waited for.
    func survey(now: UInt64) {
        surveyedAt = now
        board.isInTouch = core.isInTouch(now: now)
        if core.view != surveyedView {
            surveyedView = core.view
            beginEra()
        }
        publishTraffic()
        compareDigests(now: now)
        for peer in 0..<memberCount where peer != index { allow(peer, now: now) }
        let largest: Int
        if core.role == .leader {
            for peer in 0..<memberCount where peer != index {
                traffic.forget(upTo: core.progress(of: peer).acknowledged, for: peer)
            }
            quorumRoundTrip = traffic.leastRoundTrip(toFastest: othersOfQuorum)
            largest = memberIDs.count == 1 ? .max : traffic.largestOrdinary(toFastest: othersOfQuorum)
            isHeldBack = waitsForFollower(now: now)
        } else {
            largest = core.leader.map { traffic.largestOrdinary(to: $0) } ?? .max
        }
        // While some are on their way, those a little smaller join them: the ordinary ones have the right of way, and
        // would overtake.
        let isBusy = batcher.hasLarge || !dissemination.isEmpty
        batcher.largeFrom = isBusy && largest != .max ? max(largest / 2, 16 << 10) : largest
    }
    static let surveyInterval: UInt64 = 1_000

    /// Tells the core for how much of its proposals there is room on the links to those that lack some.
    func allow(now: UInt64) {
        for peer in 0..<memberCount where peer != index && core.isShort(of: peer) {
            if allow(peer, now: now) <= 0 { traffic.ranShort(to: peer) }
        }
    }

    @discardableResult
    func allow(_ peer: Int, now: UInt64) -> Int {
        makeRoomForEffects(now: now)
        let room = traffic.room(to: peer)
        core.allow(
            room, patience: traffic.patience(with: peer), distance: traffic.leastRoundTrip(to: peer), to: peer,
            now: now,
            into: &effects)
        return room
    }

    /// Others that must accept, to make a quorum with this replica.
    var othersOfQuorum: Int { core.configuration.quorum - 1 }

    /// Sends large batches ahead, and proposes those that have arrived.
    func disseminate(now: UInt64) -> Int {
        var work = 0
        while dissemination.hasRoom, let batch = batcher.takeLarge() {
            dissemination.add(batch)
            work += 1
        }
        // One that lacks what this log has dropped could not use them: it takes a state first.
        var linked: UInt16 = 0
        for peer in 0..<memberCount
        where peer != index && traffic.isConnected(peer) && core.progress(of: peer).acknowledged + 1 >= core.floor {
            linked |= 1 << UInt16(peer)
        }
        dissemination.spread(to: linked, over: traffic, now: now)
        while !isHeldBack, core.canPropose,
            let ready = dissemination.ready(over: traffic, others: othersOfQuorum, wanted: linked, now: now)
        {
            let (large, parcel) = dissemination[ready]
            guard let place = roomToPropose(large.size, now: now) else { break }
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

    func waitsForFollower(now: UInt64) -> Bool {
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

    func propose(_ batch: Batch, commands: Int, now: UInt64) {
        guard core.propose(batch, now: now, into: &effects) != nil else {
            broken("a core that can propose goes on to be able to within a turn")
        }
        board.batchesProposed.add(1)
        board.commandsProposed.add(UInt64(commands))
        board.bytesProposed.add(UInt64(batch.length))
    }

    /// A batch of less than a quarter goes out only while none is under way: meanwhile commands gather, which costs
    /// less than many small batches. Larger ones overlap, so that one is executed while the next is on its way; full
    /// ones go up to the window. A quarter is 16 KiB at most, or 64 commands, lest large batches of small commands
    /// leave nothing to overlap.
    func considerable(_ size: Int) -> Int { min(batcher.batchBytes / 4, max(16 << 10, 64 * size)) }
    static let mostPartial: UInt64 = 4

    func mayGo(whileUnderWay count: UInt64, considerable: Int, now: UInt64) -> Bool {
        if count == 0 { return true }
        if batcher.gathered(atLeast: count < Self.mostPartial ? considerable : fullBatch) { return true }
        // Where peers are far away what is under way takes long, and is not waited for longer than for a small part of
        // that.
        if gatheringSince == .max { gatheringSince = now }
        return now >= gatheringSince + longestGathering
    }

    /// Microseconds: a thirty-second of the round trip to a quorum. Where that is nothing, batches form by what a turn
    /// takes.
    var longestGathering: UInt64 {
        max(Self.leastGathering, quorumRoundTrip / 32)
    }
    private static let leastGathering: UInt64 = 1_000

    /// Bytes at which a batch is full. A batch counts when its last byte has arrived; where peers are far away TCP
    /// spreads what comes at once over a part of the round trip, so there what waits makes several batches.
    var fullBatch: Int {
        guard quorumRoundTrip >= Self.far else { return batcher.batchBytes }
        return min(batcher.batchBytes, max(Self.leastFullBatch, batcher.waitingBytes / 8))
    }
    private static let far: UInt64 = 10_000
    private static let leastFullBatch = 8 << 10

    /// Leader: instances proposed and not decided.
    var inFlight: UInt64 { core.next - 1 - min(core.decided, core.next - 1) }

    func propose(now: UInt64) -> Int {
        var batches = 0
        while !isHeldBack, core.canPropose, let size = batcher.nextSize() {
            let considerable = considerable(batcher.nextCommandSize() ?? size)
            guard mayGo(whileUnderWay: inFlight, considerable: considerable, now: now) else { break }
            if batcher.shouldWait(now: now) { break }
            let capacity = max(fullBatch, size)
            guard let place = roomToPropose(capacity, now: now) else { break }
            let (bytes, commands) = batcher.fill(place, capacity: capacity)
            invariant(commands > 0, "a batch has commands")
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
    func forward(now: UInt64) -> Int {
        board.forwardsDropped.add(UInt64(batcher.dropForwarded()))
        stopDisseminating()
        guard let leader = core.leader, leader != index else { return 0 }
        batcher.sortOut()
        var runs = 0
        while !traffic.hasFrame(for: leader), let batch = dissemination.removeFirst() ?? batcher.takeLarge() {
            // A run that another follower forwarded while this replica led: its client tries again.
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
    func forward(_ commands: Int, to leader: Int) {
        let frame = outgoing.bytes.baseAddress!
        let count = outgoing.count - PeerHeader.size
        PeerFrame.encodeForwardHeader(
            count: count, checksum: Checksum.of(frame + PeerHeader.size, count), view: core.view, sender: index,
            into: frame)
        traffic.send(outgoing, to: leader)
        board.commandsForwarded.add(UInt64(commands))
    }

    /// This replica does not lead (any more): what it sent ahead is of no use, and is handed to the leader when one is
    /// known.
    func stopDisseminating() {
        guard wasLeading else { return }
        wasLeading = false
        traffic.dropProposals()
        dissemination.stop()
        gatheringSince = .max
    }

    func growScratch(to size: Int) {
        scratch.deallocate()
        scratch = .allocate(byteCount: size, alignment: 64)
    }

    // MARK: What is shown

    func publishTraffic() {
        traffic.publish()
        progress.arrived = traffic.arrived &+ core.decided
        for peer in 0..<memberCount where peer != index {
            let (sent, acknowledged) = core.progress(of: peer)
            let figures = board.peers[peer]
            figures.behind.store(core.role == .leader ? core.next - 1 - min(acknowledged, core.next - 1) : 0)
            figures.queued.store(UInt64(traffic.parcelBytes(to: peer) + bytesWaiting(after: sent)))
            figures.resent.store(core.repetitions(to: peer))
        }
    }

    /// Leader: bytes of the proposals above an instance: they wait for room on a link.
    func bytesWaiting(after instance: UInt64) -> Int {
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
}
