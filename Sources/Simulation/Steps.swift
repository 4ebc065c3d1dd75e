import MPaxosConsensus

/// What happens when an event is due, and after each step of a core.
extension Simulator {
    func handle(_ event: Event) throws(SimulationFailure) {
        try handleAlone(event)
        if links.changed != 0 { try tellRooms() }
    }

    private func handleAlone(_ event: Event) throws(SimulationFailure) {
        switch event.kind {
        case .proposal:
            try proposeSomewhere()
            return
        case .fault:
            try injectFault()
            return
        case .rollBack:
            try goBack(event.replica, with: event.peer)
            return
        case .heal:
            network.heal(event.number)
            if hasLinks { healLinks() } else { reportLinks() }
            return
        case .restart:
            let replica = replicas + event.replica
            if replica.pointee.life == event.life && !replica.pointee.isRunning && replica.pointee.startsLeft > 0 {
                try start(event.replica)
            }
            return
        case .client:
            clientTurn(event.replica, event.number)
            return
        case .reply:
            try takeReply(Int(event.number))
            return
        default: break
        }
        let replica = replicas + event.replica
        if event.kind == .message || event.kind == .command {
            // The network does not care for lives.
            guard replica.pointee.isUp else {
                if event.kind == .message { _ = queue.takeMessage(event) }
                return
            }
        } else {
            guard replica.pointee.isRunning && replica.pointee.life == event.life else { return }
        }
        if replica.pointee.pausedUntil > now {
            // The end of the faults cuts a pause short; `calm` schedules other events anew, but not this one.
            let end = replica.pointee.pausedUntil
            let isTransferCheck = event.kind == .transferCheck
            queue.schedule(event, at: isTransferCheck ? min(end, now + transferInterval) : end)
            return
        }
        try handle(event, at: replica)
    }

    private func handle(_ event: Event, at replica: UnsafeMutablePointer<SimulatedReplica>) throws(SimulationFailure) {
        switch event.kind {
        case .message:
            let message = queue.takeMessage(event)
            guard replica.pointee.met >> UInt16(event.peer) & 1 != 0 else { return }
            trace("\(event.peer) -> \(event.replica) \(message)")
            guard try receive(message, from: event.peer, at: replica) else { return }
        case .tick:
            guard replica.pointee.tickAt == event.number else { return }
            replica.pointee.tickAt = .max
            replica.pointee.core.tick(now: replica.pointee.clock.local(now), into: &effects)
        case .flush:
            guard event.number > replica.pointee.storage.durable else { return }
            replica.pointee.storage.fence(through: event.number)
            replica.pointee.core.durable(event.number, now: replica.pointee.clock.local(now), into: &effects)
            try dispatchReady(from: event.replica)
        case .linkUp where event.number == 0:
            try connect(event.replica, event.peer)
            return
        case .linkUp:
            try open(event.replica, event.peer)
        case .recorded:
            try recorded(event.replica, through: event.number)
            return
        case .compare:
            try compareStates(event.replica)
            return
        case .acquaint:
            try acquaint(event.replica)
            return
        case .arrival:
            guard let message = try takeArrival(event) else { return }
            trace("\(event.peer) -> \(event.replica) \(message)")
            guard try receive(message, from: event.peer, at: replica) else { return }
        case .wake:
            try wake(event)
            return
        case .room:
            replica.pointee.core.resumeAccepting(now: replica.pointee.clock.local(now), into: &effects)
        case .commit:
            guard replica.pointee.executor.isCommitting && replica.pointee.executor.commitNumber == event.number else {
                return
            }
            replica.pointee.executor.endCommit()
            try answer(event.replica)
            try stateDigest(event.replica)
            guard replica.pointee.isUp else { return }
        case .command:
            try takeCommand(Int(event.number), at: event.replica, from: event.peer)
            return
        case .transferCheck:
            try checkTransfer(event.replica)
            return
        default: break
        }
        try afterStep(event.replica)
        if !replica.pointee.inbox.isEmpty { try proposeOrForward(event.replica) }
    }

    /// Returns false when there was no room even to look at the message.
    private func receive(
        _ sent: Message, from peer: ReplicaIndex, at replica: UnsafeMutablePointer<SimulatedReplica>
    ) throws(SimulationFailure) -> Bool {
        var message = sent
        let mayBeKept = message.kind == .accept || message.kind == .decided || message.kind == .promise
        let hasBytes = !message.batch.isNoop
        let isWanted =
            mayBeKept
            && (replica.pointee.core.wants(message, from: peer) || options.plantedBugs.contains(.decidedWithoutView))
        if hasBytes && isWanted {
            if replica.pointee.fullUntil > now {
                guard message.kind == .accept && replica.pointee.saysFull else {
                    // Without room for the bytes, the message is lost.
                    return false
                }
                refuse(message, from: peer, at: replica)
                return true
            }
            message.batch = replica.pointee.seal(message.batch.checksum, length: message.batch.length)
        }
        let isKept = replica.pointee.core.receive(
            message, from: peer, now: replica.pointee.clock.local(now), into: &effects)
        if hasBytes && isWanted && !isKept { replica.pointee.unseal(message.batch) }
        // Not taken, for want of a slot: it must come again.
        if hasLinks && message.kind == .accept && replica.pointee.core.entry(at: message.instance) == nil {
            links.outboxes[links.place(peer, replica.pointee.configuration.replica)].mayRepeat = true
        }
        if isKept && !isWanted {
            throw failure("replica \(replica.pointee.configuration.replica) kept what it did not want")
        }
        if isKept && !message.carriesBatch { throw failure("kept the batch of \(message)") }
        return true
    }

    /// A proposal's bytes find no room. The leader hears of it, and again when there is some.
    private func refuse(_ message: Message, from peer: ReplicaIndex, at replica: UnsafeMutablePointer<SimulatedReplica>)
    {
        let index = replica.pointee.configuration.replica
        report.refusals += 1
        trace("\(index) refuses \(message.instance)")
        replica.pointee.core.refuse(
            message, full: true, from: peer, now: replica.pointee.clock.local(now), into: &effects)
        if hasLinks { links.outboxes[links.place(peer, index)].mayRepeat = true }
        scheduleRoom(index, at: replica.pointee.fullUntil)
    }

    private func scheduleRoom(_ index: ReplicaIndex, at time: Microseconds) {
        queue.schedule(Event(kind: .room, replica: index, life: replicas[index].life), at: time)
    }

    /// Commands for which nobody waits, each proposed once only.
    private func proposeSomewhere() throws(SimulationFailure) {
        queue.schedule(Event(kind: .proposal), at: now + 1 + random.below(2 * proposalInterval))
        let first = random.index(replicaCount)
        for offset in indices {
            let index = (first + offset) % replicaCount
            let replica = replicas + index
            guard replica.pointee.isUp && replica.pointee.pausedUntil <= now else { continue }
            guard replica.pointee.core.role == .leader && replica.pointee.core.canPropose else { continue }
            spare.removeAll()
            for _ in 0...random.index(3) {
                var command = Command(
                    kind: .submit, client: -1, operation: history.begin(isQuery: false, isExactlyOnce: true))
                command.register = random.index(ReplicatedState.registerCount)
                command.value = UInt64(command.operation) + 1
                spare.append(store.add(command))
            }
            try propose(store.makeBatch(of: spare, count: spare.count), at: index)
            // Mostly one leader; sometimes two believe to be.
            if random.chance(perMille: 500) { return }
        }
    }

    func propose(_ batch: UInt32, at index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        let length =
            hasLinks
            ? batchLength ?? links.plan.batchLength(random: &random) : bytesPerCommand * UInt32(store.count(of: batch))
        let handle = replica.pointee.seal(batch, length: length)
        guard
            let instance = replica.pointee.core.propose(handle, now: replica.pointee.clock.local(now), into: &effects)
        else { throw failure("replica \(index) refused what it could propose") }
        trace("\(index) proposes \(batch) for \(instance)")
        try afterStep(index)
    }

    /// Takes over the effects of a step, lets the replica execute, and checks.
    func afterStep(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        report.steps += 1
        if let mode = trap(for: replica) {
            trace("\(index) falls into a trap")
            for record in effects.records { replica.pointee.storage.write(record) }
            try crash(index, restartAfter: random.below(replica.pointee.configuration.suspect), mode: mode)
            return
        }
        let hasRecords = effects.recordCount > 0
        if hasLinks { try checkRepetitions(of: index) }
        if hasRecords {
            var crashChance = plan.crashAtWrite
            for record in effects.records {
                guard replica.pointee.holds(record.batch) else {
                    throw failure("replica \(index) wants to keep \(record), whose bytes it has not")
                }
                replica.pointee.storage.write(record)
                if record.kind != .accept { crashChance = 10 * plan.crashAtWrite }
            }
            if crashChance > 0 && random.chance(perMille: crashChance) {
                try crash(index, restartAfter: downTime())
                return
            }
            let last = replica.pointee.core.newestRecord
            if !replica.pointee.isStuck {
                let due = now + replica.pointee.flushDelay(plan.flush, now: now, random: &random)
                replica.pointee.flushAt = max(replica.pointee.flushAt, due)
                queue.schedule(
                    Event(kind: .flush, replica: index, life: replica.pointee.life, number: last),
                    at: replica.pointee.flushAt)
            }
        }
        if silences > 0 {
            if try silence(index, hasProposed: hasRecords) {
                guard replica.pointee.isUp else { return }
                // Links lose nothing but with themselves.
                if hasLinks {
                    for peer in indices where peer != index { loseLink(index, peer) }
                } else {
                    effects.removeAll()
                }
            }
            replica.pointee.lastCommit = replica.pointee.core.commit
        }
        for place in 0..<effects.sendCount {
            let after = effects.sends[place].after
            if after > replica.pointee.storage.durable {
                wait(effects.sends[place], at: index)
            } else {
                try dispatch(effects.sends[place], from: index)
            }
        }
        if hasRecords || effects.sendCount > 0 { effects.removeAll() }
        if replica.pointee.core.decided > checker.compared[index] {
            try check(checker.compare(index, replica.pointee.core, replica.pointee.storage))
        }
        while history.executed < checker.highestDecided {
            try check(history.extend(checker.batch(of: history.executed + 1), of: store))
        }
        try execute(index)
        replica.pointee.trim(now: now, into: &effects)
        // A follower whose log was full says that it has slots again.
        if !effects.isEmpty {
            try afterStep(index)
            return
        }
        if options.invariantInterval > 0 && report.steps % options.invariantInterval == 0 {
            if let violation = replica.pointee.core.violatedInvariant() {
                throw failure("replica \(index) violates: \(violation)")
            }
        }
        scheduleTick(index)
    }

    private func execute(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        guard replica.pointee.hasToExecute && replica.pointee.execute(store, random: &random) else { return }
        if replica.pointee.executor.working.records == 0 && !replica.pointee.executor.working.isDrifted {
            try check(history.compare(index, replica.pointee.executor.working))
        }
        if options.plantedBugs.contains(.replyBeforeCommit) { try answer(index) }
        let delay = replica.pointee.flushDelay(plan.flush, now: now, random: &random)
        if !replica.pointee.isStuck { scheduleCommit(index, at: now + delay) }
    }

    private func scheduleCommit(_ index: ReplicaIndex, at time: Microseconds) {
        let replica = replicas + index
        queue.schedule(
            Event(
                kind: .commit, replica: index, life: replica.pointee.life, number: replica.pointee.executor.commitNumber
            ), at: time)
    }

    /// The faults end for a replica that runs: what its storage holds up is done, its clock is right.
    func calm(_ index: ReplicaIndex) {
        let replica = replicas + index
        replica.pointee.calm(now: now)
        guard replica.pointee.isRunning else { return }
        if replica.pointee.storage.members.hasUnfenced { scheduleRecorded(index, at: now + 1) }
        guard replica.pointee.isUp else { return }
        queue.schedule(
            Event(kind: .flush, replica: index, life: replica.pointee.life, number: replica.pointee.core.newestRecord),
            at: now + 1)
        if replica.pointee.executor.isCommitting { scheduleCommit(index, at: now + 1) }
        scheduleRoom(index, at: now + 1)
        if hasLinks { resumeLinks(of: index) }
        replica.pointee.tickAt = .max
        scheduleTick(index)
    }

    private func answer(_ index: ReplicaIndex) throws(SimulationFailure) {
        for place in 0..<replicas[index].executor.replies.count {
            let answer = replicas[index].executor.replies[place]
            try reply(index, answer.command, answer.reply)
        }
        replicas[index].executor.repliesLeft()
    }

    func scheduleTick(_ index: ReplicaIndex) {
        let replica = replicas + index
        let deadline = max(replica.pointee.clock.global(replica.pointee.core.nextDeadline), now + 1)
        if deadline < replica.pointee.tickAt {
            replica.pointee.tickAt = deadline
            queue.schedule(
                Event(kind: .tick, replica: index, life: replica.pointee.life, number: deadline), at: deadline)
        }
    }

    /// A message waits for its record.
    private func wait(_ send: Send, at index: ReplicaIndex) {
        let replica = replicas + index
        if hasLinks && send.message.kind == .accept {
            links.outboxes[links.place(index, send.to)].unready += Int(send.message.batch.length) + Frame.headerBytes
        }
        replica.pointee.waiting.append(send)
    }

    /// Sends, in order, what waited for records that are durable now.
    private func dispatchReady(from index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        var left = 0
        for place in 0..<replica.pointee.waiting.count {
            if replica.pointee.waiting[place].after <= replica.pointee.storage.durable {
                let send = replica.pointee.waiting[place]
                if hasLinks && send.message.kind == .accept {
                    links.outboxes[links.place(index, send.to)].unready -=
                        Int(send.message.batch.length) + Frame.headerBytes
                }
                try dispatch(send, from: index)
            } else {
                replica.pointee.waiting[left] = replica.pointee.waiting[place]
                left += 1
            }
        }
        replica.pointee.waiting.truncate(to: left)
    }

    private func dispatch(_ send: Send, from: ReplicaIndex) throws(SimulationFailure) {
        guard replicas[from].met >> UInt16(send.to) & 1 != 0 else { return }
        if !replicas[from].holds(send.message.batch) {
            throw failure("replica \(from) sends \(send.message), whose bytes it has not")
        }
        // Two that no other lets in may meet, each on pools that have forgotten what the other has seen. What they say
        // to each other alone counts nowhere: a majority is not lost.
        if !(replicas[from].isLost && replicas[send.to].isLost) {
            try check(checker.sent(send.message, by: from))
        }
        if hasLinks {
            try post(send.message, from: from, to: send.to)
            return
        }
        let (first, second) = network.deliveries(
            of: send.message.kind, from: from, to: send.to, random: &random)
        let lag = replicas[from].lag + replicas[send.to].lag
        if let first { queue.schedule(send.message, from: from, to: send.to, at: now + first + lag) }
        if let second { queue.schedule(send.message, from: from, to: send.to, at: now + second + lag) }
    }
}
