import MPaxosConsensus

/// States that drift apart, and the comparison of their digests, by the very rules of the node.
///
/// What is promised: a replica whose state differs from a majority's at an instance that both told stops, and no other
/// does. Until then its own replies may be wrong, and are not checked; nobody is given its state here, which the
/// node prevents only where a third replica tells of the same instance in time.
extension Simulator {
    /// In the proportions of the node to `suspect`.
    private var digestPatience: DigestComparison.Patience {
        .init(withoutHope: 3 * suspect, withFew: 33 * suspect, withAll: 200 * suspect)
    }

    func drift(_ index: ReplicaIndex) {
        guard replicas[index].isUp && mayBeLost(index) else { return }
        trace("the state of \(index) drifts")
        replicas[index].executor.drift(register: random.index(ReplicatedState.registerCount))
        lose(index)
    }

    /// After a commit: at fixed instances a replica states the digest of its state, however busy it is.
    func stateDigest(_ index: ReplicaIndex) throws(SimulationFailure) {
        guard let interval = replicas[index].digestInterval else { return }
        let state = replicas[index].executor.committed
        guard state.executed % interval == 0 && state.records == 0 else { return }
        try takeStatement(.init(executed: state.executed, value: state.digest), of: index, at: index)
    }

    /// A replica states where it stands now, and hears what those have stated that it has taken up with.
    func compareStates(_ index: ReplicaIndex) throws(SimulationFailure) {
        let life = replicas[index].life
        queue.schedule(
            Event(kind: .compare, replica: index, life: life),
            at: now + 1 + random.below(replicas[index].configuration.suspect))
        let state = replicas[index].executor.committed
        if state.records == 0 {
            try takeStatement(.init(executed: state.executed, value: state.digest), of: index, at: index)
        }
        if options.plantedBugs.contains(.digestsNotCompared) { return }
        for peer in indices where peer != index && haveMet(index, peer) && network.isOpen(from: peer, to: index) {
            guard plan.loss == 0 || !random.chance(perMille: plan.loss) else { continue }
            for statement in replicas[peer].comparison?.statements(of: peer) ?? [] {
                guard replicas[index].life == life else { return }
                try takeStatement(statement, of: peer, at: index)
            }
        }
        if replicas[index].life == life { try endDispute(index) }
    }

    private func takeStatement(
        _ statement: DigestComparison.Standing, of peer: ReplicaIndex, at index: ReplicaIndex
    ) throws(SimulationFailure) {
        guard case .thisDiffers = replicas[index].comparison?.take(statement, from: peer, now: now) else { return }
        trace("\(index) differs from a majority after \(statement.executed), and stops")
        guard replicas[index].executor.committed.isDrifted else {
            throw failure("replica \(index), whose state is sound, is told that it differs after \(statement.executed)")
        }
        report.driftsFound += 1
        try crash(index, restartAfter: nil)
    }

    /// Who has waited too long to hear who is right stops. Started again, it may find others to tell it.
    private func endDispute(_ index: ReplicaIndex) throws(SimulationFailure) {
        let isAnybodyAway = replicas[index].met.nonzeroBitCount < replicaCount - 1
        guard let comparison = replicas[index].comparison,
            comparison.isOverdue(digestPatience, isAnybodyAway: isAnybodyAway, now: now)
        else { return }
        trace("\(index) stops, since nobody says whose state is right")
        try crash(index, restartAfter: downTime())
    }

    /// The faults have ended, and a majority of the replicas is sound: those that are not must stop, and no dispute may
    /// last.
    func settleStates(of sound: [ReplicaIndex]) throws(SimulationFailure) {
        let drifted = indices.filter { replicas[$0].isRunning && replicas[$0].executor.committed.isDrifted }
        guard !drifted.isEmpty || sound.contains(where: { replicas[$0].comparison?.disputed ?? 0 != 0 }) else { return }
        try wake(sound + drifted)
        trace("\(drifted) have drifted, and are to stop")
        let isSettled = { [self] in
            drifted.allSatisfy { !replicas[$0].isRunning || !replicas[$0].executor.committed.isDrifted }
                && sound.allSatisfy { replicas[$0].comparison?.disputed ?? 0 == 0 }
        }
        try runUntil(now + 8 * 80 * suspect + transferTime(to: sound + drifted), orWhen: isSettled)
        guard !isSettled() else {
            // Who looks after them leaves those down that have stopped: started again they would claim, until they
            // stop once more, to have decided what nobody is to take from them.
            for index in indices where !replicas[index].isRunning && replicas[index].executor.committed.isDrifted {
                replicas[index].stayDown()
            }
            return
        }
        // What the sound ones lack has only one that has drifted: they tell of no instance that it tells of. Who looks
        // after them stops it, and they go on with what they have accepted.
        if sound.contains(where: { replicas[$0].isUp && replicas[$0].core.needsStateTransfer }) {
            report.driftsAhead += 1
            for index in drifted { try crash(index, restartAfter: nil) }
            return
        }
        let states = indices.map {
            "\($0): \(replicas[$0].summary) disputes \(replicas[$0].comparison?.disputed ?? 0)"
        }
        throw failure(
            "replicas \(drifted), whose states have drifted, have not stopped: \(states.joined(separator: "; "))")
    }
}
