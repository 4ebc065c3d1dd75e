import MPaxosConsensus

/// A client: one operation at a time, repeated until it is answered, in a session of its own.
struct SimulatedClient: BitwiseCopyable {
    /// What it does now; every attempt carries it.
    struct Current: BitwiseCopyable {
        var command: Command
        var isLocal: Bool
        /// The highest position that this client had seen when it began.
        var seen: UInt64
        var attempts = 0
    }

    var session: UInt64 = 0
    var sequence: UInt64 = 0
    var current: Current?
    /// The replica that it asks; it stays with one that answers.
    var replica: ReplicaIndex = 0
    var seen: UInt64 = 0
    /// Counts what it set out to do, so that older timers are void.
    var turn: UInt64 = 0
    var completed = 0
}

/// What clients do, and what replicas do for them.
extension Simulator {
    func startClients() {
        for index in 0..<clients.count {
            clients[index].replica = random.index(replicaCount)
            schedule(client: index, after: random.below(50_000))
        }
    }

    private func schedule(client index: Int, after delay: Microseconds) {
        clients[index].turn += 1
        queue.schedule(
            Event(kind: .client, replica: index, number: clients[index].turn), at: now + 1 + delay)
    }

    func clientTurn(_ index: Int, _ turn: UInt64) {
        guard clients[index].turn == turn else { return }
        if clients[index].current == nil { clients[index].current = begin(index) }
        guard var current = clients[index].current else { return }
        current.attempts += 1
        if current.attempts > 1 { clients[index].replica = random.index(replicaCount) }
        clients[index].current = current
        var command = current.command
        command.origin = clients[index].replica
        let number = store.add(command)
        carry(Event(kind: .command, replica: command.origin, peer: -1, number: UInt64(number)))
        schedule(client: index, after: patience / 2 + random.below(patience))
    }

    private func begin(_ index: Int) -> SimulatedClient.Current {
        let client = clients[index]
        let choice = random.below(100)
        var command = Command(kind: .submit, client: Int32(index), operation: 0)
        command.register = random.index(ReplicatedState.registerCount)
        command.size = UInt32(random.below(random.chance(perMille: 100) ? 120 : 20))
        var isLocal = false
        switch choice {
        case 0..<30:
            command.kind = .query
            isLocal = choice < 10
        case 30..<34: break
        case 34..<36 where client.session != 0:
            command.kind = .close
            command.session = client.session
            clients[index].session = 0
        default:
            if client.session == 0 {
                command.kind = .open
            } else {
                command.session = client.session
                clients[index].sequence += 1
                command.sequence = clients[index].sequence
            }
        }
        command.operation = history.begin(isQuery: command.kind == .query, isExactlyOnce: command.sequence != 0)
        command.value = UInt64(command.operation) + 1
        return SimulatedClient.Current(command: command, isLocal: isLocal, seen: client.seen)
    }

    /// Between clients and replicas, and for what replicas forward: delay, loss, duplication.
    private func carry(_ event: Event) {
        if plan.loss > 0 && random.chance(perMille: plan.loss) { return }
        queue.schedule(event, at: now + network.delay(random: &random))
        if plan.duplication > 0 && random.chance(perMille: plan.duplication / 2) {
            queue.schedule(event, at: now + network.delay(random: &random))
        }
    }

    /// A command arrives at a replica.
    func takeCommand(_ number: Int, at index: ReplicaIndex, from peer: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        // While nobody knows whose state is right nobody is served.
        guard replica.pointee.comparison?.disputed ?? 0 == 0 else { return }
        let command = store[number]
        if command.kind == .query && peer < 0 {
            let isStale = options.plantedBugs.contains(.staleRead) && replica.pointee.core.role == .leader
            let state = isStale ? replica.pointee.executor.working : replica.pointee.executor.committed
            if let client = clients[Int(command.client)].current, client.command.operation == command.operation,
                client.isLocal || isStale
            {
                guard isStale || state.position >= client.seen else { return }
                let value = state.registers[command.register]
                try reply(index, number, Reply(status: .ok, position: state.position, value: value))
                return
            }
        }
        guard replica.pointee.inbox.count < 32 else { return }
        replica.pointee.inbox.append(number)
        try proposeOrForward(index)
    }

    /// A leader proposes what waits, all that is there at once; others hand it on to the leader they know.
    func proposeOrForward(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas + index
        guard replica.pointee.isUp && !replica.pointee.inbox.isEmpty else { return }
        if replica.pointee.core.role == .leader {
            while !replica.pointee.inbox.isEmpty && replica.pointee.isUp && replica.pointee.core.canPropose {
                let count = min(replica.pointee.inbox.count, 1 + random.index(4))
                let batch = store.makeBatch(of: replica.pointee.inbox, count: count)
                replica.pointee.inbox.removeFirst(count)
                try propose(batch, at: index)
            }
        } else if let leader = replica.pointee.core.leader, leader != index {
            for number in replica.pointee.inbox.elements {
                guard network.isOpen(from: index, to: leader) else { break }
                carry(Event(kind: .command, replica: leader, peer: index, number: UInt64(number)))
            }
            replica.pointee.inbox.removeAll()
        }
    }

    /// A reply leaves a replica.
    func reply(_ index: ReplicaIndex, _ number: Int, _ reply: Reply) throws(SimulationFailure) {
        let command = store[number]
        if !replicas[index].executor.working.isDrifted { try check(history.replied(index, command, reply)) }
        replies.append(Answer(command: number, reply: reply))
        carry(Event(kind: .reply, number: UInt64(replies.count - 1)))
    }

    func takeReply(_ place: Int) throws(SimulationFailure) {
        let reply = replies[place].reply
        let command = store[replies[place].command]
        let index = Int(command.client)
        guard let current = clients[index].current, current.command.operation == command.operation else { return }
        let isLocal = current.isLocal && command.kind == .query
        switch reply.status {
        case .ok, .full:
            try check(
                history.acknowledge(command.operation, reply, isLocal: isLocal, seen: current.seen))
            clients[index].seen = max(clients[index].seen, reply.position)
            if command.kind == .open {
                clients[index].session = reply.session
                clients[index].sequence = 0
            }
        case .expired:
            if command.kind == .submit { clients[index].session = 0 }
        case .stale:
            throw failure("client \(index) is told that its only command, \(command.sequence), is stale")
        }
        trace("client \(index): operation \(command.operation) \(reply)")
        clients[index].completed += 1
        clients[index].current = nil
        schedule(client: index, after: random.below(thinkTime))
    }

    /// A client dies, whatever it waited for, and comes back knowing nothing.
    func killClient() {
        let index = random.index(clients.count)
        trace("client \(index) dies")
        let completed = clients[index].completed
        let turn = clients[index].turn
        clients[index] = SimulatedClient()
        clients[index].completed = completed
        clients[index].turn = turn
        schedule(client: index, after: random.below(300_000))
    }
}
