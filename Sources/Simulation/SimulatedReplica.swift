import Consensus

/// One replica: the core, and what an engine would do around it. Unchecked for exclusive access, as the simulator.
final class SimulatedReplica {
    let configuration: Configuration
    /// How many executed instances stay in the log.
    private let kept: UInt64
    /// Holds a core while `isUp`. An optional would have to be consumed to be looked into.
    private let coreMemory = UnsafeMutablePointer<Core>.allocate(capacity: 1)
    @exclusivity(unchecked) private(set) var isUp = false
    /// The pools are gone: the others would not have it back.
    var isLost = false
    @exclusivity(unchecked) var storage: SimulatedStorage
    @exclusivity(unchecked) var executor: SimulatedExecutor
    @exclusivity(unchecked) var effects = EffectBuffer(capacity: 1024)
    @exclusivity(unchecked) var clock = SimulatedClock()
    /// Sends whose records are not durable yet.
    @exclusivity(unchecked) var waiting: [Send] = []
    /// Reused memory.
    @exclusivity(unchecked) var spareSends: [Send] = []
    /// Numbers of commands that clients, and other replicas, want to have proposed.
    @exclusivity(unchecked) var inbox: [Int] = []
    @exclusivity(unchecked) private(set) var life: UInt32 = 0
    @exclusivity(unchecked) var pausedUntil: Microseconds = 0
    @exclusivity(unchecked) var slowUntil: Microseconds = 0
    var slowBy: Microseconds = 0
    /// No room for the bytes of batches from others.
    @exclusivity(unchecked) var fullUntil: Microseconds = 0
    /// How much later than others it sees and says everything.
    @exclusivity(unchecked) var lag: Microseconds = 0
    @exclusivity(unchecked) var flushAt: Microseconds = 0
    /// The leader's commit index after the step before, while somebody watches it.
    var lastCommit: Instance = 0
    /// When the next tick is scheduled.
    @exclusivity(unchecked) var tickAt: Microseconds = .max
    @exclusivity(unchecked) private var isLazy = false
    /// The batch at each offset of this replica's arena; which offset means what differs from replica to replica.
    @exclusivity(unchecked) private var arena: [UInt32] = [0]
    /// Counters of earlier lives.
    private var elections: UInt64 = 0
    private var leaderships: UInt64 = 0
    private var caughtUp: UInt64 = 0
    private var retransmissions: UInt64 = 0

    init(configuration: Configuration, kept: UInt64, sessionCount: Int) {
        self.configuration = configuration
        self.kept = kept
        storage = SimulatedStorage(slotCount: configuration.slotCount, bugs: configuration.plantedBugs)
        executor = SimulatedExecutor(sessionCount: sessionCount, bugs: configuration.plantedBugs)
        // Two replicas' offsets never agree by chance.
        for _ in 0..<(configuration.replica * 1000) { arena.append(0) }
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

    /// Durably.
    var executed: Instance { executor.committed.executed }

    // MARK: The arena

    /// Room for a batch's bytes, and its handle.
    func seal(_ batch: UInt32, length: UInt32) -> Batch {
        guard batch != 0 else { return .noop }
        arena.append(batch)
        return Batch(offset: UInt64(arena.count - 1), length: length, checksum: batch)
    }

    /// The core does not keep the batch that was sealed last: its room is used again.
    func unseal(_ batch: Batch) {
        guard !batch.isNoop else { return }
        precondition(batch.offset == UInt64(arena.count - 1), "the newest batch is dropped")
        arena.removeLast()
    }

    /// Whether a handle that the core uses is one of this replica's, and means what it says.
    func holds(_ batch: Batch) -> Bool {
        batch.isNoop || (batch.offset < UInt64(arena.count) && arena[Int(batch.offset)] == batch.checksum)
    }

    // MARK: Lives

    func start(now: Microseconds) {
        precondition(!isUp && !isLost, "a replica starts once a life")
        life += 1
        storage.reopen()
        effects.removeAll()
        flushAt = now
        tickAt = .max
        var started = Core(
            configuration: configuration, promised: storage.promised, established: storage.established,
            floor: storage.floor, executed: executed)
        for instance in storage.floor..<(storage.floor + UInt64(configuration.slotCount)) {
            if let slot = storage[instance] {
                started.restore(instance: instance, view: slot.view, batch: slot.batch)
            }
        }
        started.start(now: clock.local(now), into: &effects)
        coreMemory.initialize(to: started)
        isUp = true
    }

    func crash(random: inout SimulationRandom, mode: SimulatedStorage.CrashMode?) {
        retire()
        waiting.removeAll(keepingCapacity: true)
        inbox.removeAll(keepingCapacity: true)
        effects.removeAll()
        life += 1
        pausedUntil = 0
        storage.crash(random: &random, mode: mode)
        executor.crash(random: &random)
    }

    /// Whatever was to start it again does not.
    func stayDown() {
        precondition(!isUp, "a replica that is up does not stay down")
        life += 1
    }

    /// The pools are formatted anew, or would be.
    func losePools(sessionCount: Int) {
        precondition(!isUp, "pools are lost while the replica is down")
        storage = SimulatedStorage(slotCount: configuration.slotCount, bugs: configuration.plantedBugs)
        executor = SimulatedExecutor(sessionCount: sessionCount, bugs: configuration.plantedBugs)
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
        flushAt = now
        fullUntil = 0
        lag = 0
        isLazy = false
        if pausedUntil > now { pausedUntil = now }
        clock.change(now: now, rate: 1000, jump: 0)
    }

    func flushDelay(_ plan: FaultPlan, now: Microseconds, random: inout SimulationRandom) -> Microseconds {
        var delay = plan.flush + random.below(plan.flush + 1)
        if now < slowUntil { delay += random.below(slowBy + 1) }
        return delay
    }

    /// Moves the sends that rested on records up to `number`, in order, to `spareSends`.
    func takeReady(through number: LogSequenceNumber) {
        spareSends.removeAll(keepingCapacity: true)
        var left = 0
        for send in waiting {
            if send.after <= number {
                spareSends.append(send)
            } else {
                waiting[left] = send
                left += 1
            }
        }
        waiting.removeLast(waiting.count - left)
    }

    // MARK: Executing

    var hasToExecute: Bool { core.decided > executor.committed.executed && !executor.isCommitting }

    /// Executes some of what is decided, now and then nothing yet. Returns whether there is something to commit.
    func execute(_ store: CommandStore, random: inout SimulationRandom) -> Bool {
        precondition(hasToExecute, "one commit at a time")
        if random.chance(perMille: 5) { isLazy.toggle() }
        guard !isLazy || core.decided > executed + UInt64(configuration.window) else { return false }
        // A full journal commits in the middle of an instance.
        var budget = random.chance(perMille: 200) ? 1 + random.index(3) : Int.max
        while executor.working.executed < core.decided && budget > 0 {
            let instance = executor.working.executed + 1
            guard let entry = core.entry(at: instance) else { preconditionFailure("what is decided is in the log") }
            let batch = entry.batch.checksum
            let count = store.count(of: batch)
            while executor.working.records < count && budget > 0 {
                let number = store.number(executor.working.records, of: batch)
                let command = store[number]
                executor.apply(
                    command, number: number, isMine: command.client >= 0 && command.origin == configuration.replica)
                budget -= 1
            }
            if executor.working.records == count { executor.endInstance() }
        }
        executor.beginCommit()
        return true
    }

    /// Drops from the log what is beyond what is kept. Asked for after every step: a log that is full brings no step that would.
    func trim(now: Microseconds) {
        guard executed > storage.floor + kept else { return }
        storage.trim(to: executed - kept, executed: executed)
        core.advanceFloor(to: storage.floor, now: clock.local(now), into: &effects)
    }

    var summary: String {
        guard isUp else { return isLost ? "lost" : "down" }
        return
            "\(core.role) view \(core.view) decided \(core.decided) known \(core.known) commit \(core.commit) "
            + "accepted \(core.accepted) base \(core.base) floor \(core.floor) highest \(core.highest) executed \(executed) "
            + "leader \(core.leader ?? -1) transfer \(core.needsStateTransfer)"
    }
}
