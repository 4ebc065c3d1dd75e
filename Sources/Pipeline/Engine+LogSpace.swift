import MPaxosConsensus
import MPaxosStorage

/// Room in the log: who gets some, and what goes for it.
extension Engine {
    /// A proposal was refused for want of room: looks whether there is some, when more is executed than at the last
    /// look.
    func lookForRoom(now: UInt64) {
        let executed = progress.executed
        guard executed > refusedAt else { return }
        refusedAt = executed
        guard room(for: max(refusedBytes, 1), instance: core.accepted + 1, now: now) != nil else { return }
        makeRoomForEffects(now: now)
        core.resumeAccepting(now: now, into: &effects)
    }

    /// Where this replica's executor gets on with nothing, for its storage is stuck, while the executors of others do,
    /// the log stays full and a leader could propose nothing: it is not to lead. A command that takes long takes long
    /// on all replicas, and is no reason for an election; so the time runs from when others are further.
    func lookAtExecution(now: UInt64) {
        let executed = progress.executed
        if core.role == .leader, core.next >= core.end { lackedRoomAt = executed }
        guard executed == stoodAt, lackedRoomAt == executed, isOvertaken(at: executed) else {
            (stoodAt, stoodSince) = (executed, now)
            core.standsStill = false
            return
        }
        core.standsStill = now >= stoodSince + 3 * core.configuration.suspect
    }

    private func isOvertaken(at executed: UInt64) -> Bool {
        toldExecuted.indices.contains { traffic.isConnected($0) && toldExecuted[$0] > executed }
    }

    /// Room for what this replica is to propose.
    func roomToPropose(_ count: Int, now: UInt64) -> UnsafeMutableRawPointer? {
        let place = room(for: count, instance: core.next, now: now)
        lackedRoomAt = place == nil ? progress.executed : .max
        return place
    }

    /// A batch came for which there is no room: the log is full of what is not executed yet. A leader is heard all the
    /// same; what else needs room is as good as lost.
    func refuse(_ message: Message, _ count: Int, from peer: Int, now: UInt64) {
        board.batchesDropped.add(1)
        guard message.kind == .accept else { return }
        // What lies above an instance that this replica lacks is a gap, and comes again when that one is here.
        let isAboveGap = message.view == core.view && message.instance > core.accepted + 1
        if !isAboveGap { (refusedBytes, refusedAt) = (count, progress.executed) }
        makeRoomForEffects(now: now)
        core.refuse(message, full: !isAboveGap, from: peer, now: now, into: &effects)
    }

    /// Whether the log has just these bytes for the instance.
    func isInLog(_ message: Message, _ payload: UnsafeRawBufferPointer) -> Bool {
        guard let own = core.entry(at: message.instance), own.batch.length == UInt32(payload.count),
            own.batch.checksum == message.batch.checksum
        else { return false }
        return acceptor.holds(own.batch, as: payload)
    }

    /// Contiguous room in the log for a batch of `count` bytes, and a slot for `instance`. Nil when what is in the way
    /// is not executed yet.
    ///
    /// What must stay, since it is not executed, spans half of the log at most: there is always room for the next
    /// instance that is needed, whatever the others hold, and so what must stay gets less. That one finds its room also
    /// where batches that are superseded lie between others, which are moved.
    /// - Parameter isAdopted: a value of another replica that a candidate may have to propose, beside its own vote:
    ///   some more of the log is for those.
    func room(for count: Int, instance: UInt64, isAdopted: Bool = false, now: UInt64) -> UnsafeMutableRawPointer? {
        guard count <= acceptor.largestBatch else { return nil }
        let isNext = instance == core.decided + 1
        if !isNext {
            let share = isAdopted ? acceptor.capacity / 4 * 3 : acceptor.capacity / 2
            guard liveSpan + count <= share else { return nil }
        }
        if acceptor.hasSlot(for: instance), let place = acceptor.reserve(count) { return place }
        dropOldest(for: count, instance: instance, now: now)
        if isNext, !acceptor.hasRoom(for: count) { compact(for: count, instance: instance, now: now) }
        return acceptor.hasSlot(for: instance) ? acceptor.reserve(count) : nil
    }

    /// Bytes of the log from the oldest batch on that must stay.
    private var liveSpan: Int {
        acceptor.liveSpan(executed: progress.executed) { core.isReferenced(instance: $0, offset: $1) }
    }

    /// Moves the oldest batches that must stay behind the newest, so that what lies between them can go, until there is
    /// room for `count` bytes or all were moved. What the executor may read stays where it is.
    private func compact(for count: Int, instance: UInt64, now: UInt64) {
        var left = acceptor.batchCount
        while left > 0, !acceptor.hasRoom(for: count), let moved = acceptor.moveOldest(above: core.decided) {
            core.moved(moved.instance, to: moved.batch)
            dropOldest(for: count, instance: instance, now: now)
            left -= 1
        }
    }

    /// Small batches use up the slots of the log before its bytes. A core without free slots neither proposes nor wants
    /// proposals, so that nothing would ask for room: slots are freed before they are all taken.
    func freeSlots(now: UInt64) {
        let wanted = core.highest + UInt64(acceptor.slotCount / 8)
        guard !acceptor.hasSlot(for: wanted) else { return }
        dropOldest(for: 0, instance: wanted, now: now)
    }

    /// Lets the log give up what is executed, for `count` bytes and a slot of `instance`, as far as it can.
    func dropOldest(for count: Int, instance: UInt64, now: UInt64) {
        // What waits to be sent may name batches that are dropped here.
        if !effects.isEmpty { commit(now: now) }
        let floor = acceptor.makeRoom(for: count, instance: instance, executed: progress.executed) {
            core.isReferenced(instance: $0, offset: $1)
        }
        core.advanceFloor(to: floor, now: now, into: &effects)
    }
}
