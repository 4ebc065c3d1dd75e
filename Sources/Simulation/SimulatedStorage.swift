import Consensus

/// A replica's persistent memory: what is fenced survives a crash; of what is not, any subset may.
struct SimulatedStorage {
    struct Slot: Hashable {
        var view: View
        var batch: Batch
    }

    private(set) var promised: View = 0
    private(set) var established: EstablishedView?
    /// A ring, as the core's.
    private var slots: [Slot?]
    private(set) var floor: Instance = 1
    /// What the state machine executed, which is committed apart from the log.
    private(set) var executed: Instance = 0
    private var pending: [Record] = []
    private(set) var durable: LogSequenceNumber = 0

    init(slotCount: Int) { slots = [Slot?](repeating: nil, count: slotCount) }

    subscript(_ instance: Instance) -> Slot? {
        guard instance >= floor && instance < floor + UInt64(slots.count) else { return nil }
        return slots[Int(instance % UInt64(slots.count))]
    }

    mutating func write(_ record: Record) {
        precondition(pending.last.map { $0.number < record.number } ?? true, "records are numbered in order")
        pending.append(record)
    }

    mutating func fence(through number: LogSequenceNumber) {
        var taken = 0
        while taken < pending.count && pending[taken].number <= number {
            apply(pending[taken])
            taken += 1
        }
        pending.removeFirst(taken)
        durable = max(durable, number)
    }

    /// Power fails: each unfenced record reached memory, or did not.
    mutating func crash(random: inout SimulationRandom) {
        let mode = random.below(3)
        for record in pending where mode == 0 || (mode == 1 && random.chance(perMille: 500)) { apply(record) }
        pending.removeAll()
    }

    /// Record numbers begin anew with each life of the core.
    mutating func reopen() {
        precondition(pending.isEmpty, "a crash leaves nothing behind")
        durable = 0
    }

    mutating func execute(_ instance: Instance) {
        precondition(instance == executed + 1, "instances are executed in order")
        executed = instance
    }

    mutating func trim(to newFloor: Instance) {
        precondition(newFloor <= executed + 1, "only what is executed is trimmed")
        while floor < newFloor {
            slots[Int(floor % UInt64(slots.count))] = nil
            floor += 1
        }
    }

    /// The state of another replica takes the place of this one's. The promise first: what is in the state was decided in a
    /// view not above the giver's.
    mutating func install(executed newExecuted: Instance, promised giversPromise: View) {
        precondition(pending.isEmpty && newExecuted > executed, "a transfer is for a stopped replica that is behind")
        promised = max(promised, giversPromise)
        while floor <= newExecuted && floor < executed + UInt64(slots.count) {
            slots[Int(floor % UInt64(slots.count))] = nil
            floor += 1
        }
        if floor <= newExecuted {
            for place in slots.indices { slots[place] = nil }
        }
        floor = newExecuted + 1
        executed = newExecuted
    }

    private mutating func apply(_ record: Record) {
        switch record.kind {
        case .promise: promised = max(promised, record.view)
        case .established: established = EstablishedView(view: record.view, base: record.instance)
        case .accept:
            guard record.instance >= floor && record.instance < floor + UInt64(slots.count) else { return }
            slots[Int(record.instance % UInt64(slots.count))] = Slot(view: record.view, batch: record.batch)
        }
    }
}
