import Consensus

/// Makes the drawn faults happen.
extension Simulator {
    func injectFault() throws(SimulationFailure) {
        guard isFaulty else { return }
        queue.schedule(Event(kind: .fault), at: now + 1 + random.below(2 * plan.interval))
        guard let kind = plan.draw(random: &random) else { return }
        let victim = random.index(replicas.count)
        switch kind {
        case .crash:
            try crash(victim, restartAfter: downTime())
        case .crashAll:
            let delay = downTime()
            for index in replicas.indices { try crash(index, restartAfter: delay + random.below(5_000)) }
        case .crashLeader:
            if let leader = leaderIndex() { try crash(leader, restartAfter: downTime()) }
        case .pause:
            guard replicas[victim].isUp else { return }
            trace("\(victim) pauses")
            replicas[victim].pausedUntil = now + random.below(500_000)
        case .slowStorage:
            trace("\(victim) has slow storage")
            replicas[victim].slowUntil = now + random.below(500_000)
            replicas[victim].slowBy = random.chance(perMille: 300) ? 500_000 : 1 + random.below(50_000)
        case .split, .oneWay, .ring, .isolateLeader:
            partition(kind)
        }
    }

    func downTime() -> Microseconds {
        random.chance(perMille: 600) ? random.below(80_000) : random.below(600_000)
    }

    private func leaderIndex() -> ReplicaIndex? {
        replicas.indices.filter { replicas[$0].isUp && replicas[$0].core.role == .leader }
            .randomElement(using: &random)
    }

    private func partition(_ kind: FaultPlan.Kind) {
        guard replicas.count > 1 else { return }
        let count = replicas.count
        let mask = random.next()
        let bothWays = kind == .split || random.chance(perMille: 500)
        let leader = leaderIndex() ?? random.index(count)
        let outward = random.chance(perMille: 500)
        let number: UInt64
        switch kind {
        case .isolateLeader:
            number = network.block { from, to in
                bothWays ? from == leader || to == leader : (outward ? from == leader : to == leader)
            }
        case .ring:
            // Each hears its neighbours only: with more than three, no two see the same majority.
            number = network.block { from, to in
                let distance = (to - from + count) % count
                return distance != 1 && distance != count - 1
            }
        default:
            number = network.block { from, to in
                let a = mask >> UInt64(from) & 1
                let b = mask >> UInt64(to) & 1
                return bothWays ? a != b : a < b
            }
        }
        report.partitions += 1
        trace("partition \(number): \(kind)")
        queue.schedule(Event(kind: .heal, number: number), at: now + 1 + random.below(600_000))
    }
}
