import MPaxosConsensus
import MPaxosInvariants
import MPaxosSimulation

/// A state that is not what the log says, as that of a machine which is not deterministic: one replica does not run
/// some commands that the others run.
///
/// What is promised: it stops within a bound once all are linked, and no other does. What it answers until then is
/// checked by nobody; nobody is given its state here, which the replicas prevent only where a third one tells of the
/// same instance in time.
extension ClusterSimulator {
    /// Commands that it does not run. After few of them others put the same values under the same keys.
    private static let driftLength: UInt64 = 2_000

    func drift() {
        let host = hosts[random.index(hosts.count)]
        let distance = 1 + UInt64(random.index(20))
        guard isFaulty, let state = host.life?.pools.state, !hosts.contains(where: \.isAway) else { return }
        let first = state.position + distance
        host.driftPosition = first + Self.driftLength
        _ = state.skip(Array(first...first + Self.driftLength))
        trace("the state of \(host.index) drifts from position \(first) on")
    }

    /// After a turn of a replica whose state may be another by now.
    func lookAtDrift(of host: Host, _ life: Host.Life) throws(SimulationFailure) {
        guard let position = host.driftPosition else { return }
        for other in hosts where other.life?.stages.engine.needsState ?? false { other.hasLackedState = true }
        let isSound = isSound(host)
        if let reason = life.alarm.raised {
            guard isSound == false else {
                throw failure("replica \(host.index), whose state is sound, gives up: \(reason.text)")
            }
            trace("replica \(host.index) stops: \(reason.text)")
            report.driftsFound += 1
            host.isRetired = true
            count(host)
            host.stop()
        } else if isSound == true, let digest = life.board.digest, digest.position >= position {
            // It crashed before it was on record, or took over the state of another.
            trace("the state of \(host.index) is sound")
            host.driftPosition = nil
        }
    }

    /// Whether the state of a replica that is up is what the log says.
    private func isSound(_ host: Host) -> Bool? {
        host.life?.board.digest.map {
            checker.stands(host.index, executed: $0.executed, $0.value, at: $0.position) == nil
        }
    }

    /// A state has drifted, and of the others too few had one all the time: they cannot outvote it.
    var lacksSoundMajority: Bool {
        let sound = hosts.filter { $0.driftPosition == nil && !$0.hasLackedState }
        return hosts.contains { $0.driftPosition != nil } && sound.count <= hosts.count / 2
    }

    /// Once faults have ended: what has drifted is found, in quiet or under load.
    func awaitDrifts() throws(SimulationFailure) {
        guard hosts.contains(where: { $0.driftPosition != nil && !$0.isRetired }) else { return }
        for host in hosts where !host.isUp { try start(host) }
        let bound = now + 200 * plan.suspect + 5_000 * plan.fence + 60_000_000
        // In quiet nothing would reach the position.
        try run(until: bound) { [self] in
            hosts.allSatisfy {
                $0.isRetired || ($0.life?.board.digest?.position ?? 0) + Self.driftLength >= $0.driftPosition ?? 0
            }
        }
        if random.chance(perMille: 500) { for client in clients { client.isResting = true } }
        let isOver = { [self] in hosts.allSatisfy { $0.driftPosition == nil || $0.isRetired } }
        try run(until: bound, orWhen: isOver)
        // It may be sound after all: it came from another, and what is not to run was not among the last commands.
        for host in hosts where host.driftPosition != nil && !host.isRetired && isSound(host) != true {
            throw failure("replica \(host.index) goes on, though its state has drifted: \(summary(of: host))")
        }
        for client in clients where client.isResting {
            client.isResting = false
            schedule(client, after: random.below(plan.thinkTime))
        }
    }
}
