import MPaxosConsensus

/// How replicas take up with each other, by the very rules of the node: two that have a way to each other introduce
/// themselves, and what is new to one of them is durable before it looks at anything else that the other says.
extension Simulator {
    func haveMet(_ a: ReplicaIndex, _ b: ReplicaIndex) -> Bool {
        replicas[a].met >> UInt16(b) & 1 != 0 && replicas[b].met >> UInt16(a) & 1 != 0
    }

    /// A replica that is started for the first time: mostly soon, sometimes long after others, or not at all before the
    /// faults end.
    func startLate(_ index: ReplicaIndex) {
        guard random.chance(perMille: 900) else { return }
        let most = random.chance(perMille: 400) ? options.duration : 50_000
        queue.schedule(Event(kind: .restart, replica: index, life: replicas[index].life), at: 1 + random.below(most))
    }

    /// `a` tries to have a link with `b`.
    func connect(_ a: ReplicaIndex, _ b: ReplicaIndex) throws(SimulationFailure) {
        guard replicas[a].isRunning && replicas[b].isRunning else { return }
        // Who opens the ways again says so.
        guard network.isOpen(from: a, to: b) && network.isOpen(from: b, to: a) else { return }
        if hasLinks {
            guard !links.ways[links.place(a, b)].isEstablished else { return }
        } else if haveMet(a, b) {
            try tellConnected(a, b)
            return
        }
        guard replicas[b].pausedUntil <= now else {
            scheduleLink(a, b, at: replicas[b].pausedUntil)
            return
        }
        guard try introduce(a, b) && replicas[a].isUp && replicas[b].isUp else { return }
        replicas[a].met |= 1 << UInt16(b)
        replicas[b].met |= 1 << UInt16(a)
        if hasLinks {
            try establish(a, b)
        } else {
            try tellConnected(a, b)
            try tellConnected(b, a)
        }
    }

    private func tellConnected(_ index: ReplicaIndex, _ peer: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        guard replica.pointee.isUp else { return }
        replica.pointee.core.connected(peer, now: replica.pointee.clock.local(now), into: &effects)
        try afterStep(index)
        if !replica.pointee.inbox.isEmpty { try proposeOrForward(index) }
    }

    /// Two replicas say who they are. Returns whether they take up with each other now, with nothing left to be put on
    /// record.
    private func introduce(_ a: ReplicaIndex, _ b: ReplicaIndex) throws(SimulationFailure) -> Bool {
        var (one, other) = (replicas[a].acquaintances.introduction, replicas[b].acquaintances.introduction)
        if options.plantedBugs.contains(.livesUnchecked) {
            hideLife(in: &one, of: a, from: b)
            hideLife(in: &other, of: b, from: a)
        }
        let objection = replicas[a].acquaintances.objection(to: other, from: b, keyOf: proof(of: b))
        let objectionOfOther = replicas[b].acquaintances.objection(to: one, from: a, keyOf: proof(of: a))
        if objection != nil || objectionOfOther != nil {
            try part(a, objection, of: b)
            try part(b, objectionOfOther, of: a)
            return false
        }
        try take(up: one, of: a, at: b, keyOf: proof(of: a))
        // Who dials says HELLO; the connection may break before the answer.
        let isAnswered = !(isFaulty && random.chance(perMille: 50))
        if isAnswered { try take(up: other, of: b, at: a, keyOf: proof(of: b)) }
        guard replicas[a].storage.members.hasUnfenced || replicas[b].storage.members.hasUnfenced else {
            if !isAnswered { scheduleLink(a, b, at: now + 1 + random.below(10_000)) }
            return isAnswered
        }
        putOnRecord(a)
        putOnRecord(b)
        let time = max(replicas[a].recordedAt, replicas[b].recordedAt)
        // Storage that is stuck has no such time: when it goes on they try again.
        if time < .max { scheduleLink(a, b, at: max(time, now) + 1) }
        return false
    }

    /// What a connection that was made with the key of a replica proves.
    func proof(of index: ReplicaIndex) -> Acquaintances.Holder {
        hasKeys && !options.plantedBugs.contains(.keysUnchecked) ? .member(index) : .nobody
    }

    /// A replica has no objection, and takes note of what another says: that must be so.
    func take(
        up introduction: Acquaintances.Introduction, of peer: ReplicaIndex, at index: ReplicaIndex,
        keyOf holder: Acquaintances.Holder
    ) throws(SimulationFailure) {
        replicas[index].take(up: introduction, of: peer, keyOf: holder)
        try check(chronicle.contradiction(to: replicas[index].acquaintances.records, of: index))
    }

    /// Planted bug: nobody looks at the life of another, or at what another says of its own.
    private func hideLife(
        in introduction: inout Acquaintances.Introduction, of index: ReplicaIndex, from peer: ReplicaIndex
    ) {
        let known = replicas[peer].acquaintances.records[index]
        if known.incarnation == introduction.incarnation,
            !known.life.admits(introduction.life, after: introduction.ancestors)
        {
            introduction.life = known.life
        }
        introduction.records[peer].life = .none
    }

    /// A replica does not take up with another, and ends for good when it hears that its own life is an earlier one:
    /// from an endpoint that it dials, as the node, where anybody may come to its own port.
    func part(
        _ index: ReplicaIndex, _ objection: Acquaintances.Objection?, of peer: ReplicaIndex
    ) throws(SimulationFailure) {
        guard let objection else { return }
        report.objections += 1
        trace("\(index) does not take up with \(peer): \(objection)")
        let isOneLost = replicas[index].isLost || replicas[peer].isLost
        switch objection {
        case .foreignKey:
            throw failure("replica \(index) does not believe \(peer), which has its own key: \(objection)")
        case .incarnation, .otherRecord:
            let isOneFounded = replicas[index].acquaintances.isFounded || replicas[peer].acquaintances.isFounded
            guard isOneLost || !isOneFounded else {
                throw failure("replica \(index) does not take up with \(peer): \(objection)")
            }
        case .earlierLife, .ownLifeIsEarlier:
            guard isOneLost else { throw failure("replica \(index) does not take up with \(peer): \(objection)") }
            guard case .ownLifeIsEarlier = objection, peer < index else { return }
            report.expulsions += 1
            try crash(index, restartAfter: downTime())
            replicas[index].storage.members.isExpelled = true
        }
    }

    private func putOnRecord(_ index: ReplicaIndex) {
        let replica = replicas + index
        guard replica.pointee.storage.members.hasUnfenced else {
            replica.pointee.recordedAt = 0
            return
        }
        guard !replica.pointee.isStuck else {
            replica.pointee.recordedAt = .max
            return
        }
        replica.pointee.recordedAt = now + replica.pointee.flushDelay(plan.flush, now: now, random: &random)
        scheduleRecorded(index, at: replica.pointee.recordedAt)
    }

    func scheduleRecorded(_ index: ReplicaIndex, at time: Microseconds) {
        queue.schedule(
            Event(
                kind: .recorded, replica: index, life: replicas[index].life,
                number: replicas[index].storage.members.written), at: time)
    }

    /// What a replica has written of others is durable.
    func recorded(_ index: ReplicaIndex, through number: UInt64) throws(SimulationFailure) {
        let replica = replicas + index
        replica.pointee.recorded(through: number)
        if replica.pointee.storage.members.written > number { putOnRecord(index) }
        if !replica.pointee.isUp && replica.pointee.takesPart {
            report.foundings += 1
            try startCore(index)
        }
    }

    /// A replica that does not take part yet meets whom it can, again and again.
    func acquaint(_ index: ReplicaIndex) throws(SimulationFailure) {
        let life = replicas[index].life
        for peer in indices where peer != index && replicas[index].life == life && !replicas[index].isUp {
            try connect(index, peer)
        }
        guard replicas[index].life == life && !replicas[index].storage.members.isFounded else { return }
        queue.schedule(
            Event(kind: .acquaint, replica: index, life: life),
            at: now + 1 + random.below(replicas[index].configuration.suspect / 2))
    }
}
