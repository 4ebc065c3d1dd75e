import MPaxosConsensus
import MPaxosSimulation

/// What goes wrong, as it is drawn.
extension ClusterSimulator {
    func fault() throws(SimulationFailure) {
        guard isFaulty else { return }
        agenda.put(.fault, at: now + 1 + random.below(2 * plan.interval))
        let total = plan.weights.reduce(0, +)
        guard total > 0 else { return }
        var ticket = random.below(total)
        var kind = ClusterFault.crash
        for (candidate, weight) in zip(ClusterFault.allCases, plan.weights) {
            kind = candidate
            if ticket < weight { break }
            ticket -= weight
        }
        report.faults += 1
        // What is drawn here is drawn also where the fault is left out, so that the rest of the run is the same.
        let victim = hosts[random.index(hosts.count)]
        let other = hosts[random.index(hosts.count)]
        let span = 1 + random.below(plan.span)
        let size = random.next()
        guard options.faults?.contains(report.faults) ?? true else { return }
        trace("fault \(report.faults): \(kind) of \(victim.index), \(other.index), for \(span)")
        try inject(kind, on: victim, other, for: span, size)
    }

    private func inject(
        _ kind: ClusterFault, on victim: Host, _ other: Host, for span: Microseconds, _ size: UInt64
    ) throws(SimulationFailure) {
        let leader = hosts.first(where: \.isLeader) ?? victim
        switch kind {
        case .crash: try crash(victim, within: size)
        case .crashLeader: try crash(leader, within: size)
        case .crashAll: for host in hosts { try crash(host, within: size % 50 + UInt64(host.index)) }
        case .cutLink where victim !== other:
            block(victim, other, for: span)
        case .cutLink: break
        case .oneWay where victim !== other:
            ways.block(from: victim.index, to: other.index, true)
            atEnd(after: span) { [unowned self] in
                ways.block(from: victim.index, to: other.index, false)
                connections.cut(victim.index, other.index)
            }
        case .oneWay: break
        case .isolate: for peer in hosts where peer !== victim { block(victim, peer, for: span) }
        case .isolateLeader: for peer in hosts where peer !== leader { block(leader, peer, for: span) }
        case .slowStorage:
            let before = victim.fence
            victim.fence = 1 + size % 20_000
            atEnd(after: span) { victim.fence = before }
        case .stuckLane: victim.lanes[Int(size % UInt64(victim.lanes.count))].stuckUntil = now + span
        case .stuckLog: victim.lanes[victim.engineLane].stuckUntil = now + span * (1 + size % 10)
        case .stuckState: victim.lanes[victim.executorLane].stuckUntil = now + span * (1 + size % 10)
        case .slowLane:
            let lane = Int(size % UInt64(victim.lanes.count))
            victim.lanes[lane].slowness = 1 + size / 7 % 3_000
            atEnd(after: span) { victim.lanes[lane].slowness = 0 }
        case .clockJump: victim.clock.change(now: now, rate: 1000, jump: size % (4 * plan.suspect))
        case .clockRate:
            victim.clock.change(now: now, rate: 500 + size % 1_500, jump: 0)
            atEnd(after: span) { [unowned self] in victim.clock.change(now: now, rate: 1000, jump: 0) }
        case .longAway:
            guard hosts.filter({ $0.isAway || $0.driftPosition != nil }).count < (hosts.count - 1) / 2 else { return }
            victim.isAway = true
            try crash(victim)
            atEnd(after: 4 * span) { [unowned self] () throws(SimulationFailure) in
                victim.isAway = false
                if !victim.isUp { try start(victim) }
            }
        }
    }

    private func crash(_ host: Host, within events: UInt64) throws(SimulationFailure) {
        guard host.isUp else { return }
        if events % 3 == 0 { return try crash(host) }
        host.eventsUntilCrash = 1 + Int(events % 300)
    }

    /// No frames get from one to the other, either way.
    func block(_ one: Host, _ other: Host, for span: Microseconds) {
        ways.block(from: one.index, to: other.index, true)
        ways.block(from: other.index, to: one.index, true)
        connections.cut(one.index, other.index)
        atEnd(after: span) { [unowned self] in
            ways.block(from: one.index, to: other.index, false)
            ways.block(from: other.index, to: one.index, false)
        }
    }

    private func atEnd(after span: Microseconds, _ end: @escaping () throws(SimulationFailure) -> Void) {
        endsMade += 1
        ends[endsMade] = end
        agenda.put(.end(number: endsMade), at: now + span)
    }
}
