import Consensus

/// One replica: the core, and what an engine would do around it.
final class SimulatedReplica {
    let configuration: Configuration
    /// How many executed instances stay in the log.
    private let kept: UInt64
    /// Holds a core while `isUp`. An optional would have to be consumed to be looked into.
    private let coreMemory = UnsafeMutablePointer<Core>.allocate(capacity: 1)
    private(set) var isUp = false
    var storage: SimulatedStorage
    var effects = EffectBuffer(capacity: 1024)
    /// Sends whose records are not durable yet.
    var waiting: [Send] = []
    /// Reused memory.
    var spareSends: [Send] = []
    private(set) var life: UInt32 = 0
    var pausedUntil: Microseconds = 0
    var slowUntil: Microseconds = 0
    var slowBy: Microseconds = 0
    var flushAt: Microseconds = 0
    /// When the next tick is scheduled.
    var tickAt: Microseconds = .max
    private var isLazy = false
    /// Counters of earlier lives.
    private var elections: UInt64 = 0
    private var leaderships: UInt64 = 0
    private var caughtUp: UInt64 = 0
    private var retransmissions: UInt64 = 0

    init(configuration: Configuration, kept: UInt64) {
        self.configuration = configuration
        self.kept = kept
        storage = SimulatedStorage(slotCount: configuration.slotCount)
    }

    deinit {
        if isUp { coreMemory.deinitialize(count: 1) }
        coreMemory.deallocate()
    }

    /// The running core.
    var core: Core {
        _read {
            precondition(isUp, "a replica that is down has no core")
            yield coreMemory.pointee
        }
        _modify {
            precondition(isUp, "a replica that is down has no core")
            yield &coreMemory.pointee
        }
    }

    var executed: Instance { storage.executed }

    func start(now: Microseconds) {
        precondition(!isUp, "a replica starts once a life")
        life += 1
        storage.reopen()
        effects.removeAll()
        flushAt = now
        tickAt = .max
        var started = Core(
            configuration: configuration, promised: storage.promised, established: storage.established,
            floor: storage.floor, executed: storage.executed)
        for instance in storage.floor..<(storage.floor + UInt64(configuration.slotCount)) {
            if let slot = storage[instance] {
                started.restore(instance: instance, view: slot.view, batch: slot.batch)
            }
        }
        started.start(now: now, into: &effects)
        coreMemory.initialize(to: started)
        isUp = true
    }

    func crash(random: inout SimulationRandom) {
        retire()
        waiting.removeAll()
        effects.removeAll()
        life += 1
        pausedUntil = 0
        storage.crash(random: &random)
    }

    private func retire() {
        elections += core.counters.elections
        leaderships += core.counters.leaderships
        caughtUp += core.counters.caughtUp
        retransmissions += core.counters.retransmissions
        coreMemory.deinitialize(count: 1)
        isUp = false
    }

    func count(into report: inout SimulationReport) {
        if isUp { retire() }
        report.elections += elections
        report.leaderships += leaderships
        report.caughtUp += caughtUp
        report.retransmissions += retransmissions
    }

    /// The faults end.
    func calm(now: Microseconds) {
        slowUntil = 0
        isLazy = false
        if pausedUntil > now { pausedUntil = now }
    }

    func flushDelay(_ plan: FaultPlan, now: Microseconds, random: inout SimulationRandom) -> Microseconds {
        var delay = plan.flush + random.below(plan.flush + 1)
        if now < slowUntil { delay += random.below(slowBy + 1) }
        return delay
    }

    /// Sends that rested on records up to `number`, in order.
    func takeReady(through number: LogSequenceNumber) -> [Send] {
        let ready = waiting.filter { $0.after <= number }
        waiting.removeAll { $0.after <= number }
        return ready
    }

    /// Executes what is decided, now and then not yet; drops from the log what is beyond what is kept.
    func execute(random: inout SimulationRandom, now: Microseconds) {
        if random.chance(perMille: 5) { isLazy.toggle() }
        guard !isLazy || core.decided > executed + UInt64(configuration.window) else { return }
        while executed < core.decided { storage.execute(executed + 1) }
        if executed > storage.floor + kept {
            storage.trim(to: executed - kept)
            core.advanceFloor(to: storage.floor, now: now, into: &effects)
        }
    }

    var summary: String {
        guard isUp else { return "down" }
        return
            "\(core.role) view \(core.view) decided \(core.decided) known \(core.known) commit \(core.commit) "
            + "accepted \(core.accepted) base \(core.base) floor \(core.floor) highest \(core.highest) executed \(executed) "
            + "leader \(core.leader ?? -1) transfer \(core.needsStateTransfer)"
    }
}
