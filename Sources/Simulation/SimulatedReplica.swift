import MPaxosConsensus
import MPaxosInvariants

/// One replica: the core, and what an engine would do around it. The simulator keeps them in plain memory.
struct SimulatedReplica: ~Copyable {
    let configuration: Configuration
    /// How many executed instances stay in the log.
    private let kept: UInt64
    /// Holds a core while `isUp`. An optional would have to be consumed to be looked into.
    private let coreMemory = UnsafeMutablePointer<Core>.allocate(capacity: 1)
    private(set) var isUp = false
    /// Its process runs. Before it takes part its core does not.
    private(set) var isRunning = false
    /// Its pools are gone or of another time: the others would not have it back.
    var isLost = false
    var storage: SimulatedStorage
    var executor: SimulatedExecutor
    var clock = SimulatedClock()
    /// Sends whose records are not durable yet.
    var waiting = Buffer<Send>()
    /// Numbers of commands that clients, and other replicas, want to have proposed.
    var inbox = Buffer<Int>()
    private(set) var life: UInt32 = 0
    var pausedUntil: Microseconds = 0
    var slowUntil: Microseconds = 0
    var slowBy: Microseconds = 0
    /// No room for the bytes of batches from others.
    var fullUntil: Microseconds = 0
    /// Whether proposals that find no room are refused, and not just lost.
    var saysFull = false
    /// Each flush takes this long at least, and up to twice as long as the faults last that stay when all others end.
    var lastingFlush: Microseconds = 0
    /// How much later than others it sees and says everything.
    var lag: Microseconds = 0
    var flushAt: Microseconds = 0
    /// The leader's commit index after the step before, while somebody watches it.
    var lastCommit: Instance = 0
    /// When the next tick is scheduled.
    var tickAt: Microseconds = .max
    private var isLazy = false
    /// Whom this process knows.
    private(set) var acquaintances: Acquaintances
    /// Whom this process has taken up with, bit i for replica i: it sends to nobody else, and looks at what nobody else
    /// says.
    var met: UInt16 = 0
    /// When what it has put on record of others is durable.
    var recordedAt: Microseconds = 0
    /// What the members tell of their states, and at which instances; nil: they tell nothing.
    var comparison: DigestComparison?
    var digestInterval: UInt64?
    /// How its pools were at some time.
    var copy: CopiedPools?
    /// The pools that another copy of them runs in place of.
    var aside: CopiedPools?
    /// Pools of an earlier time are not started so often that the life that was met cannot be named any more.
    var startsLeft = Int.max
    /// Its storage takes everything and makes nothing durable.
    var isStuck = false
    /// The batch at each offset of this replica's arena; which offset means what differs from replica to replica.
    private var arena: Buffer<UInt32>
    /// Counters of earlier lives.
    private var elections: UInt64 = 0
    private var leaderships: UInt64 = 0
    private var caughtUp: UInt64 = 0
    private var retransmissions: UInt64 = 0

    init(configuration: Configuration, kept: UInt64, sessionCount: Int, members: MemberRecords) {
        self.configuration = configuration
        self.kept = kept
        acquaintances = Acquaintances(
            index: configuration.replica, ancestors: [], records: members.records, founding: members.founding)
        storage = SimulatedStorage(
            slotCount: configuration.slotCount, members: members, bugs: configuration.plantedBugs)
        executor = SimulatedExecutor(sessionCount: sessionCount, bugs: configuration.plantedBugs)
        // Two replicas' offsets never agree by chance.
        arena = Buffer(repeating: 0, count: 1 + configuration.replica * 1000)
    }

    deinit {
        if isUp { coreMemory.deinitialize(count: 1) }
        coreMemory.deallocate()
    }

    /// The running core.
    var core: Core {
        unsafeAddress {
            invariant(isUp, "a replica that is down has no core")
            return UnsafePointer(coreMemory)
        }
        nonmutating unsafeMutableAddress {
            invariant(isUp, "a replica that is down has no core")
            return coreMemory
        }
    }

    /// Durably.
    var executed: Instance { executor.committed.executed }

    // MARK: The arena

    /// Room for a batch's bytes, and its handle.
    mutating func seal(_ batch: UInt32, length: UInt32) -> Batch {
        guard batch != 0 else { return .noop }
        arena.append(batch)
        return Batch(offset: UInt64(arena.count - 1), length: length, checksum: batch)
    }

    /// The core does not keep the batch that was sealed last: its room is used again.
    mutating func unseal(_ batch: Batch) {
        guard !batch.isNoop else { return }
        invariant(batch.offset == UInt64(arena.count - 1), "the newest batch is dropped")
        arena.truncate(to: arena.count - 1)
    }

    /// Whether a handle that the core uses is one of this replica's, and means what it says.
    @inline(__always) func holds(_ batch: Batch) -> Bool {
        batch.isNoop || (batch.offset < UInt64(arena.count) && arena[Int(batch.offset)] == batch.checksum)
    }

    // MARK: Lives

    /// Why a replica does not start on its pools.
    enum Refusal {
        case expelled
        case damaged
        case poolsOfTwoStarts
    }

    mutating func examinePools() -> Refusal? {
        let bugs = configuration.plantedBugs
        if storage.members.isExpelled { return .expelled }
        if storage.isDamaged {
            guard bugs.contains(.damageTakenForTear) else { return .damaged }
            storage.dropDamaged()
        }
        let areOfOneStart = storage.members.belongs(toStateStarted: executor.bootCount)
        // A state that lacks what its log has trimmed is found by the core as well.
        guard areOfOneStart || bugs.contains(.poolsNotCompared) && executed + 1 >= storage.floor else {
            return .poolsOfTwoStarts
        }
        return nil
    }

    /// A process opens the pools, which makes a life, and knows whom it knew.
    mutating func open(random: inout SimulationRandom) {
        invariant(!isRunning, "a replica starts once a life")
        beginStart(steps: 3, random: &random)
        isRunning = true
        met = 0
        recordedAt = 0
        startsLeft -= 1
        var told = storage.members.life
        var ancestors = storage.members.ancestors
        // All have the same one.
        if configuration.plantedBugs.contains(.noncesUnchecked) {
            told.nonce = 1
            for place in ancestors.indices { ancestors[place] = 1 }
        }
        var records = storage.members.records
        records[configuration.replica].life = told
        acquaintances = Acquaintances(
            index: configuration.replica, ancestors: ancestors, records: records,
            founding: storage.members.founding)
        if let interval = digestInterval {
            comparison = DigestComparison(
                index: configuration.replica, count: records.count, interval: interval)
        }
    }

    /// The steps of a start that count it. A crash may come after each of them.
    mutating func beginStart(steps: Int, random: inout SimulationRandom) {
        life += 1
        let next = Life(bootCount: storage.members.life.bootCount + 1, nonce: random.next() | 1)
        storage.members.begin()
        if steps > 1 { executor.bootCount = next.bootCount }
        if steps > 2 { storage.members.record(next) }
    }

    /// Whether it takes part: it may vote, and be elected.
    var takesPart: Bool {
        if storage.members.isFounded { return true }
        guard configuration.plantedBugs.contains(.foundedByMajority) else { return false }
        return 2 * storage.members.records.count { $0.incarnation != 0 } > storage.members.records.count
    }

    mutating func take(
        up introduction: Acquaintances.Introduction, of peer: ReplicaIndex, keyOf holder: Acquaintances.Holder
    ) {
        let news = acquaintances.meet(introduction, from: peer, keyOf: holder)
        for member in acquaintances.records.indices where news >> UInt16(member) & 1 != 0 {
            storage.members.write(acquaintances.records[member], of: member)
        }
        takeNoteOfRecords()
    }

    /// What was written of others up to `number` is durable.
    mutating func recorded(through number: UInt64) {
        storage.members.fence(through: number)
        takeNoteOfRecords()
    }

    private mutating func takeNoteOfRecords() {
        for (member, record) in storage.members.records.enumerated() {
            acquaintances.recorded(record.incarnation, of: member)
        }
        acquaintances.recorded(storage.members.founding)
        storage.members.write(acquaintances.founding)
    }

    mutating func start(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(isRunning && !isUp && takesPart, "the core of a process starts once, when it takes part")
        storage.reopen()
        flushAt = now
        tickAt = .max
        var started = Core(
            configuration: configuration, promised: storage.promised, established: storage.established,
            floor: storage.floor, executed: executed)
        for instance in storage.floor..<(storage.floor + UInt64(configuration.slotCount)) {
            let slot = storage[instance]
            if slot.view > 0 {
                started.restore(instance: instance, view: slot.view, batch: slot.batch)
            }
        }
        started.start(now: clock.local(now), into: &effects)
        coreMemory.initialize(to: started)
        isUp = true
    }

    mutating func crash(random: inout SimulationRandom, mode: SimulatedStorage.CrashMode?) {
        if isUp { retire() }
        isRunning = false
        met = 0
        waiting.removeAll()
        inbox.removeAll()
        life += 1
        pausedUntil = 0
        isStuck = false
        storage.crash(random: &random, mode: mode)
        executor.crash(random: &random)
    }

    /// Whatever was to start it again does not.
    mutating func stayDown() {
        invariant(!isRunning, "a replica that is up does not stay down")
        life += 1
    }

    /// The pools are formatted anew.
    mutating func format(sessionCount: Int, members: MemberRecords) {
        invariant(!isRunning, "pools are lost while the replica is down")
        storage = SimulatedStorage(
            slotCount: configuration.slotCount, members: members, bugs: configuration.plantedBugs)
        executor = SimulatedExecutor(sessionCount: sessionCount, bugs: configuration.plantedBugs)
    }

    private mutating func retire() {
        elections += core.counters.elections
        leaderships += core.counters.leaderships
        caughtUp += core.counters.caughtUp
        retransmissions += core.counters.retransmissions
        coreMemory.deinitialize(count: 1)
        isUp = false
    }

    mutating func count(into report: inout SimulationReport) {
        if isUp { retire() }
        report.elections += elections
        report.leaderships += leaderships
        report.caughtUp += caughtUp
        report.retransmissions += retransmissions
    }

    /// The faults end.
    mutating func calm(now: Microseconds) {
        slowUntil = 0
        flushAt = now
        fullUntil = 0
        lag = 0
        isLazy = false
        isStuck = false
        if pausedUntil > now { pausedUntil = now }
        clock.change(now: now, rate: 1000, jump: 0)
    }

    @inline(__always) func flushDelay(_ flush: Microseconds, now: Microseconds, random: inout SimulationRandom)
        -> Microseconds
    {
        var delay = flush + random.below(flush + 1)
        if now < slowUntil { delay += random.below(slowBy + 1) }
        if lastingFlush > 0 { delay += lastingFlush + random.below(3 * lastingFlush) }
        return delay
    }

    // MARK: Executing

    @inline(__always) var hasToExecute: Bool { core.decided > executor.committed.executed && !executor.isCommitting }

    /// Executes some of what is decided, now and then nothing yet. Returns whether there is something to commit.
    mutating func execute(_ store: borrowing CommandStore, random: inout SimulationRandom) -> Bool {
        invariant(hasToExecute, "one commit at a time")
        if random.chance(perMille: 5) { isLazy.toggle() }
        guard !isLazy || core.decided > executed + UInt64(configuration.window) else { return false }
        // A full journal commits in the middle of an instance.
        var budget = random.chance(perMille: 200) ? 1 + random.index(3) : Int.max
        while executor.working.executed < core.decided && budget > 0 {
            let instance = executor.working.executed + 1
            guard let entry = core.entry(at: instance) else { broken("what is decided is in the log") }
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
            // Where digests are told a commit ends.
            if let digestInterval, executor.working.executed % digestInterval == 0, executor.working.records == 0 {
                break
            }
        }
        executor.beginCommit()
        return true
    }

    /// Drops from the log what is beyond what is kept. Asked for after every step: a log that is full brings no step
    /// that would.
    mutating func trim(now: Microseconds, into effects: inout EffectBuffer) {
        guard executed > storage.floor + kept else { return }
        storage.trim(to: executed - kept, executed: executed)
        core.advanceFloor(to: storage.floor, now: clock.local(now), into: &effects)
    }

    var summary: String {
        guard isRunning else { return isLost ? "lost" : "down" }
        guard isUp else { return "waits for \(String(acquaintances.awaited, radix: 2))" }
        return
            "\(core.role) view \(core.view) decided \(core.decided) known \(core.known) commit \(core.commit) "
            + "accepted \(core.accepted) base \(core.base) floor \(core.floor) highest \(core.highest) executed \(executed) "
            + "leader \(core.leader ?? -1) transfer \(core.needsStateTransfer)"
    }
}
