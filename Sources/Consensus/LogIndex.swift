import MPaxosInvariants

/// The core's view of one log entry.
package struct Entry: BitwiseCopyable, Hashable, Sendable {
    /// The view in which it was last accepted; `decidedView` when it was learnt as decided; 0: there is no entry.
    package internal(set) var view: View
    package internal(set) var batch: Batch
    /// The record that makes the entry durable.
    package internal(set) var record: LogSequenceNumber
    /// Whether `batch` is known to be the decided value. Once set it stays.
    package internal(set) var isDecided: Bool

    static var none: Entry { Entry(view: 0, batch: .noop, record: 0, isDecided: false) }

    /// The accepted view as a promise reports it.
    var reportedView: View { isDecided ? decidedView : view }
}

/// The log in DRAM: a ring of entries for the instances in floor ..< floor + slotCount, allocated at the start. Entries
/// need no tags: within that range a place belongs to one instance, and places are cleared as the floor passes them.
struct LogIndex: ~Copyable {
    private let slots: UnsafeMutablePointer<Entry>
    let slotCount: UInt64
    /// The ring has a power of two of places, perhaps more than are used.
    private let mask: UInt64
    /// The lowest instance that may be present.
    private(set) var floor: Instance
    /// The highest instance that was ever present, or floor - 1.
    private(set) var highest: Instance

    init(slotCount: Int, floor: Instance) {
        invariant(slotCount > 0, "a log has slots")
        invariant(floor >= 1, "instances begin at 1")
        self.slotCount = UInt64(slotCount)
        self.floor = floor
        highest = floor - 1
        var places = 1
        while places < slotCount { places *= 2 }
        mask = UInt64(places - 1)
        slots = .allocate(capacity: places)
        slots.initialize(repeating: .none, count: places)
    }

    deinit { slots.deallocate() }

    /// The first instance that has no slot.
    var end: Instance { floor + slotCount }

    func fits(_ instance: Instance) -> Bool { instance >= floor && instance < end }

    private func place(_ instance: Instance) -> Int { Int(truncatingIfNeeded: instance & mask) }

    /// The entry of an instance; `.none` where it is absent, or out of range.
    subscript(_ instance: Instance) -> Entry {
        guard fits(instance) else { return .none }
        return slots[place(instance)]
    }

    mutating func set(_ instance: Instance, _ entry: Entry) {
        invariant(fits(instance), "an entry is put within the log")
        invariant(entry.view > 0, "an entry has a view")
        slots[place(instance)] = entry
        if instance > highest { highest = instance }
    }

    mutating func markDecided(_ instance: Instance) {
        invariant(fits(instance), "a decided entry is within the log")
        invariant(slots[place(instance)].view > 0, "a decided entry has a value")
        slots[place(instance)].isDecided = true
    }

    mutating func advanceFloor(to newFloor: Instance) {
        invariant(newFloor >= floor, "the floor only rises")
        if newFloor - floor >= slotCount {
            slots.update(repeating: .none, count: Int(mask + 1))
        } else {
            while floor < newFloor {
                slots[place(floor)] = .none
                floor += 1
            }
        }
        floor = newFloor
        if highest < newFloor - 1 { highest = newFloor - 1 }
    }
}
