import MPaxosConsensus

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
    /// Only these faults happen, counted from 1 as they are drawn; nil: all. As the next, it is to make a failure
    /// shorter.
    package var faults: Set<Int>?
    /// There are no more clients than this.
    package var clientLimit: Int
    /// Whether replicas talk over links that take their time, in place of a network that loses and repeats; nil: by the
    /// seed.
    package var links: Bool?
    /// Whether replicas have keys, and some of them lie about whose theirs are; nil: by the seed.
    package var keys: Bool?

    package init(
        replicaCount: Int, plantedBugs: PlantedBugs = [], duration: Microseconds = 2_000_000,
        invariantInterval: Int = 1, trace: Bool = false, faults: Set<Int>? = nil, clientLimit: Int = .max,
        links: Bool? = nil, keys: Bool? = nil
    ) {
        self.replicaCount = replicaCount
        self.plantedBugs = plantedBugs
        self.duration = duration
        self.invariantInterval = invariantInterval
        self.trace = trace
        self.faults = faults
        self.clientLimit = clientLimit
        self.links = links
        self.keys = keys
    }
}

/// What happened in a run.
package struct SimulationReport: Sendable {
    package var seed: UInt64
    package var failure: SimulationFailure?
    package var time: Microseconds = 0
    package var steps = 0
    package var decided: UInt64 = 0
    /// Operations of clients that were answered.
    package var answered: UInt64 = 0
    package var faults = 0
    package var crashes = 0
    package var partitions = 0
    package var transfers = 0
    /// Replicas that waited for the founding of their cluster, and take part since.
    package var foundings = 0
    /// How often a replica did not take up with another.
    package var objections = 0
    /// Replicas that ended since they heard of a later life of theirs.
    package var expulsions = 0
    /// What was said in the name of another, and how much of it to a replica that had not founded its cluster.
    package var lies = 0
    package var earlyLies = 0
    /// Starts that a replica refused on account of its pools.
    package var refusedStarts = 0
    /// Replicas whose states had drifted, and that stopped for it.
    package var driftsFound = 0
    /// Runs in which one was ahead of all others, so that they could not find it.
    package var driftsAhead = 0
    package var elections: UInt64 = 0
    package var leaderships: UInt64 = 0
    package var caughtUp: UInt64 = 0
    package var retransmissions: UInt64 = 0
    /// Pieces of large payloads that were sent.
    package var pieces = 0
    /// Proposals that were refused for want of room.
    package var refusals = 0
    /// How much of its bound the slowest convergence took, in parts of a thousand.
    package var boundUsed: UInt64 = 0

    package init(seed: UInt64) { self.seed = seed }
}

/// A cluster in one thread: the very core of the node, on a simulated network, clock, storage and executor, with
/// clients, and faults drawn from a seed. A safety phase under faults, then a liveness phase: a random majority must
/// converge and decide, then all must, and must answer every client.
///
/// Its state is unchecked for exclusive access: one thread runs it, no step is entered from within itself, and the
/// checks would take a quarter of the time.
package final class Simulator {
    let options: SimulationOptions
    let seed: UInt64
    @exclusivity(unchecked) var random: SimulationRandom
    @exclusivity(unchecked) var plan: FaultPlan
    @exclusivity(unchecked) var network: Network
    /// Whether replicas talk over `links`.
    let hasLinks: Bool
    @exclusivity(unchecked) var links: Links
    let replicas: UnsafeMutablePointer<SimulatedReplica>
    let indices: Range<ReplicaIndex>
    @exclusivity(unchecked) var clients: Buffer<SimulatedClient>
    @exclusivity(unchecked) var store = CommandStore()
    /// Reused memory.
    @exclusivity(unchecked) var effects = EffectBuffer(capacity: 1024)
    @exclusivity(unchecked) var spare = Buffer<Int>()
    @exclusivity(unchecked) var replies = Buffer<Answer>()
    @exclusivity(unchecked) var checker: Checker
    @exclusivity(unchecked) var chronicle: Chronicle
    @exclusivity(unchecked) var history: History
    @exclusivity(unchecked) var queue = EventQueue()
    @exclusivity(unchecked) var now: Microseconds = 0
    @exclusivity(unchecked) var report: SimulationReport
    @exclusivity(unchecked) var isFaulty = true
    /// Crashes that wait for their moment.
    @exclusivity(unchecked) var traps = 0
    @exclusivity(unchecked) var silences = 0
    /// The majority that was cut off last, a bit each, and the number of that partition.
    var majority: UInt16 = 0
    var rotation: UInt64 = 0
    /// Whether the replicas are first started by and by: nobody has met anybody.
    let beginsUnfounded: Bool
    /// Whether each replica has a key: then who it is is not only what it says.
    let hasKeys: Bool
    @exclusivity(unchecked) var liars: Liars
    /// Whether a new cluster elects at once, as the node does.
    var standsFirst = false
    let sessionCount: Int
    /// How long a client waits for an answer, and between operations, on average.
    let patience: Microseconds
    let thinkTime: Microseconds
    let proposalInterval: Microseconds
    let bytesPerCommand: UInt32
    /// Length of the next batches where there are links; nil: by chance.
    var batchLength: UInt32?

    package init(seed: UInt64, options: SimulationOptions) {
        self.seed = seed
        self.options = options
        random = SimulationRandom(seed: seed)
        let suspect = random.chance(perMille: 300) ? 5_000 + random.below(25_000) : 30_000 + random.below(120_000)
        plan = FaultPlan(random: &random, suspect: suspect)
        network = Network(count: options.replicaCount, plan: plan)
        let isLinked = random.chance(perMille: 400)
        hasLinks = options.replicaCount > 1 && options.links ?? isLinked
        links = Links(
            count: options.replicaCount,
            plan: hasLinks ? LinkPlan(random: &random, count: options.replicaCount, suspect: suspect) : LinkPlan())
        checker = Checker(count: options.replicaCount)
        chronicle = Chronicle(count: options.replicaCount)
        liars = Liars(seed: seed)
        let hasKeysBySeed = liars.random.chance(perMille: 500)
        hasKeys = options.keys ?? hasKeysBySeed
        if !hasKeys || options.replicaCount < 3 { liars.nextAt = .max }
        sessionCount = 2 + random.index(6)
        history = History(replicaCount: options.replicaCount, sessionCount: sessionCount)
        report = SimulationReport(seed: seed)
        clients = Buffer(repeating: SimulatedClient(), count: min(1 + random.index(5), options.clientLimit))
        patience = 10_000 + random.below(2 * suspect)
        thinkTime = 1 + random.below(20_000)
        // Wide windows and large batches meet the limits of what a step sends at once.
        let isWide = random.chance(perMille: 60)
        proposalInterval = isWide ? 50 + random.below(400) : 200 + random.below(8_000)
        bytesPerCommand = random.chance(perMille: 300) ? 1 + UInt32(random.below(400_000)) : 8
        let window = isWide ? 16 + random.index(48) : 1 + random.index(8)
        let slotCount = 8 * window + random.index(64)
        let saysFull = random.chance(perMille: 500)
        let isNew = random.chance(perMille: 100)
        beginsUnfounded = options.replicaCount > 1 && isNew
        if isNew { plan.losesPoolsOften(random: &random) }
        indices = 0..<options.replicaCount
        let comparesAnyway = random.chance(perMille: 100)
        let digestInterval =
            comparesAnyway || plan.weights[FaultPlan.Kind.drift.rawValue] > 0 ? 4 + random.below(60) : nil
        replicas = .allocate(capacity: options.replicaCount)
        var incarnations: [UInt64] = []
        for _ in indices { incarnations.append(random.next() | 1) }
        for index in indices {
            let configuration = Configuration(
                replica: index, replicaCount: options.replicaCount, window: window, slotCount: slotCount,
                heartbeat: suspect / 5, suspect: suspect, retransmit: suspect / 5, seed: random.next(),
                plantedBugs: options.plantedBugs)
            let kept = UInt64(window + random.index(slotCount - 6 * window))
            (replicas + index).initialize(
                to: SimulatedReplica(
                    configuration: configuration, kept: kept, sessionCount: sessionCount,
                    members: beginsUnfounded
                        ? MemberRecords(index: index, of: options.replicaCount, incarnation: incarnations[index])
                        : MemberRecords(index: index, founders: incarnations)))
            chronicle.isFormatted(index, incarnation: incarnations[index])
            replicas[index].saysFull = hasLinks || saysFull
            replicas[index].digestInterval = digestInterval
        }
    }

    deinit {
        replicas.deinitialize(count: indices.count)
        replicas.deallocate()
    }

    var replicaCount: Int { indices.count }

    /// Runs both phases. A failure is in the report.
    package func run() -> SimulationReport {
        do {
            if hasLinks { trace("suspect \(replicas[0].configuration.suspect), \(links.plan)") }
            standsFirst = random.chance(perMille: 500)
            for index in indices {
                if beginsUnfounded { startLate(index) } else { try start(index) }
            }
            queue.schedule(Event(kind: .proposal), at: proposalInterval)
            if plan.interval > 0 { queue.schedule(Event(kind: .fault), at: random.below(plan.interval) + 1) }
            startClients()
            try runUntil(options.duration)
            try runLiveness()
            for index in indices {
                if replicas[index].isUp { try check(checker.compareMarks(index, replicas[index].core)) }
            }
        } catch {
            report.failure = error
        }
        report.time = now
        report.decided = checker.highestDecided
        report.answered = history.acknowledged
        for index in indices { replicas[index].count(into: &report) }
        return report
    }

    func runUntil(_ end: Microseconds, orWhen isDone: () -> Bool = { false }) throws(SimulationFailure) {
        while !isDone() {
            guard let due = queue.nextTime, due <= end, let (time, event) = queue.next() else { break }
            now = max(now, time)
            if now >= liars.nextAt { try lie() }
            try handle(event)
        }
    }

    // MARK: Saying what happened

    func trace(_ text: @autoclosure () -> String) {
        if options.trace { print("\(now) \(text())") }
    }

    func failure(_ what: String) -> SimulationFailure { SimulationFailure(seed: seed, time: now, what: what) }

    func check(_ violation: String?) throws(SimulationFailure) {
        if let violation { throw failure(violation) }
    }
}
