import Consensus

/// What a run is made of, besides its seed.
package struct SimulationOptions: Sendable {
    package var replicaCount: Int
    package var plantedBugs: PlantedBugs
    /// Length of the phase with faults.
    package var duration: Microseconds
    /// Every so many steps the whole core is checked; 0: never.
    package var invariantInterval: Int
    /// Whether each step is printed.
    package var trace: Bool

    package init(
        replicaCount: Int, plantedBugs: PlantedBugs = [], duration: Microseconds = 2_000_000,
        invariantInterval: Int = 1, trace: Bool = false
    ) {
        self.replicaCount = replicaCount
        self.plantedBugs = plantedBugs
        self.duration = duration
        self.invariantInterval = invariantInterval
        self.trace = trace
    }
}

/// What happened in a run.
package struct SimulationReport: Sendable {
    package var seed: UInt64
    package var failure: SimulationFailure?
    package var time: Microseconds = 0
    package var steps = 0
    package var decided: UInt64 = 0
    package var crashes = 0
    package var partitions = 0
    package var transfers = 0
    package var elections: UInt64 = 0
    package var leaderships: UInt64 = 0
    package var caughtUp: UInt64 = 0
    package var retransmissions: UInt64 = 0

    package init(seed: UInt64) { self.seed = seed }
}

/// A cluster in one thread: the very core of the node, on a simulated network, clock and storage, with faults drawn from a seed.
/// A safety phase under faults, then a liveness phase: a random majority must converge and decide, then all must.
package final class Simulator {
    let options: SimulationOptions
    let seed: UInt64
    var random: SimulationRandom
    var plan: FaultPlan
    var network: Network
    var replicas: [SimulatedReplica] = []
    var checker: Checker
    var queue = EventQueue()
    var now: Microseconds = 0
    var report: SimulationReport
    var isFaulty = true
    private let proposalInterval: Microseconds
    private var nextValue: UInt64 = 1

    package init(seed: UInt64, options: SimulationOptions) {
        self.seed = seed
        self.options = options
        random = SimulationRandom(seed: seed)
        plan = FaultPlan(random: &random)
        network = Network(count: options.replicaCount, plan: plan)
        checker = Checker(count: options.replicaCount)
        report = SimulationReport(seed: seed)
        proposalInterval = 200 + random.below(8_000)
        let window = 1 + random.index(8)
        let suspect = 30_000 + random.below(120_000)
        let slotCount = 8 * window + random.index(64)
        for index in 0..<options.replicaCount {
            let configuration = Configuration(
                replica: index, replicaCount: options.replicaCount, window: window, slotCount: slotCount,
                heartbeat: suspect / 5, suspect: suspect, retransmit: suspect / 5, seed: random.next(),
                plantedBugs: options.plantedBugs)
            let kept = UInt64(window + random.index(slotCount - 6 * window))
            replicas.append(SimulatedReplica(configuration: configuration, kept: kept))
        }
    }

    /// Runs both phases. A failure is in the report.
    package func run() -> SimulationReport {
        do {
            for index in replicas.indices { try start(index) }
            queue.schedule(Event(kind: .proposal), at: proposalInterval)
            if plan.interval > 0 { queue.schedule(Event(kind: .fault), at: random.below(plan.interval) + 1) }
            try runUntil(options.duration)
            try runLiveness()
            for index in replicas.indices {
                if replicas[index].isUp { try check(checker.compareMarks(index, replicas[index].core)) }
            }
        } catch {
            report.failure = error
        }
        report.time = now
        report.decided = checker.highestDecided
        for replica in replicas { replica.count(into: &report) }
        return report
    }

    // MARK: The two phases

    private func runUntil(_ end: Microseconds, orWhen isDone: () -> Bool = { false }) throws(SimulationFailure) {
        while !isDone() {
            guard let due = queue.nextTime, due <= end, let (time, event) = queue.next() else { break }
            now = max(now, time)
            try handle(event)
        }
    }

    private func runLiveness() throws(SimulationFailure) {
        isFaulty = false
        network.healAll()
        var calm = FaultPlan()
        calm.jitter = 200
        network.plan = calm
        plan = calm
        // A majority, of which nobody else is needed.
        var order = Array(replicas.indices)
        order.shuffle(using: &random)
        let quorum = replicas.count / 2 + 1
        let size = quorum + random.index(replicas.count - quorum + 1)
        let chosen = Array(order[0..<size])
        for index in order[size...] where replicas[index].isUp { try crash(index, restartAfter: nil) }
        trace("calm; \(chosen.sorted()) go on")
        try converge(chosen)
        try converge(order)
    }

    /// All of `members` must decide new values within a bound.
    private func converge(_ members: [ReplicaIndex]) throws(SimulationFailure) {
        for index in members {
            replicas[index].calm(now: now)
            if !replicas[index].isUp { try start(index) }
        }
        for a in members {
            for b in members where a != b {
                queue.schedule(Event(kind: .linkUp, replica: a, life: replicas[a].life, peer: b), at: now + 100)
            }
        }
        let window = UInt64(replicas[members[0]].configuration.window)
        let firstNew = nextValue
        let mark = checker.highestDecided + 2 * window + 8
        let bound = now + 80 * replicas[members[0]].configuration.suspect
        let isDone = { [self] in
            members.allSatisfy { replicas[$0].executed >= mark }
                && checker.decided[Int(mark - 1)...].contains { $0.offset >= firstNew }
        }
        try runUntil(bound, orWhen: isDone)
        guard isDone() else {
            let states = members.map { "\($0): \(replicas[$0].summary)" }.joined(separator: "; ")
            throw failure("replicas \(members) did not reach \(mark) within the bound: \(states)")
        }
        trace("converged")
    }

    // MARK: Events

    private func handle(_ event: Event) throws(SimulationFailure) {
        switch event.kind {
        case .proposal:
            try proposeSomewhere()
            return
        case .fault:
            try injectFault()
            return
        case .heal:
            network.heal(event.number)
            reportLinks()
            return
        case .restart:
            let replica = replicas[event.replica]
            if replica.life == event.life && !replica.isUp { try start(event.replica) }
            return
        default: break
        }
        let replica = replicas[event.replica]
        if event.kind == .message {
            // The network does not care for lives.
            guard replica.isUp else { return }
        } else {
            guard replica.isUp && replica.life == event.life else { return }
        }
        if replica.pausedUntil > now {
            queue.schedule(event, at: replica.pausedUntil)
            return
        }
        switch event.kind {
        case .message:
            trace("\(event.peer) -> \(event.replica) \(event.message)")
            let isWanted = replica.core.wants(event.message, from: event.peer)
            let isKept = replica.core.receive(event.message, from: event.peer, now: now, into: &replica.effects)
            let bug = options.plantedBugs.contains(.decidedWithoutView)
            if isKept && !isWanted && !bug { throw failure("replica \(event.replica) kept what it did not want") }
            if isKept && !event.message.carriesBatch { throw failure("kept the batch of \(event.message)") }
        case .tick:
            guard replica.tickAt == event.number else { return }
            replica.tickAt = .max
            replica.core.tick(now: now, into: &replica.effects)
        case .flush:
            guard event.number > replica.storage.durable else { return }
            replica.storage.fence(through: event.number)
            replica.core.durable(event.number, now: now, into: &replica.effects)
            let ready = replica.takeReady(through: event.number)
            for send in ready { try dispatch(send, from: event.replica) }
        case .linkUp:
            replica.core.connected(event.peer, now: now, into: &replica.effects)
        case .transferCheck:
            try checkTransfer(event.replica)
            return
        default: break
        }
        try afterStep(event.replica)
    }

    private func proposeSomewhere() throws(SimulationFailure) {
        queue.schedule(Event(kind: .proposal), at: now + 1 + random.below(2 * proposalInterval))
        let first = random.index(replicas.count)
        for offset in replicas.indices {
            let index = (first + offset) % replicas.count
            let replica = replicas[index]
            guard replica.isUp && replica.pausedUntil <= now && replica.core.canPropose else { continue }
            let batch = Batch(offset: nextValue, length: 8, checksum: UInt32(truncatingIfNeeded: nextValue))
            nextValue += 1
            guard let instance = replica.core.propose(batch, now: now, into: &replica.effects) else {
                throw failure("replica \(index) refused what it could propose")
            }
            trace("\(index) proposes \(batch.offset) for \(instance)")
            try afterStep(index)
            // Mostly one leader; sometimes two believe to be.
            if random.chance(perMille: 500) { return }
        }
    }

    /// Takes over the effects of a step, lets the replica execute, and checks.
    func afterStep(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        report.steps += 1
        for _ in 0..<2 {
            var crashChance = replica.effects.recordCount > 0 ? plan.crashAtWrite : 0
            for record in replica.effects.records {
                replica.storage.write(record)
                if record.kind != .accept { crashChance = 10 * plan.crashAtWrite }
            }
            if crashChance > 0 && random.chance(perMille: crashChance) {
                replica.effects.removeAll()
                try crash(index, restartAfter: downTime())
                return
            }
            if let last = replica.effects.records.last {
                let delay = replica.flushDelay(plan, now: now, random: &random)
                replica.flushAt = max(replica.flushAt, now + delay)
                queue.schedule(
                    Event(kind: .flush, replica: index, life: replica.life, number: last.number), at: replica.flushAt)
            }
            var immediate = replica.spareSends
            immediate.removeAll(keepingCapacity: true)
            for send in replica.effects.sends {
                if send.after > replica.storage.durable { replica.waiting.append(send) } else { immediate.append(send) }
            }
            replica.effects.removeAll()
            for send in immediate { try dispatch(send, from: index) }
            replica.spareSends = immediate
            try check(checker.compare(index, replica.core, replica.storage))
            // Executing and trimming may be lazy, and may have effects of its own.
            replica.execute(random: &random, now: now)
            if replica.effects.isEmpty { break }
        }
        if options.invariantInterval > 0 && report.steps % options.invariantInterval == 0 {
            if let violation = replica.core.violatedInvariant() {
                throw failure("replica \(index) violates: \(violation)")
            }
        }
        let deadline = max(replica.core.nextDeadline, now + 1)
        if deadline < replica.tickAt {
            replica.tickAt = deadline
            queue.schedule(Event(kind: .tick, replica: index, life: replica.life, number: deadline), at: deadline)
        }
    }

    private func dispatch(_ send: Send, from: ReplicaIndex) throws(SimulationFailure) {
        try check(checker.sent(send.message, by: from))
        let (first, second) = network.deliveries(from: from, to: send.to, random: &random)
        for delay in [first, second] {
            guard let delay else { continue }
            queue.schedule(
                Event(kind: .message, replica: send.to, peer: from, message: send.message), at: now + delay)
        }
    }

    // MARK: Lives

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
    }

    func crash(_ index: ReplicaIndex, restartAfter delay: Microseconds?) throws(SimulationFailure) {
        let replica = replicas[index]
        guard replica.isUp else { return }
        report.crashes += 1
        // What is known by then survives only in messages, and in this memory.
        for replica in replicas.indices where replicas[replica].isUp {
            try check(checker.compareMarks(replica, replicas[replica].core))
        }
        trace("\(index) crashes")
        replica.crash(random: &random)
        try check(checker.recovered(index, replica.storage, slotCount: replica.configuration.slotCount))
        if let delay {
            queue.schedule(Event(kind: .restart, replica: index, life: replica.life), at: now + delay)
        }
    }

    /// What the engine does when the core cannot go on: it takes the state of a replica that is further.
    private func checkTransfer(_ index: ReplicaIndex) throws(SimulationFailure) {
        let replica = replicas[index]
        queue.schedule(Event(kind: .transferCheck, replica: index, life: replica.life), at: now + 30_000)
        guard replica.core.needsStateTransfer else { return }
        let givers = replicas.indices.filter {
            $0 != index && replicas[$0].isUp && network.isOpen(from: $0, to: index)
                && network.isOpen(from: index, to: $0) && replicas[$0].executed > replica.executed
        }
        guard let giver = givers.randomElement(using: &random) else { return }
        report.transfers += 1
        trace("\(index) takes the state of \(giver), executed \(replicas[giver].executed)")
        let view = replicas[giver].core.view
        try crash(index, restartAfter: nil)
        replica.storage.install(executed: replicas[giver].executed, promised: view)
        checker.installed(index, executed: replicas[giver].executed)
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

    // MARK: Saying what happened

    func trace(_ text: @autoclosure () -> String) {
        if options.trace { print("\(now) \(text())") }
    }

    func failure(_ what: String) -> SimulationFailure { SimulationFailure(seed: seed, time: now, what: what) }

    private func check(_ violation: String?) throws(SimulationFailure) {
        if let violation { throw failure(violation) }
    }
}
