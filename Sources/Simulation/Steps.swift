import Consensus

/// What happens when an event is due, and after each step of a core.
extension Simulator {
    func handle(_ event: Event) throws(SimulationFailure) {
        switch event.kind {
        case .proposal:
            try proposeSomewhere()
            return
        case .fault:
            try injectFault()
            return
        case .heal:
            network.heal(event.number)
            reportLinks()
            return
        case .restart:
            let replica = replicas[event.replica]
            if replica.life == event.life && !replica.isUp && !replica.isLost { try start(event.replica) }
            return
        case .client:
            clientTurn(event.replica, event.number)
            return
        case .reply:
            try takeReply(Int(event.number))
            return
        default: break
        }
        let replica = replicas[event.replica]
        if event.kind == .message || event.kind == .command {
            // The network does not care for lives.
            guard replica.isUp else { return }
        } else {
            guard replica.isUp && replica.life == event.life else { return }
        }
        if replica.pausedUntil > now {
            queue.schedule(event, at: replica.pausedUntil)
            return
        }
        try handle(event, at: replica)
    }

    private func handle(_ event: Event, at replica: SimulatedReplica) throws(SimulationFailure) {
        switch event.kind {
        case .message:
            trace("\(event.peer) -> \(event.replica) \(event.message)")
            guard try receive(event.message, from: event.peer, at: replica) else { return }
        case .tick:
            guard replica.tickAt == event.number else { return }
            replica.tickAt = .max
            replica.core.tick(now: replica.clock.local(now), into: &replica.effects)
        case .flush:
            guard event.number > replica.storage.durable else { return }
            replica.storage.fence(through: event.number)
            replica.core.durable(event.number, now: replica.clock.local(now), into: &replica.effects)
            replica.takeReady(through: event.number)
            try dispatchSpare(from: event.replica)
        case .linkUp:
            replica.core.connected(event.peer, now: replica.clock.local(now), into: &replica.effects)
        case .commit:
            guard replica.executor.isCommitting && replica.executor.commitNumber == event.number else { return }
            replica.executor.endCommit()
            try answer(event.replica)
        case .command:
            try takeCommand(Int(event.number), at: event.replica, from: event.peer)
            return
        case .transferCheck:
            try checkTransfer(event.replica)
            return
        default: break
        }
        try afterStep(event.replica)
        if !replica.inbox.isEmpty { try proposeOrForward(event.replica) }
    }

    /// Returns false when there was no room even to look at the message.
    private func receive(
        _ sent: Message, from peer: ReplicaIndex, at replica: SimulatedReplica
    ) throws(SimulationFailure) -> Bool {
        var message = sent
        let hasBytes = message.carriesBatch && !message.batch.isNoop
        let isWanted =
            replica.core.wants(message, from: peer) || options.plantedBugs.contains(.decidedWithoutView)
        if hasBytes && isWanted {
            // Without room for the bytes, the message is lost.
            if replica.fullUntil > now { return false }
            message.batch = replica.seal(message.batch.checksum, length: message.batch.length)
        }
        let isKept = replica.core.receive(
            message, from: peer, now: replica.clock.local(now), into: &replica.effects)
        if hasBytes && isWanted && !isKept { replica.unseal(message.batch) }
        if isKept && !isWanted { throw failure("replica \(replica.configuration.replica) kept what it did not want") }
        if isKept && !message.carriesBatch { throw failure("kept the batch of \(message)") }
        return true
    }

    /// Commands for which nobody waits, each proposed once only.
    private func proposeSomewhere() throws(SimulationFailure) {
        queue.schedule(Event(kind: .proposal), at: now + 1 + random.below(2 * proposalInterval))
        let first = random.index(replicas.count)
        for offset in replicas.indices {
            let index = (first + offset) % replicas.count
            let replica = replicas[index]
            guard replica.isUp && replica.pausedUntil <= now && replica.core.canPropose else { continue }
            spare.removeAll(keepingCapacity: true)
            for _ in 0...random.index(3) {
                var command = Command(
                    kind: .submit, client: -1, operation: history.begin(isQuery: false, isExactlyOnce: true))
                command.register = random.index(ReplicatedState.registerCount)
                command.value = UInt64(command.operation) + 1
                spare.append(store.add(command))
            }
            try propose(store.makeBatch(of: spare[...]), at: index)
            // Mostly one leader; sometimes two believe to be.
            if random.chance(perMille: 500) { return }
        }
    }

    func propose(_ batch: UInt32, at index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        let handle = replica.seal(batch, length: bytesPerCommand * UInt32(store.count(of: batch)))
        guard
            let instance = replica.core.propose(handle, now: replica.clock.local(now), into: &replica.effects)
        else { throw failure("replica \(index) refused what it could propose") }
        trace("\(index) proposes \(batch) for \(instance)")
        try afterStep(index)
    }

    /// Takes over the effects of a step, lets the replica execute, and checks.
    func afterStep(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        report.steps += 1
        if let mode = trap(for: replica) {
            trace("\(index) falls into a trap")
            for record in replica.effects.records { replica.storage.write(record) }
            try crash(index, restartAfter: random.below(replica.configuration.suspect), mode: mode)
            return
        }
        let hasRecords = replica.effects.recordCount > 0
        if hasRecords {
            var crashChance = plan.crashAtWrite
            for record in replica.effects.records {
                guard replica.holds(record.batch) else {
                    throw failure("replica \(index) wants to keep \(record), whose bytes it has not")
                }
                replica.storage.write(record)
                if record.kind != .accept { crashChance = 10 * plan.crashAtWrite }
            }
            if crashChance > 0 && random.chance(perMille: crashChance) {
                replica.effects.removeAll()
                try crash(index, restartAfter: downTime())
                return
            }
            let last = replica.core.newestRecord
            replica.flushAt = max(replica.flushAt, now + replica.flushDelay(plan, now: now, random: &random))
            queue.schedule(
                Event(kind: .flush, replica: index, life: replica.life, number: last), at: replica.flushAt)
        }
        if silences > 0 {
            if try silence(index, hasProposed: hasRecords) {
                guard replica.isUp else { return }
                replica.effects.removeAll()
            }
            replica.lastCommit = replica.core.commit
        }
        if replica.effects.sendCount > 0 {
            replica.spareSends.removeAll(keepingCapacity: true)
            for send in replica.effects.sends {
                if send.after > replica.storage.durable {
                    replica.waiting.append(send)
                } else {
                    replica.spareSends.append(send)
                }
            }
            replica.effects.removeAll()
            try dispatchSpare(from: index)
        } else {
            replica.effects.removeAll()
        }
        if replica.core.decided > checker.compared[index] {
            try check(checker.compare(index, replica.core, replica.storage))
        }
        while history.executed < checker.highestDecided {
            try check(history.extend(checker.decided[Int(history.executed)], of: store))
        }
        try execute(index)
        replica.trim(now: now)
        if options.invariantInterval > 0 && report.steps % options.invariantInterval == 0 {
            if let violation = replica.core.violatedInvariant() {
                throw failure("replica \(index) violates: \(violation)")
            }
        }
        scheduleTick(index)
    }

    private func execute(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        guard replica.hasToExecute && replica.execute(store, random: &random) else { return }
        if replica.executor.working.records == 0 { try check(history.compare(index, replica.executor.working)) }
        if options.plantedBugs.contains(.replyBeforeCommit) { try answer(index) }
        let delay = replica.flushDelay(plan, now: now, random: &random)
        scheduleCommit(index, at: now + delay)
    }

    private func scheduleCommit(_ index: ReplicaIndex, at time: Microseconds) {
        let replica = replicas[index]
        queue.schedule(
            Event(kind: .commit, replica: index, life: replica.life, number: replica.executor.commitNumber), at: time)
    }

    /// The faults end for a replica that runs: what its storage holds up is done, its clock is right.
    func calm(_ index: ReplicaIndex) {
        let replica = replicas[index]
        replica.calm(now: now)
        guard replica.isUp else { return }
        queue.schedule(
            Event(kind: .flush, replica: index, life: replica.life, number: replica.core.newestRecord), at: now + 1)
        if replica.executor.isCommitting { scheduleCommit(index, at: now + 1) }
        replica.tickAt = .max
        scheduleTick(index)
    }

    private func answer(_ index: ReplicaIndex) throws(SimulationFailure) {
        for (number, reply) in replicas[index].executor.takeReplies() { try self.reply(index, number, reply) }
    }

    func scheduleTick(_ index: ReplicaIndex) {
        let replica = replicas[index]
        let deadline = max(replica.clock.global(replica.core.nextDeadline), now + 1)
        if deadline < replica.tickAt {
            replica.tickAt = deadline
            queue.schedule(Event(kind: .tick, replica: index, life: replica.life, number: deadline), at: deadline)
        }
    }

    /// Sends what is in `spareSends`.
    private func dispatchSpare(from index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        for place in replica.spareSends.indices {
            let send = replica.spareSends[place]
            if send.message.carriesBatch && !replica.holds(send.message.batch) {
                throw failure("replica \(index) sends \(send.message), whose bytes it has not")
            }
            try dispatch(send, from: index)
        }
    }

    private func dispatch(_ send: Send, from: ReplicaIndex) throws(SimulationFailure) {
        try check(checker.sent(send.message, by: from))
        let (first, second) = network.deliveries(
            of: send.message.kind, from: from, to: send.to, random: &random)
        let lag = replicas[from].lag + replicas[send.to].lag
        let event = Event(kind: .message, replica: send.to, peer: from, message: send.message)
        if let first { queue.schedule(event, at: now + first + lag) }
        if let second { queue.schedule(event, at: now + second + lag) }
    }
}
