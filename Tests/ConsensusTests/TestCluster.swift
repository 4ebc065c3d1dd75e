import MPaxosConsensus

/// A few cores in one thread without chance: messages are delivered in order, everything is durable at once unless
/// held.
final class TestCluster {
    final class Member {
        let configuration: Configuration
        private let memory = UnsafeMutablePointer<Core>.allocate(capacity: 1)
        private(set) var isUp = false
        var effects = EffectBuffer(capacity: 1024)
        // What would be in persistent memory.
        var promised: View = 0
        var established: EstablishedView?
        var slots: [Instance: (view: View, batch: Batch)] = [:]
        var floor: Instance = 1
        var executed: Instance = 0
        var durable: LogSequenceNumber = 0
        /// Records that are not durable yet, while `isHeld`.
        var pending: [Record] = []
        var isHeld = false
        /// No room for batches of proposals: they are refused, until `makeRoom`.
        var lacksRoom = false
        var waiting: [Send] = []

        init(configuration: Configuration) { self.configuration = configuration }

        deinit {
            if isUp { memory.deinitialize(count: 1) }
            memory.deallocate()
        }

        var core: Core {
            _read { yield memory.pointee }
            _modify { yield &memory.pointee }
        }

        func start(now: Microseconds) {
            var core = Core(
                configuration: configuration, promised: promised, established: established, floor: floor,
                executed: executed)
            for (instance, slot) in slots { core.restore(instance: instance, view: slot.view, batch: slot.batch) }
            core.start(now: now, into: &effects)
            memory.initialize(to: core)
            isUp = true
        }

        func crash() {
            memory.deinitialize(count: 1)
            isUp = false
            pending = []
            waiting = []
            durable = 0
            isHeld = false
            lacksRoom = false
            effects.removeAll()
        }

        func apply(_ record: Record) {
            switch record.kind {
            case .promise: promised = max(promised, record.view)
            case .established: established = EstablishedView(view: record.view, base: record.instance)
            case .accept: slots[record.instance] = (record.view, record.batch)
            }
            durable = record.number
        }
    }

    var members: [Member] = []
    var now: Microseconds = 1_000_000
    var inFlight: [(from: ReplicaIndex, send: Send)] = []
    /// All messages that were delivered, for looking at.
    var delivered: [(from: ReplicaIndex, to: ReplicaIndex, message: Message)] = []
    /// Messages for which this holds are lost.
    var isLost: (_ from: ReplicaIndex, _ to: ReplicaIndex, _ message: Message) -> Bool = { _, _, _ in false }

    init(_ count: Int, window: Int = 8, slotCount: Int = 128, plantedBugs: PlantedBugs = []) {
        for index in 0..<count {
            members.append(
                Member(
                    configuration: Configuration(
                        replica: index, replicaCount: count, window: window, slotCount: slotCount, seed: 7,
                        plantedBugs: plantedBugs)))
        }
        for index in 0..<count { start(index) }
    }

    func start(_ index: ReplicaIndex) {
        members[index].start(now: now)
        absorb(index)
        for peer in members.indices where peer != index && members[peer].isUp {
            members[index].core.connected(peer, now: now, into: &members[index].effects)
            members[peer].core.connected(index, now: now, into: &members[peer].effects)
            absorb(peer)
        }
        absorb(index)
    }

    func crash(_ index: ReplicaIndex) { members[index].crash() }

    /// Takes over effects; makes them durable unless held.
    func absorb(_ index: ReplicaIndex) {
        let member = members[index]
        while !member.effects.isEmpty {
            member.pending += Array(member.effects.records)
            member.waiting += Array(member.effects.sends)
            member.effects.removeAll()
            if !member.isHeld { flush(index) }
            release(index)
        }
        release(index)
        member.executed = max(member.executed, member.core.decided)
    }

    func flush(_ index: ReplicaIndex) {
        let member = members[index]
        guard let last = member.pending.last else { return }
        for record in member.pending { member.apply(record) }
        member.pending = []
        member.core.durable(last.number, now: now, into: &member.effects)
    }

    private func release(_ index: ReplicaIndex) {
        let member = members[index]
        let ready = member.waiting.filter { $0.after <= member.durable }
        member.waiting.removeAll { $0.after <= member.durable }
        for send in ready where !isLost(index, send.to, send.message) { inFlight.append((index, send)) }
    }

    /// Delivers until nobody has anything to say.
    func settle() {
        while !inFlight.isEmpty {
            let (from, send) = inFlight.removeFirst()
            guard members[send.to].isUp else { continue }
            deliver(send.message, from: from, to: send.to)
        }
    }

    @discardableResult
    func deliver(_ message: Message, from: ReplicaIndex, to: ReplicaIndex) -> Bool {
        delivered.append((from, to, message))
        let member = members[to]
        if member.lacksRoom && message.kind == .accept && member.core.wants(message, from: from) {
            member.core.refuse(message, full: true, from: from, now: now, into: &member.effects)
            absorb(to)
            return false
        }
        let kept = member.core.receive(message, from: from, now: now, into: &member.effects)
        absorb(to)
        return kept
    }

    /// A replica that lacked room for batches has some.
    func makeRoom(_ index: ReplicaIndex) {
        members[index].lacksRoom = false
        members[index].core.resumeAccepting(now: now, into: &members[index].effects)
        absorb(index)
    }

    /// So many bytes of proposals may go from `from` to `to` now.
    func allow(
        _ bytes: Int, patience: Microseconds? = nil, distance: Microseconds = 0, from: ReplicaIndex, to: ReplicaIndex
    ) {
        members[from].core.allow(
            bytes, patience: patience, distance: distance, to: to, now: now, into: &members[from].effects)
        absorb(from)
    }

    /// The link between two replicas was lost, with all that was under way on it, and is up again.
    func reconnect(_ a: ReplicaIndex, _ b: ReplicaIndex) {
        inFlight.removeAll { ($0.from == a && $0.send.to == b) || ($0.from == b && $0.send.to == a) }
        members[a].core.connected(b, now: now, into: &members[a].effects)
        members[b].core.connected(a, now: now, into: &members[b].effects)
        absorb(a)
        absorb(b)
    }

    /// Lets time pass in small steps.
    func pass(_ duration: Microseconds) {
        let end = now + duration
        while now < end {
            now += 5_000
            for index in members.indices where members[index].isUp && members[index].core.nextDeadline <= now {
                members[index].core.tick(now: now, into: &members[index].effects)
                absorb(index)
            }
            settle()
        }
    }

    /// Lets `index` win an election, by its timer alone.
    func elect(_ index: ReplicaIndex) {
        for _ in 0..<200 where members[index].core.role != .leader {
            now += 5_000
            // The others' timers stand still.
            members[index].core.tick(now: now, into: &members[index].effects)
            absorb(index)
            settle()
        }
        precondition(members[index].core.role == .leader, "the election succeeds")
    }

    @discardableResult
    func propose(_ value: UInt64, at index: ReplicaIndex, length: UInt32 = 8) -> Instance? {
        let batch = Batch(offset: value, length: length, checksum: UInt32(truncatingIfNeeded: value))
        let instance = members[index].core.propose(batch, now: now, into: &members[index].effects)
        absorb(index)
        return instance
    }

    /// The values decided at a replica, 0 for a no-op.
    func values(_ index: ReplicaIndex, from first: Instance = 1) -> [UInt64] {
        guard first <= members[index].core.decided else { return [] }
        return (first...members[index].core.decided).map { members[index].core.entry(at: $0)?.batch.offset ?? .max }
    }

    var violations: [String] {
        members.filter(\.isUp).compactMap { $0.core.violatedInvariant().map { "\($0)" } }
    }
}
