import Consensus

/// Starts, crashes, and what a stopped replica takes from another.
extension Simulator {
    /// How often a replica looks whether it needs the state of another.
    var transferInterval: Microseconds { 30_000 }

    func start(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        replica.pointee.start(now: now, into: &effects)
        trace("\(index) starts, executed \(replica.pointee.executed)")
        queue.schedule(
            Event(kind: .transferCheck, replica: index, life: replica.pointee.life),
            at: now + transferInterval + random.below(transferInterval))
        for peer in indices where peer != index && replicas[peer].isUp {
            if hasLinks {
                queue.schedule(
                    Event(kind: .linkUp, replica: index, life: replica.pointee.life, peer: peer),
                    at: now + 100 + random.below(1_000))
                continue
            }
            let delay = 100 + random.below(1_000)
            queue.schedule(
                Event(kind: .linkUp, replica: index, life: replica.pointee.life, peer: peer), at: now + delay)
            queue.schedule(
                Event(kind: .linkUp, replica: peer, life: replicas[peer].life, peer: index), at: now + delay)
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
        guard replica.pointee.isUp else { return }
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
        guard replica.pointee.core.needsStateTransfer else { return }
        let givers = indices.filter {
            $0 != index && replicas[$0].isUp && network.isOpen(from: $0, to: index)
                && network.isOpen(from: index, to: $0) && replicas[$0].executed > replica.pointee.core.decided
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
            for b in indices where a != b && replicas[b].isUp && random.chance(perMille: 500) {
                queue.schedule(
                    Event(kind: .linkUp, replica: a, life: replicas[a].life, peer: b),
                    at: now + 100 + random.below(1_000))
            }
        }
    }
}
