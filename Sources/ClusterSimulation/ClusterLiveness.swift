import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosSimulation
import MPaxosStorage

/// Once nothing goes wrong any more, but for what lasts, the replicas get on.
extension ClusterSimulator {
    func runLiveness() throws(SimulationFailure) {
        isFaulty = false
        for number in ends.keys.sorted() { try ends.removeValue(forKey: number)?() }
        ways.unblockAll()
        for host in hosts {
            host.eventsUntilCrash = .max
            for lane in host.lanes.indices {
                host.lanes[lane].slowness = 0
                release(host, lane)
            }
            host.clock.change(now: now, rate: 1000, jump: 0)
        }
        try awaitDrifts()
        // A majority, and what lasts: the others are down, cut off or stuck, a link is gone, one is slow.
        var members = hosts.filter { !$0.isRetired }
        let isFounded = members.allSatisfy { $0.life?.board.isFounded ?? false } && members.count == hosts.count
        let others = isFounded && random.chance(perMille: 500) ? random.index((hosts.count - 1) / 2 + 1) : 0
        members.shuffle(using: &random)
        let away = Array(members.prefix(others))
        members.removeFirst(others)
        let absence = Absence.allCases[random.index(4)]
        let isDown = absence == .down
        for host in away {
            switch absence {
            case .down:
                host.isAway = true
                try crash(host)
            case .cutOff: for member in members { cut(host, member) }
            case .stuckLog: host.lanes[host.engineLane].stuckUntil = .max / 2
            case .stuckState: host.lanes[host.executorLane].stuckUntil = .max / 2
            }
        }
        // Those that cannot execute are heard, and have no room for what is proposed: a leader that has them for a
        // majority, and hears one too few of the others, does not know that another could do more.
        let isLinkGone = random.chance(perMille: 200) && absence != .stuckState
        if isFounded, isLinkGone, members.count > 2 { cut(members[0], members[1]) }
        if random.chance(perMille: 300) { members[members.count - 1].lanes[0].slowness = 1 + random.below(1_000) }
        for host in members where !host.isUp { try start(host) }
        for host in away where !isDown && !host.isUp { try start(host) }
        trace("calm: \(away.map(\.index)) are \(absence)")
        try converge(members)
        for host in hosts {
            host.isAway = false
            host.lanes[0].slowness = 0
            for lane in host.lanes.indices { release(host, lane) }
            if !host.isUp { try start(host) }
        }
        ways.unblockAll()
        trace("all are back")
        try converge(hosts.filter { !$0.isRetired })
        try comeToRest()
    }

    /// Once no client asks for anything, no stage holds anything on to.
    private func comeToRest() throws(SimulationFailure) {
        for client in clients { client.isResting = true }
        let bound = 20 * plan.gatewayPatience + 20 * plan.suspect + 500 * plan.fence + 2_000_000
        var busy = hosts.filter { !$0.isRetired }
        // Each at some moment of its own: heartbeats go on.
        try run(until: now + bound) {
            busy.removeAll { $0.life?.stages.held.isEmpty ?? false && $0.life?.port.unanswered == 0 }
            return busy.isEmpty
        }
        for host in busy {
            let held = host.life?.stages.held.map { "\($0.count) \($0.what)" } ?? ["nothing, for it is down"]
            throw failure(
                "replica \(host.index) still holds \(held.joined(separator: ", ")), and answers \(host.life?.port.unanswered ?? 0) requests"
            )
        }
        for host in hosts { try check(refused(by: host)) }
    }

    /// How those are that are not there.
    private enum Absence: CaseIterable { case down, cutOff, stuckLog, stuckState }

    /// A lane that is stuck goes on.
    private func release(_ host: Host, _ lane: Int) {
        guard host.lanes[lane].stuckUntil > now else { return }
        host.lanes[lane].stuckUntil = 0
        if host.isUp { schedule(host, lane, at: now + 1) }
    }

    private func cut(_ one: Host, _ other: Host) {
        ways.block(from: one.index, to: other.index, true)
        ways.block(from: other.index, to: one.index, true)
        connections.cut(one.index, other.index)
    }

    /// `members` must execute something new, and answer every client, within a bound.
    func converge(_ members: [Host]) throws(SimulationFailure) {
        let mark = checker.highestDecided + 2
        let completed = clients.map(\.completed)
        let waits = plan.gatewayPatience + 2 * plan.patience
        let bound = 100 * plan.suspect + 12 * waits * UInt64(hosts.count) + 500 * plan.fence + 5_000_000
        let begin = now
        let isDone = { [self] in
            members.allSatisfy { $0.life?.stages.progress.executed ?? 0 >= mark }
                && zip(clients, completed).allSatisfy { $0.isResting || $0.completed > $1 + 1 }
        }
        try run(until: begin + bound, orWhen: isDone)
        report.boundUsed = max(report.boundUsed, 1000 * (now - begin) / bound)
        guard isDone() else {
            let answers = zip(clients, completed).map { $0.completed - $1 }
            throw failure(
                "replicas \(members.map(\.index)) do not get on: \(answers) answers, \(mark) to be executed; \(members.map(summary).joined(separator: "; "))"
            )
        }
        trace("converged after \(now - begin) of \(bound)")
    }

    func summary(of host: Host) -> String {
        guard let life = host.life else { return "\(host.index) is down" }
        let board = life.board
        return
            "\(host.index): \(board.role.name) in view \(board.view.load()), decided \(board.decided.load()), executed \(board.executed.load()), floor \(board.floor.load()), log \(board.acceptorPoolUsed.load()) of \(board.acceptorPoolSize.load()), leader \(board.knownLeader.map(String.init) ?? "-"), ready \(board.isReady), dropped \(board.batchesDropped.load()), lanes asleep \(host.lanes.map(\.isAsleep)); \(life.stages.engine.summary)"
    }

    /// The end: nothing is left over in memory, and all states are one.
    func finish() throws(SimulationFailure) {
        if !plan.isWild { try check(checker.unsessionedTwice()) }
        for host in hosts where !host.isRetired {
            host.stop()
            let stand: (executed: UInt64, digest: UInt64, position: UInt64)
            do throws(PoolError) {
                let state = try StatePool(in: host.state.open { _ in })
                _ = try state.verify()
                stand = (state.executed, state.heap.digest, state.position)
                let isWhole = state.executedCommands == 0
                host.state.discard { state.close() }
                guard isWhole else { continue }
            } catch {
                throw failure("the state of replica \(host.index) is not sound: \(error)")
            }
            try check(checker.stands(host.index, executed: stand.executed, stand.digest, at: stand.position))
        }
    }
}
