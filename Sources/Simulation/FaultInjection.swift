import MPaxosConsensus

/// Makes the drawn faults happen.
extension Simulator {
    func injectFault() throws(SimulationFailure) {
        guard isFaulty else { return }
        report.faults += 1
        queue.schedule(Event(kind: .fault), at: now + 1 + random.below(2 * plan.interval))
        guard let kind = plan.draw(random: &random) else { return }
        if let faults = options.faults, !faults.contains(report.faults) { return }
        let victim = random.index(replicaCount)
        let replica = replicas + victim
        switch kind {
        case .crash: try crash(victim, restartAfter: downTime())
        case .crashAll:
            let delay = downTime()
            for index in indices { try crash(index, restartAfter: delay + random.below(5_000)) }
        case .crashLeader:
            if let leader = leaderIndex() { try crash(leader, restartAfter: downTime()) }
        case .pause: pause(victim)
        case .pauseLeader:
            if let leader = leaderIndex() { pause(leader) }
        case .slowStorage:
            trace("\(victim) has slow storage")
            replica.pointee.slowUntil = now + random.below(plan.span)
            replica.pointee.slowBy = 1 + random.below(50_000)
        case .stuckStorage:
            trace("\(victim) has stuck storage")
            replica.pointee.slowUntil = now + random.below(plan.span)
            replica.pointee.slowBy = 2 * plan.span
        case .split, .oneWay, .ring, .isolateLeader: partition(kind)
        case .mute where hasLinks: loseSomeLink(of: victim)
        case .mute: mute(random.chance(perMille: 500) ? victim : leaderIndex() ?? victim)
        case .rotate: rotate()
        case .trap:
            traps = 1 + random.index(3)
            replica.pointee.slowUntil = now + random.below(plan.span)
            replica.pointee.slowBy = 1 + random.below(replica.pointee.configuration.suspect / 2)
        case .silence: silences = 1 + random.index(4)
        case .clockJump:
            trace("\(victim)'s clock jumps")
            changeClock(victim, rate: nil, jump: random.below(4 * replica.pointee.configuration.suspect))
        case .clockRate:
            trace("\(victim)'s clock changes its pace")
            changeClock(victim, rate: 300 + random.below(3_000), jump: 0)
        case .lag:
            trace("\(victim) is slow")
            replica.pointee.lag =
                random.chance(perMille: 300) ? 0 : random.below(replica.pointee.configuration.suspect / 2)
        case .fullLog:
            trace("\(victim) has no room for batches")
            replica.pointee.fullUntil = now + random.below(plan.span)
        case .losePools: try losePools(victim)
        case .clientDeath: killClient()
        case .linkLoss: loseSomeLink(of: victim)
        case .slowLink: slowSomeLink(of: victim)
        case .rollBack: try rollBack(victim)
        case .clone: try takeTurns(victim)
        case .mixPools: try mixPools(victim)
        case .flipVote: try flipVote(victim)
        case .drift: drift(victim)
        }
        if hasLinks { cutLinks() }
    }

    func downTime() -> Microseconds {
        random.chance(perMille: 600) ? random.below(80_000) : random.below(plan.span)
    }

    private func leaderIndex() -> ReplicaIndex? {
        indices.filter { replicas[$0].isUp && replicas[$0].core.role == .leader }
            .randomElement(using: &random)
    }

    private func pause(_ index: ReplicaIndex) {
        guard replicas[index].isRunning else { return }
        trace("\(index) pauses")
        replicas[index].pausedUntil = now + random.below(plan.span)
    }

    private func changeClock(_ index: ReplicaIndex, rate: UInt64?, jump: Microseconds) {
        replicas[index].clock.change(now: now, rate: rate ?? 1000, jump: jump)
        guard replicas[index].isUp else { return }
        replicas[index].tickAt = .max
        scheduleTick(index)
    }

    private func loseSomeLink(of index: ReplicaIndex) {
        guard hasLinks else { return }
        loseLink(index, (index + 1 + random.index(replicaCount - 1)) % replicaCount)
    }

    private func slowSomeLink(of index: ReplicaIndex) {
        guard hasLinks else { return }
        let peer = (index + 1 + random.index(replicaCount - 1)) % replicaCount
        trace("the link from \(index) to \(peer) is slow")
        links.ways[links.place(index, peer)].slowUntil = now + random.below(plan.span)
    }

    /// A crash aimed at the moments at which the order of records matters, and what of them it spares; nil: no such
    /// moment.
    func trap(for replica: UnsafeMutablePointer<SimulatedReplica>) -> SimulatedStorage.CrashMode? {
        guard traps > 0 && isFaulty && effects.recordCount > 0 else { return nil }
        var mode: SimulatedStorage.CrashMode?
        for record in effects.records {
            switch record.kind {
            case .established: mode = .promises
            case .promise: break
            case .accept:
                if record.view == decidedView && replica.pointee.storage.hasPendingPromise { mode = .acceptances }
            }
        }
        guard let mode, random.chance(perMille: 700) else { return nil }
        traps -= 1
        return random.chance(perMille: 700) ? mode : .any
    }

    /// The leader decided, or accepted, something that nobody else knows yet: what the step had to say is lost, and
    /// what it has to say later too.
    func silence(_ index: ReplicaIndex, hasProposed: Bool) throws(SimulationFailure) -> Bool {
        let replica = replicas + index
        guard replica.pointee.isUp && replica.pointee.core.role == .leader else { return false }
        let hasDecided = replica.pointee.core.commit > replica.pointee.lastCommit
        guard hasDecided || hasProposed else { return false }
        guard isFaulty && random.chance(perMille: 200) else { return false }
        silences -= 1
        trace("\(index) decided \(replica.pointee.core.commit), and is silenced")
        if random.chance(perMille: 200) {
            // When it learns what came after it, that is slow to become durable.
            traps += 1
            replica.pointee.slowUntil = now + 2 * plan.span
            replica.pointee.slowBy = 2 * replica.pointee.configuration.suspect
        }
        switch random.below(5) {
        case 0: try crash(index, restartAfter: downTime())
        case 1...3: rotate(without: index)
        default:
            let number = network.block { from, to in from == index || to == index }
            queue.schedule(Event(kind: .heal, number: number), at: now + 1 + random.below(plan.span))
        }
        return true
    }

    /// Cuts a majority off from the rest, and so that it has as few members as can be of the one before: what the one
    /// has chosen, the other may find at one replica only.
    func rotate(without excluded: ReplicaIndex = -1) {
        let count = replicaCount
        guard count > 2 else { return }
        let quorum = count / 2 + 1
        network.heal(rotation)
        var order = indices.filter { majority >> UInt16($0) & 1 == 0 }
        order.shuffle(using: &random)
        var others = indices.filter { majority >> UInt16($0) & 1 != 0 }
        others.shuffle(using: &random)
        order += others
        if let place = order.firstIndex(of: excluded) { order.append(order.remove(at: place)) }
        majority = 0
        for index in order[0..<quorum] { majority |= 1 << UInt16(index) }
        let members = majority
        rotation = network.block { from, to in (members >> UInt16(from) ^ members >> UInt16(to)) & 1 != 0 }
        trace("majority \(order[0..<quorum].sorted()) is on its own")
        queue.schedule(Event(kind: .heal, number: rotation), at: now + 1 + random.below(2 * plan.span))
    }

    /// One replica, or the ways to it or from it, loses some kinds of messages: what a plain loss does only by a long
    /// chance.
    private func mute(_ index: ReplicaIndex) {
        guard replicaCount > 1 else { return }
        let choices: [[Message.Kind]] = [
            [.accept], [.accepted], [.heartbeat], [.decided], [.promise], [.accept, .heartbeat],
            [.accept, .decided], [.accepted, .nack], [.nack, .heartbeat], [.catchUpRequest],
        ]
        var kinds: UInt16 = 0
        for kind in choices[random.index(choices.count)] { kinds |= 1 << UInt16(kind.rawValue) }
        var peer = -1
        if random.chance(perMille: 500) { peer = (index + 1 + random.index(replicaCount - 1)) % replicaCount }
        let isOutward = random.chance(perMille: 500)
        let number = network.mute(kinds, from: isOutward ? index : peer, to: isOutward ? peer : index)
        trace("mute \(number): kinds \(String(kinds, radix: 2)) \(isOutward ? "from" : "to") \(index), \(peer)")
        queue.schedule(Event(kind: .heal, number: number), at: now + 1 + random.below(plan.span))
    }

    private func partition(_ kind: FaultPlan.Kind) {
        guard replicaCount > 1 else { return }
        let count = replicaCount
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
        queue.schedule(Event(kind: .heal, number: number), at: now + 1 + random.below(plan.span))
    }
}
