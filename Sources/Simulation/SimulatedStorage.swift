import MPaxosConsensus
import MPaxosInvariants

/// A replica's persistent log: what is fenced survives a crash; of what is not, any subset may.
struct SimulatedStorage: ~Copyable {
    struct Slot: BitwiseCopyable {
        /// 0: the slot is empty.
        var view: View
        var batch: Batch

        static var empty: Slot { Slot(view: 0, batch: .noop) }
    }

    /// Which of the unfenced records survive a crash.
    enum CrashMode: UInt8 {
        case all
        case none
        case acceptances
        case promises
        case any
    }

    private let bugs: PlantedBugs
    private(set) var promised: View = 0
    private(set) var established: EstablishedView?
    private let slotCount: UInt64
    /// A ring, as the core's.
    private var slots: Buffer<Slot>
    private(set) var floor: Instance = 1
    private var pending = Buffer<Record>()
    private(set) var durable: LogSequenceNumber = 0
    /// Of lives and members.
    var members: MemberRecords
    /// What was fenced, and has another bit since.
    private var damage: Damage?

    init(slotCount: Int, members: MemberRecords, bugs: PlantedBugs) {
        self.bugs = bugs
        self.members = members
        self.slotCount = UInt64(slotCount)
        slots = Buffer(repeating: .empty, count: slotCount)
    }

    private func place(_ instance: Instance) -> Int { Int(truncatingIfNeeded: instance % slotCount) }

    private func fits(_ instance: Instance) -> Bool { instance >= floor && instance < floor + slotCount }

    /// Empty for what is not there.
    subscript(_ instance: Instance) -> Slot { fits(instance) ? slots[place(instance)] : .empty }

    var hasPendingPromise: Bool { pending.elements.contains { $0.kind == .promise } }

    mutating func write(_ record: Record) {
        invariant((pending.last?.number ?? 0) < record.number, "records are numbered in order")
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

    /// Power fails: each unfenced record reached memory, or did not; one that did in part is as none, by its checksum.
    /// - Parameter mode: which; nil: drawn.
    mutating func crash(random: inout SimulationRandom, mode wanted: CrashMode?) {
        let mode = wanted ?? CrashMode(rawValue: UInt8(random.below(6))) ?? .any
        for record in pending.elements {
            let survives =
                switch mode {
                case .all: true
                case .none: false
                case .acceptances: record.kind == .accept
                case .promises: record.kind != .accept
                case .any: random.chance(perMille: 500)
                }
            if survives {
                apply(record)
            } else if bugs.contains(.slotInPlace) && record.kind == .accept && fits(record.instance) {
                slots[place(record.instance)] = .empty
            }
        }
        pending.removeAll()
        members.crash(random: &random)
    }

    /// Of a replica that is down.
    func copy() -> SimulatedStorage {
        invariant(pending.isEmpty, "a crash leaves nothing behind")
        var other = SimulatedStorage(slotCount: Int(slotCount), members: members, bugs: bugs)
        other.promised = promised
        other.established = established
        other.slots = slots.copy()
        other.floor = floor
        return other
    }

    // MARK: Damage

    private enum Damage {
        case promise
        case vote(Instance)
    }

    /// A bit flips in a vote that was fenced, or in the promise, if there is one: in a vote that matters most, one
    /// above what is executed, where there are any.
    mutating func flipBit(above executed: Instance, random: inout SimulationRandom) {
        let votes = (floor..<floor + slotCount).filter { slots[place($0)].view > 0 }
        let open = votes.filter { $0 > executed && slots[place($0)].view != decidedView }
        if promised > 0 && random.chance(perMille: 200) {
            damage = .promise
        } else if let vote = (open.isEmpty ? votes : open).randomElement(using: &random) {
            damage = .vote(vote)
        }
    }

    var isDamaged: Bool { damage != nil }

    /// Planted bug: what was fenced passes for what was being written.
    mutating func dropDamaged() {
        switch damage {
        case .promise: promised = 0
        case .vote(let instance): slots[place(instance)] = .empty
        case nil: break
        }
        damage = nil
    }

    // MARK: Lives of the core

    /// Record numbers begin anew with each life of the core. A vote, or an established view, that outlived its promise
    /// in the crash brings it back, as in the node's storage: before the vote is dropped.
    mutating func reopen() {
        invariant(pending.isEmpty, "a crash leaves nothing behind")
        durable = 0
        promised = max(promised, established?.view ?? 0)
        for slot in slots.elements where slot.view != decidedView { promised = max(promised, slot.view) }
    }

    mutating func trim(to newFloor: Instance, executed: Instance) {
        invariant(newFloor <= executed + 1, "only what is executed is trimmed")
        while floor < newFloor {
            slots[place(floor)] = .empty
            floor += 1
        }
    }

    /// The state of another replica takes the place of this one's. The promise first: what is in the state was decided
    /// in a view not above the giver's.
    mutating func install(executed: Instance, promised giversPromise: View) {
        invariant(pending.isEmpty, "a transfer is for a stopped replica")
        promised = max(promised, giversPromise)
        let newFloor = executed + 1
        if newFloor >= floor + slotCount {
            slots.elements.update(repeating: .empty)
            floor = newFloor
        } else {
            trim(to: newFloor, executed: executed)
        }
    }

    private mutating func apply(_ record: Record) {
        switch record.kind {
        case .promise: promised = max(promised, record.view)
        case .established: established = EstablishedView(view: record.view, base: record.instance)
        case .accept:
            if fits(record.instance) { slots[place(record.instance)] = Slot(view: record.view, batch: record.batch) }
        }
    }
}
