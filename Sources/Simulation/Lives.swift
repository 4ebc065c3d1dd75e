import MPaxosConsensus

/// Starts, crashes, and what a stopped replica takes from another.
extension Simulator {
    /// How often a replica looks whether it needs the state of another.
    var transferInterval: Microseconds { 30_000 }

    /// A process of the replica starts, if its pools let it.
    func start(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        if let refusal = replica.pointee.examinePools() {
            report.refusedStarts += 1
            trace("\(index) refuses to start: \(refusal)")
            guard replica.pointee.isLost else { throw failure("\(index) refuses its own pools: \(refusal)") }
            return
        }
        if plan.cutsStarts && random.chance(perMille: 100) {
            trace("\(index) is killed while it starts")
            replica.pointee.beginStart(steps: 1 + random.index(2), random: &random)
            queue.schedule(Event(kind: .restart, replica: index, life: replica.pointee.life), at: now + 1 + downTime())
            return
        }
        replica.pointee.open(random: &random)
        chronicle.begins(replica.pointee.acquaintances.own, of: index)
        if replica.pointee.takesPart {
            try startCore(index)
        } else {
            trace("\(index) looks for the others")
            queue.schedule(Event(kind: .acquaint, replica: index, life: replica.pointee.life), at: now + 1)
        }
    }

    /// A replica takes part from now on.
    func startCore(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        replica.pointee.start(now: now, into: &effects)
        trace("\(index) starts, executed \(replica.pointee.executed)")
        queue.schedule(
            Event(kind: .transferCheck, replica: index, life: replica.pointee.life),
            at: now + transferInterval + random.below(transferInterval))
        if replica.pointee.digestInterval != nil {
            queue.schedule(Event(kind: .compare, replica: index, life: replica.pointee.life), at: now + 1)
        }
        for peer in indices where peer != index && replicas[peer].isUp {
            scheduleLink(index, peer, at: now + 100 + random.below(1_000))
        }
        try afterStep(index)
        guard standsFirst && replica.pointee.isUp else { return }
        replica.pointee.core.standIfFirst(now: replica.pointee.clock.local(now), into: &effects)
        try afterStep(index)
    }

    func crash(
        _ index: ReplicaIndex, restartAfter delay: Microseconds?, mode: SimulatedStorage.CrashMode? = nil
    ) throws(SimulationFailure) {
        let replica = replicas + index
        guard replica.pointee.isRunning else { return }
        report.crashes += 1
        // What is known by then survives only in messages, and in this memory.
        for other in indices where replicas[other].isUp {
            try check(checker.compareMarks(other, replicas[other].core))
        }
        trace("\(index) crashes")
        effects.removeAll()
        replica.pointee.crash(random: &random, mode: mode)
        if hasLinks { closeLinks(of: index) }
        try check(
            checker.recovered(
                index, replica.pointee.storage, executed: replica.pointee.executed,
                slotCount: replica.pointee.configuration.slotCount))
        try check(history.recovered(index, replica.pointee.executor.committed))
        if plan.copiesPools && random.chance(perMille: replica.pointee.copy == nil ? 500 : 100) { copyPools(index) }
        if let delay {
            queue.schedule(Event(kind: .restart, replica: index, life: replica.pointee.life), at: now + delay)
        }
    }

    /// What the engine does when the core cannot go on: it takes the state of a replica that is further.
    func checkTransfer(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        queue.schedule(
            Event(kind: .transferCheck, replica: index, life: replica.pointee.life),
            at: now + transferInterval)
        guard replica.pointee.isUp && replica.pointee.core.needsStateTransfer else { return }
        let givers = indices.filter {
            $0 != index && replicas[$0].isUp && haveMet(index, $0) && network.isOpen(from: $0, to: index)
                && network.isOpen(from: index, to: $0) && replicas[$0].executed > replica.pointee.core.decided
                // Who takes a state over before it is compared has what it has: that is not promised.
                && !replicas[$0].executor.committed.isDrifted
        }
        guard let giver = givers.randomElement(using: &random) else { return }
        report.transfers += 1
        trace("\(index) takes the state of \(giver), executed \(replicas[giver].executed)")
        let view = replicas[giver].core.view
        let state = replicas[giver].executor.committed
        try crash(index, restartAfter: nil)
        replica.pointee.storage.install(executed: state.executed, promised: view)
        replica.pointee.executor.install(state)
        checker.installed(index, executed: state.executed)
        try start(index)
    }

    func reportLinks() {
        for a in indices where replicas[a].isUp {
            for b in indices where a != b && replicas[b].isUp && (!haveMet(a, b) || random.chance(perMille: 500)) {
                scheduleLink(a, b, at: now + 100 + random.below(1_000))
            }
        }
    }

    /// Both try to have a link then.
    func scheduleLink(_ a: ReplicaIndex, _ b: ReplicaIndex, at time: Microseconds) {
        queue.schedule(Event(kind: .linkUp, replica: a, life: replicas[a].life, peer: b), at: time)
    }
}
