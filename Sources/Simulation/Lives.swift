import Consensus

/// Starts, crashes, and what a stopped replica takes from another.
extension Simulator {
    func start(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        replica.start(now: now)
        trace("\(index) starts, executed \(replica.executed)")
        queue.schedule(
            Event(kind: .transferCheck, replica: index, life: replica.life), at: now + 30_000 + random.below(30_000))
        for peer in replicas.indices where peer != index && replicas[peer].isUp {
            let delay = 100 + random.below(1_000)
            queue.schedule(Event(kind: .linkUp, replica: index, life: replica.life, peer: peer), at: now + delay)
            queue.schedule(
                Event(kind: .linkUp, replica: peer, life: replicas[peer].life, peer: index), at: now + delay)
        }
        try afterStep(index)
        guard standsFirst && replica.isUp else { return }
        replica.core.standIfFirst(now: replica.clock.local(now), into: &replica.effects)
        try afterStep(index)
    }

    func crash(
        _ index: ReplicaIndex, restartAfter delay: Microseconds?, mode: SimulatedStorage.CrashMode? = nil
    ) throws(SimulationFailure) {
        let replica = replicas[index]
        guard replica.isUp else { return }
        report.crashes += 1
        // What is known by then survives only in messages, and in this memory.
        for replica in replicas.indices where replicas[replica].isUp {
            try check(checker.compareMarks(replica, replicas[replica].core))
        }
        trace("\(index) crashes")
        replica.crash(random: &random, mode: mode)
        try check(
            checker.recovered(
                index, replica.storage, executed: replica.executed, slotCount: replica.configuration.slotCount))
        try check(history.recovered(index, replica.executor.committed))
        if let delay {
            queue.schedule(Event(kind: .restart, replica: index, life: replica.life), at: now + delay)
        }
    }

    /// What the engine does when the core cannot go on: it takes the state of a replica that is further.
    func checkTransfer(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        queue.schedule(Event(kind: .transferCheck, replica: index, life: replica.life), at: now + 30_000)
        guard replica.core.needsStateTransfer else { return }
        let givers = replicas.indices.filter {
            $0 != index && replicas[$0].isUp && network.isOpen(from: $0, to: index)
                && network.isOpen(from: index, to: $0) && replicas[$0].executed > replica.core.decided
        }
        guard let giver = givers.randomElement(using: &random) else { return }
        report.transfers += 1
        trace("\(index) takes the state of \(giver), executed \(replicas[giver].executed)")
        let view = replicas[giver].core.view
        let state = replicas[giver].executor.committed
        try crash(index, restartAfter: nil)
        replica.storage.install(executed: state.executed, promised: view)
        replica.executor.install(state)
        checker.installed(index, executed: state.executed)
        try start(index)
    }

    func reportLinks() {
        for a in replicas.indices where replicas[a].isUp {
            for b in replicas.indices where a != b && replicas[b].isUp && random.chance(perMille: 500) {
                queue.schedule(
                    Event(kind: .linkUp, replica: a, life: replicas[a].life, peer: b),
                    at: now + 100 + random.below(1_000))
            }
        }
    }
}
