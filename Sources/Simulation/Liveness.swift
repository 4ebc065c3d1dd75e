import MPaxosConsensus

/// What stays when the faults end: it makes all slower, and must not keep the replicas from going on.
enum LastingFault {
    case none
    /// Each flush of one, some or all replicas takes half of `suspect` to twice as long.
    case slowStorage
    /// Messages take one to four heartbeats.
    case delays
    /// More is offered than the links carry, for a while.
    case load
}

/// The second phase: what replicas must get done once the faults have ended.
extension Simulator {
    var suspect: Microseconds { replicas[0].configuration.suspect }

    func runLiveness() throws(SimulationFailure) {
        isFaulty = false
        traps = 0
        silences = 0
        network.healAll()
        let lasting = drawLastingFault()
        var calm = FaultPlan()
        calm.jitter = 200
        if lasting == .delays { calm.delay = replicas[0].configuration.heartbeat * (1 + random.below(4)) }
        network.plan = calm
        plan = calm
        batchLength = 8
        if lasting == .slowStorage { slowStorage() }
        if hasLinks { calmLinks(delay: lasting == .delays ? calm.delay : nil) }
        // A majority, of which nobody else is needed.
        var order = indices.filter { !replicas[$0].isLost }
        order.shuffle(using: &random)
        let quorum = replicaCount / 2 + 1
        let size = quorum + random.index(order.count - quorum + 1)
        try found(order)
        try settleStates(of: order)
        if !order[0..<size].contains(where: isFounded), let one = order.firstIndex(where: isFounded) {
            order.swapAt(0, one)
        }
        let chosen = Array(order[0..<size])
        for index in order[size...] {
            try crash(index, restartAfter: nil)
            replicas[index].stayDown()
        }
        trace("calm; \(chosen.sorted()) go on; \(lasting)")
        // Elections that fail wait longer each time, and what is decided is in need of several flushes, or ways.
        let factor: UInt64 = lasting == .slowStorage || lasting == .delays ? 8 : 1
        try converge(chosen, factor: factor)
        try converge(order, factor: factor, answering: true)
        if lasting == .load { try loadLinks(of: order) }
        if lasting != .slowStorage && order.count > quorum && random.chance(perMille: 300) {
            try stickLeader(of: order, factor: factor)
        }
    }

    private func isFounded(_ index: ReplicaIndex) -> Bool { replicas[index].storage.members.isFounded }

    /// Nobody serves before all have met: where that has not come about yet, all come now.
    private func found(_ members: [ReplicaIndex]) throws(SimulationFailure) {
        guard !members.contains(where: isFounded) else { return }
        for _ in 0..<2 {
            try wake(members)
            trace("all come to found the cluster")
            try runUntil(now + 40 * suspect, orWhen: { [self] in members.allSatisfy(isFounded) })
            if members.allSatisfy(isFounded) { return }
            // Somebody had met all the others when one of them lost its pools: who looks after them formats all anew.
            guard members.contains(where: { one in members.contains { knowsOtherPools(one, of: $0) } }) else { break }
            trace("they do not agree, and are formatted anew")
            for index in members {
                try crash(index, restartAfter: nil)
                format(index)
            }
        }
        let states = members.map { "\($0): \(replicas[$0].summary)" }.joined(separator: "; ")
        throw failure("replicas \(members) did not found a cluster: \(states)")
    }

    /// Whether the record of a replica is whole, and names pools of another that are gone.
    private func knowsOtherPools(_ index: ReplicaIndex, of other: ReplicaIndex) -> Bool {
        let members = replicas[index].storage.members
        return members.founding >= .whole
            && members.records[other].incarnation != replicas[other].acquaintances.own.incarnation
    }

    private func drawLastingFault() -> LastingFault {
        switch random.below(10) {
        case 0, 1: .slowStorage
        case 2, 3: .delays
        case 4, 5, 6: hasLinks ? .load : .none
        default: .none
        }
    }

    private func slowStorage() {
        var order = Array(indices)
        order.shuffle(using: &random)
        let count = random.chance(perMille: 500) ? replicaCount : 1 + random.index(replicaCount)
        for index in order[0..<count] { replicas[index].lastingFlush = suspect / 2 }
    }

    private func calmLinks(delay: Microseconds?) {
        for place in 0..<replicaCount * replicaCount { links.ways[place].slowUntil = 0 }
        if let delay { links.setDelay(delay) }
        healLinks()
    }

    /// The leader takes records and makes none durable: the others must do without it, and have it back when its
    /// storage goes on.
    private func stickLeader(of members: [ReplicaIndex], factor: UInt64) throws(SimulationFailure) {
        guard let leader = members.first(where: { replicas[$0].isUp && replicas[$0].core.role == .leader }) else {
            return
        }
        trace("\(leader) has stuck storage")
        replicas[leader].isStuck = true
        try converge(members.filter { $0 != leader }, factor: factor)
        try converge(members, factor: factor)
    }

    /// Clients want ten times what the links carry. The leader stays all the same: its heartbeats pass what waits. Then
    /// all gets through.
    private func loadLinks(of members: [ReplicaIndex]) throws(SimulationFailure) {
        try runUntil(now + 10 * suspect)
        let before = members.map { replicas[$0].core.view }
        let bytes = links.plan.lowestRate * proposalInterval / 100_000
        batchLength = UInt32(min(max(bytes, 64), UInt64(links.plan.largestBatch) + 64))
        trace("batches of \(batchLength ?? 0) bytes")
        try runUntil(now + 20 * suspect)
        batchLength = 8
        for (member, view) in zip(members, before) where replicas[member].core.view > view {
            throw failure("replica \(member) lost its leader, whose links are only busy: \(replicas[member].summary)")
        }
        try converge(members)
    }

    /// All of `members` must decide new values within a bound.
    private func converge(
        _ members: [ReplicaIndex], factor: UInt64 = 1, answering: Bool = false
    ) throws(SimulationFailure) {
        try wake(members)
        let window = UInt64(replicas[members[0]].configuration.window)
        let firstNew = store.nextBatch
        let mark = checker.highestDecided + 2 * window + 8
        let completed = clients.elements.map(\.completed)
        let bound = factor * 80 * suspect + (answering ? factor * 40 * patience : 0) + transferTime(to: members)
        let begin = now
        let isDone = { [self] in
            members.allSatisfy { replicas[$0].executed >= mark }
                && checker.hasDecided(from: mark, batch: firstNew)
                && (!answering || zip(clients.elements, completed).allSatisfy { $0.completed > $1 })
        }
        try runUntil(begin + bound, orWhen: isDone)
        report.boundUsed = max(report.boundUsed, 1000 * (now - begin) / bound)
        guard isDone() else {
            let states = members.map { "\($0): \(replicas[$0].summary)" }.joined(separator: "; ")
            let answers = zip(clients.elements, completed).map { $0.completed - $1 }
            throw failure(
                "replicas \(members) did not reach \(mark) within the bound, with \(answers) answers: \(states)"
                    + (hasLinks ? "; links \(linkSummary)" : ""))
        }
        trace("converged after \(now - begin) of \(bound)")
    }

    /// All of `members` run, without faults, and try to have links.
    func wake(_ members: [ReplicaIndex]) throws(SimulationFailure) {
        for index in members {
            calm(index)
            if !replicas[index].isRunning { try start(index) }
        }
        for a in members {
            for b in members where a != b { scheduleLink(a, b, at: now + 100) }
        }
    }

    private var linkSummary: String {
        var texts: [String] = []
        for a in indices {
            for b in indices where a != b && links.ways[links.place(a, b)].isEstablished {
                let box = links.outboxes + links.place(a, b)
                texts.append(
                    "\(a)-\(b): \(box.pointee.window.underWay) of \(box.pointee.window.size) under way, "
                        + "\(box.pointee.proposals.messages.count) and \(box.pointee.answers.messages.count) wait, "
                        + "\(links.ways[links.place(a, b)].frames.count) frames, deadline \(box.pointee.window.nextDeadline) at \(windowTime(a))"
                )
            }
        }
        return texts.joined(separator: "; ")
    }

    /// What the links take for all that some of them may lack: they may get it twice, from old leaders and from new
    /// ones.
    func transferTime(to members: [ReplicaIndex]) -> Microseconds {
        guard hasLinks else { return 0 }
        var (first, last) = (Instance.max, 0 as Instance)
        for index in members {
            first = min(first, replicas[index].executed + 1)
            if replicas[index].isUp { last = max(last, replicas[index].core.highest) }
        }
        var bytes: UInt64 = 0
        var instance = first
        while instance <= last {
            var longest: UInt32 = 0
            for index in members where replicas[index].isUp {
                longest = max(longest, replicas[index].core.entry(at: instance)?.batch.length ?? 0)
            }
            bytes += UInt64(longest)
            instance += 1
        }
        let copies = links.plan.isShared ? UInt64(replicaCount - 1) : 1
        return 2 * copies * bytes * 1_000_000 / links.plan.lowestRate
    }
}
