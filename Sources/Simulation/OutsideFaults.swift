import MPaxosConsensus

/// Faults that come from outside the processes: what is done to pools while nobody runs on them. Each costs the
/// replica, and a majority stays; of those that are left one at least is founded, so that all can be.
extension Simulator {
    func mayBeLost(_ index: ReplicaIndex) -> Bool {
        let others = indices.filter { $0 != index && !replicas[$0].isLost }
        return !replicas[index].isLost && others.count > replicaCount / 2
            && others.contains { replicas[$0].storage.members.isFounded }
    }

    /// Other pools are in the place of those that a replica had: what it said is not known to them.
    private func forget(_ index: ReplicaIndex) {
        checker.forget(index)
        checker.installed(index, executed: replicas[index].executed)
        history.forget(index)
    }

    /// The others would not have it back, and its pools are no more to be copied.
    func lose(_ index: ReplicaIndex) {
        replicas[index].isLost = true
        replicas[index].copy = nil
        replicas[index].aside = nil
    }

    private func scheduleRestart(_ index: ReplicaIndex) {
        queue.schedule(
            Event(kind: .restart, replica: index, life: replicas[index].life), at: now + 1 + downTime())
    }

    /// Pools without a memory of anything.
    func format(_ index: ReplicaIndex) {
        let incarnation = random.next() | 1
        replicas[index].format(
            sessionCount: sessionCount,
            members: MemberRecords(index: index, of: replicaCount, incarnation: incarnation))
        chronicle.isFormatted(index, incarnation: incarnation)
        replicas[index].copy = nil
        forget(index)
    }

    /// Its pools are gone, and it stays away, or comes with others and is not let in. Before anybody has met all the
    /// others it is: then nothing is lost.
    func losePools(_ index: ReplicaIndex) throws(SimulationFailure) {
        guard replicas[index].isRunning else { return }
        if options.plantedBugs.contains(.amnesia) {
            trace("\(index) loses its pools, and what it is called")
            try crash(index, restartAfter: downTime())
            let bootCount = replicas[index].executor.bootCount
            replicas[index].format(sessionCount: sessionCount, members: replicas[index].storage.members)
            replicas[index].executor.bootCount = bootCount
            forget(index)
            return
        }
        let isEarly = !indices.contains {
            replicas[$0].storage.members.founding >= .whole
                || replicas[$0].isRunning && replicas[$0].acquaintances.founding >= .whole
        }
        guard isEarly || mayBeLost(index) else { return }
        trace("\(index) loses its pools")
        try crash(index, restartAfter: nil)
        if !isEarly { lose(index) }
        format(index)
        if isEarly || random.chance(perMille: 500) { scheduleRestart(index) }
    }

    /// Of a replica that is down.
    func copyPools(_ index: ReplicaIndex) {
        guard replicas[index].storage.members.isFounded && !replicas[index].isLost else { return }
        trace("the pools of \(index) are copied")
        replicas[index].copy = CopiedPools(of: replicas[index])
    }

    /// Whether all others are sure to refuse the copy: each of them has a later life on record than those that the copy
    /// knows.
    private func isRefused(_ copy: CopiedPools, of index: ReplicaIndex) -> Bool {
        indices.allSatisfy {
            $0 == index || replicas[$0].isLost
                || replicas[$0].storage.members.records[index].life.bootCount > copy.life.bootCount
        }
    }

    /// A replica of which there is a copy that can be started, `index` or one after it. Where there is none the pools
    /// of `index` are copied for the next time.
    private func copied(
        from index: ReplicaIndex
    ) throws(SimulationFailure) -> (index: ReplicaIndex, copy: CopiedPools)? {
        for offset in indices {
            let candidate = (index + offset) % replicaCount
            if let copy = replicas[candidate].copy, mayBeLost(candidate) { return (candidate, copy) }
        }
        if replicas[index].isRunning {
            try crash(index, restartAfter: downTime())
            copyPools(index)
        }
        return nil
    }

    /// Pools of an earlier time harm most where the votes that they lack are known to a replica that is away, and those
    /// that are there have not heard of them: so one is cut off first, and when the copy starts all others but that
    /// one.
    func rollBack(_ victim: ReplicaIndex) throws(SimulationFailure) {
        guard let (index, copy) = try copied(from: victim), isRefused(copy, of: index) else { return }
        let other = (index + 1 + random.index(replicaCount - 1)) % replicaCount
        rotate(without: other)
        queue.schedule(
            Event(kind: .rollBack, replica: index, peer: other), at: now + 1 + random.below(plan.span))
    }

    /// The copy takes the place of the pools.
    func goBack(_ index: ReplicaIndex, with other: ReplicaIndex) throws(SimulationFailure) {
        guard isFaulty, let copy = replicas[index].copy, mayBeLost(index), isRefused(copy, of: index) else { return }
        try crash(index, restartAfter: nil)
        trace("\(index) goes back to life \(copy.life.bootCount)")
        replace(index, by: copy)
        if let third = indices.first(where: { $0 != index && $0 != other }) { rotate(without: third) }
    }

    /// Puts other pools in, and what was there in their place.
    private func replace(_ index: ReplicaIndex, by copy: CopiedPools) {
        let replica = replicas + index
        swap(&replica.pointee.storage, &copy.storage)
        swap(&replica.pointee.executor, &copy.executor)
        lose(index)
        replica.pointee.startsLeft = Life.mostAncestors - 1
        forget(index)
        scheduleRestart(index)
    }

    /// The second process on a copy of the pools starts in place of the first, or the first again.
    func takeTurns(_ victim: ReplicaIndex) throws(SimulationFailure) {
        if let first = indices.first(where: { replicas[$0].aside != nil }), let aside = replicas[first].aside {
            try crash(first, restartAfter: nil)
            if replicas[first].isLost {
                trace("\(first) itself starts again")
                replace(first, by: aside)
                replicas[first].isLost = false
                replicas[first].startsLeft = .max
            } else if mayBeLost(first) {
                trace("\(first)'s clone starts again")
                replace(first, by: aside)
            } else {
                scheduleRestart(first)
            }
            replicas[first].aside = aside
            return
        }
        guard let (index, copy) = try copied(from: victim), isRefused(copy, of: index) else { return }
        try crash(index, restartAfter: nil)
        trace("a clone of \(index) starts from life \(copy.life.bootCount)")
        replace(index, by: copy)
        replicas[index].aside = copy
    }

    /// One of the two pools is of an earlier start than the other.
    func mixPools(_ victim: ReplicaIndex) throws(SimulationFailure) {
        guard let (index, copy) = try copied(from: victim) else { return }
        let replica = replicas + index
        try crash(index, restartAfter: nil)
        guard replica.pointee.storage.members.life.bootCount > copy.life.bootCount else {
            scheduleRestart(index)
            return
        }
        if random.chance(perMille: 500) {
            trace("\(index) has a log of life \(copy.life.bootCount)")
            swap(&replica.pointee.storage, &copy.storage)
        } else {
            trace("\(index) has a state of life \(copy.life.bootCount)")
            swap(&replica.pointee.executor, &copy.executor)
        }
        lose(index)
        scheduleRestart(index)
    }

    /// One bit of what was fenced last changes by itself.
    func flipVote(_ index: ReplicaIndex) throws(SimulationFailure) {
        guard replicas[index].isRunning && mayBeLost(index) else { return }
        try crash(index, restartAfter: nil)
        replicas[index].storage.flipBit(above: replicas[index].executed, random: &random)
        scheduleRestart(index)
        guard replicas[index].storage.isDamaged else { return }
        trace("a bit of \(index)'s log flips")
        lose(index)
        forget(index)
    }
}
