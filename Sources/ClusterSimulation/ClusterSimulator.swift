import Logging
import MPaxosConsensus
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosSimulation
import MPaxosStorage
import MPaxosWire

/// What a run of whole replicas is made of, besides its seed.
package struct ClusterOptions: Sendable {
    package var replicaCount: Int
    /// Length of the phase with faults.
    package var duration: Microseconds
    package var trace: Bool
    /// Only these faults happen, counted from 1 as they are drawn; nil: all.
    package var faults: Set<Int>?
    package var plant: ClusterPlant?

    package init(
        replicaCount: Int, duration: Microseconds = 2_000_000, trace: Bool = false, faults: Set<Int>? = nil,
        plant: ClusterPlant? = nil
    ) {
        self.replicaCount = replicaCount
        self.duration = duration
        self.trace = trace
        self.faults = faults
        self.plant = plant
    }
}

package struct ClusterReport: Sendable {
    package var seed: UInt64
    package var failure: SimulationFailure?
    package var time: Microseconds = 0
    package var turns = 0
    package var frames = 0
    package var decided: UInt64 = 0
    package var answered: UInt64 = 0
    package var faults = 0
    package var crashes = 0
    package var snapshots = 0
    /// Frames that arrived and that no replica had sent, or not like this.
    package var forged = 0
    /// Replicas that stopped because their states had drifted.
    package var driftsFound = 0
    package var elections: UInt64 = 0
    /// Batches that a log had no room for.
    package var dropped: UInt64 = 0
    /// How much of its bound the slowest convergence took, in parts of a thousand.
    package var boundUsed: UInt64 = 0
}

/// A cluster of whole replicas in one thread: the very stages of the node, on pools in memory that a crash takes as it
/// finds them, with frames as bytes over a network, clocks that differ, and clients that speak the client protocol.
/// What goes wrong is drawn from the seed. A phase with faults, then one without, but for those that last: the replicas
/// must get on, and answer every client.
package final class ClusterSimulator {
    let options: ClusterOptions
    let seed: UInt64
    var random: SimulationRandom
    let plan: ClusterPlan
    var agenda = Agenda()
    var ways: Ways
    private(set) lazy var connections = makeConnections()
    let charter: Charter
    var hosts: [Host] = []
    var clients: [ClusterClient] = []
    var checker: ClusterChecker
    var now: Microseconds = 0
    var report: ClusterReport
    var isFaulty = true
    var forger: Forger
    /// Too few are left that could say whose state is right: what follows is promised by nobody.
    var isOutvoted = false
    /// What a frame that was sent in this turn has broken.
    var pendingViolation: String?
    /// What undoes each fault that has a span, by its number.
    var ends: [Int: () throws(SimulationFailure) -> Void] = [:]
    var endsMade = 0

    package convenience init(seed: UInt64, options: ClusterOptions) {
        self.init(seed: seed, options: options) { _ in }
    }

    /// - Parameter adjust: for scenarios, which want some things other than the seed has them.
    init(seed: UInt64, options: ClusterOptions, adjust: (inout ClusterPlan) -> Void) {
        self.seed = seed
        self.options = options
        var random = SimulationRandom(seed: seed)
        var plan = ClusterPlan(replicaCount: options.replicaCount, random: &random)
        adjust(&plan)
        let incarnations = (0..<options.replicaCount).map { _ in random.next() | 1 }
        let charter = Charter(
            members: (0..<UInt16(options.replicaCount)).map { $0 }, maxRequest: UInt64(plan.maxRequest),
            sessions: UInt64(plan.sessions), stateSize: UInt64(plan.stateSize), machine: SimulatedMachine.name,
            machineVersion: Int64(SimulatedMachine.version))
        var hosts: [Host] = []
        let reference: Reference<SimulatedMachine>
        do {
            for (index, incarnation) in incarnations.enumerated() {
                let identity = PoolIdentity(
                    cluster: "simulated", replica: UInt16(index), incarnation: incarnation, charter: charter)
                hosts.append(
                    try Host(index, plan: plan, incarnations: incarnations, identity: identity, random: &random))
            }
            let pool = try Pool(path: "reference", memoryOf: plan.stateSize)
            try StatePool.format(
                in: pool, identity: PoolIdentity(cluster: "simulated", replica: 0, incarnation: 1, charter: charter),
                sessions: plan.sessions, journalSize: plan.journalSize)
            reference = try Reference(of: StatePool(in: pool), maxRequest: plan.maxRequest)
        } catch {
            halt("pools of these sizes cannot be formatted in memory: \(error)")
        }
        self.random = random
        self.plan = plan
        self.hosts = hosts
        self.charter = charter
        ways = Ways(count: options.replicaCount)
        forger = Forger(count: options.replicaCount)
        report = ClusterReport(seed: seed)
        checker = ClusterChecker(reference: reference, count: options.replicaCount)
        clients = (0..<plan.clients).map { ClusterClient($0) }
    }

    /// Runs both phases. A failure is in the report.
    package func run() -> ClusterReport {
        do {
            trace("\(plan)")
            for host in hosts { try start(host) }
            if plan.interval > 0 { agenda.put(.fault, at: random.below(plan.interval) + 1) }
            if plan.driftTime > 0 { agenda.put(.drift, at: plan.driftTime) }
            if plan.strangers > 0 { agenda.put(.stranger, at: random.below(plan.strangers) + 1) }
            for client in clients { schedule(client, after: random.below(plan.thinkTime)) }
            try run(until: options.duration)
            try runLiveness()
            try finish()
        } catch {
            if !isOutvoted { report.failure = error }
        }
        report.time = now
        report.decided = checker.reference.executed
        report.answered = clients.reduce(0) { $0 + $1.completed }
        for host in hosts { count(host) }
        return report
    }

    func run(
        until end: Microseconds, orWhen isDone: () -> Bool = { false }
    ) throws(SimulationFailure) {
        while !isDone() {
            guard let due = agenda.nextTime, due <= end, let (time, event) = agenda.next() else { break }
            now = max(now, time)
            try handle(event)
        }
    }

    private func handle(_ event: Agenda.Event) throws(SimulationFailure) {
        switch event {
        case .turn(let host, let lane, let number):
            if hosts[host].lanes[lane].number == number { try turn(hosts[host], lane) }
        case .connection(let number): connections.happen(number)
        case .request(let name, let host, let header, let body):
            guard let life = hosts[host].life else { return }
            var header = header
            if plants(.positionIgnored) { header.replaceSubrange(24..<32, with: repeatElement(0, count: 8)) }
            for _ in 0..<(plantsNow(.requestTwice, oneIn: 5) ? 2 : 1) {
                life.port.take(from: name, header: header, body: body)
            }
            if life.port.wakes { wake(hosts[host], 0) }
        case .reply(let name, let host, let header, let body):
            // What a state that has drifted says is checked by nobody, and none of it may do harm.
            guard hosts[host].driftPosition == nil else { return }
            try answered(clients[name.client], name.operation, by: host, header: header, body: body)
        case .client(let client, let number):
            if clients[client].timer == number { act(clients[client]) }
        case .desk(let host, let life):
            if hosts[host].starts == life { try work(hosts[host]) }
        case .start(let host): if !hosts[host].isUp { try start(hosts[host]) }
        case .fault: try fault()
        case .drift: drift()
        case .stranger: strangerActs()
        case .damaged(let frame, let from, let to): arrive(damaged: frame, from: from, to: to)
        case .end(let number): try ends.removeValue(forKey: number)?()
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

    func count(_ host: Host) {
        guard let board = host.life?.board else { return }
        report.elections += board.elections.load()
        report.dropped += board.batchesDropped.load()
    }
}

/// The log of simulated replicas: what a replica says is part of the trace.
struct TraceLog: LogHandler {
    let write: @Sendable (String) -> Void
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { write("\(event.level): \(event.message)") }
}
