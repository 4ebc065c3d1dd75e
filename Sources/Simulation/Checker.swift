import MPaxosConsensus

/// A run that broke what the protocol promises.
package struct SimulationFailure: Error, CustomStringConvertible {
    package var seed: UInt64
    package var time: Microseconds
    package var what: String

    package init(seed: UInt64, time: Microseconds, what: String) {
        self.seed = seed
        self.time = time
        self.what = what
    }

    package var description: String { "seed \(seed), \(time) us: \(what)" }
}

/// What all replicas together did, over their whole lives: the memory against which each step is checked.
struct Checker: ~Copyable {
    private static let unknown = UInt32.max

    /// The decided batch of each instance, at its number - 1. Batches are compared by their numbers: handles are each
    /// replica's own.
    private var decided = Buffer<UInt32>(capacity: 1024)
    /// By instance: values that somebody knew to be decided before all those below were known.
    private var marked = Buffer<UInt32>(capacity: 1024)
    private var proposals = ProposalTable()
    /// Where each batch was decided, by its number; the no-op aside.
    private var places = Buffer<Instance>(capacity: 1024)
    private let count: Int
    /// For each replica: the highest view in a Promise that left it, and the highest view in which it said to have
    /// accepted each instance, all replicas' for one instance side by side.
    private var promised: [View]
    private var accepted = Buffer<View>(capacity: 4096)
    private var acknowledged: [(view: View, through: Instance)]
    /// How far each replica's decisions were compared.
    private(set) var compared: [Instance]

    init(count: Int) {
        promised = [View](repeating: 0, count: count)
        self.count = count
        acknowledged = Array(repeating: (view: 0, through: 0), count: count)
        compared = [Instance](repeating: 0, count: count)
    }

    var highestDecided: Instance { Instance(decided.count) }

    /// What was decided for `instance`, `unknown` when nobody is known to know.
    private func value(of instance: Instance) -> UInt32 {
        if instance <= highestDecided { return decided[Int(instance - 1)] }
        return instance < marked.count ? marked[Int(instance)] : Self.unknown
    }

    /// Whether a batch numbered `batch` or higher is decided for `instance` or a later one.
    func hasDecided(from instance: Instance, batch: UInt32) -> Bool {
        guard instance <= highestDecided else { return false }
        for place in Int(instance - 1)..<decided.count where decided[place] >= batch { return true }
        return false
    }

    func batch(of instance: Instance) -> UInt32 { decided[Int(instance - 1)] }

    private mutating func decide(_ batch: UInt32) -> String? {
        decided.append(batch)
        guard batch != 0 else { return nil }
        places.reach(Int(batch), filling: 0)
        guard places[Int(batch)] == 0 else {
            return "batch \(batch) is decided for \(places[Int(batch)]) and for \(highestDecided)"
        }
        places[Int(batch)] = highestDecided
        return nil
    }

    /// A message leaves: from now on it binds its sender.
    mutating func sent(_ message: Message, by replica: ReplicaIndex) -> String? {
        switch message.kind {
        case .promise:
            promised[replica] = max(promised[replica], message.view)
        case .accepted:
            promised[replica] = max(promised[replica], message.view)
            var from = message.bound
            if acknowledged[replica].view == message.view { from = max(from, acknowledged[replica].through) }
            if message.view >= acknowledged[replica].view && message.instance > from {
                acknowledged[replica] = (message.view, message.instance)
                for instance in (from + 1)...message.instance { binds(replica, instance, message.view) }
            }
        case .accept:
            promised[replica] = max(promised[replica], message.view)
            binds(replica, message.instance, message.view)
            let batch = message.batch.checksum
            let first = proposals.first(batch, view: message.view, instance: message.instance)
            if first != batch {
                return "replica \(replica) proposed \(first) and \(batch) for \(message.instance) in \(message.view)"
            }
        default: break
        }
        return nil
    }

    private mutating func binds(_ replica: ReplicaIndex, _ instance: Instance, _ view: View) {
        let place = Int(instance) * count + replica
        accepted.reach(place, filling: 0)
        if accepted[place] < view { accepted[place] = view }
    }

    /// After a step: what the replica decided anew agrees with all others, and is durable.
    mutating func compare(_ replica: ReplicaIndex, _ core: borrowing Core, _ storage: borrowing SimulatedStorage)
        -> String?
    {
        while compared[replica] < core.decided {
            let instance = compared[replica] + 1
            guard let entry = core.entry(at: instance), entry.isDecided else {
                return "replica \(replica) decided \(instance) without a value"
            }
            let batch = entry.batch.checksum
            if instance <= highestDecided {
                guard decided[Int(instance - 1)] == batch else {
                    return "replica \(replica) decided \(batch) for \(instance), others \(decided[Int(instance - 1)])"
                }
            } else {
                let known = value(of: instance)
                guard known == batch || known == Self.unknown else {
                    return "replica \(replica) decided \(batch) for \(instance), others \(known)"
                }
                if let twice = decide(batch) { return twice }
            }
            guard storage[instance].view > 0 && storage[instance].batch == entry.batch else {
                return "replica \(replica) decided \(instance) before it was durable"
            }
            compared[replica] = instance
        }
        return nil
    }

    /// Before a crash, and at the end: entries known to be decided agree, also those that `compare` has not come to:
    /// the ones beyond a gap, and those of a step that a crash cuts short.
    mutating func compareMarks(_ replica: ReplicaIndex, _ core: borrowing Core) -> String? {
        var instance = compared[replica] + 1
        while instance <= core.highest {
            if let entry = core.entry(at: instance), entry.isDecided {
                let batch = entry.batch.checksum
                let known = value(of: instance)
                guard known == batch || known == Self.unknown else {
                    return "replica \(replica) holds \(batch) as decided for \(instance), others \(known)"
                }
                marked.reach(Int(instance), filling: Self.unknown)
                marked[Int(instance)] = batch
            }
            instance += 1
        }
        return nil
    }

    /// After a crash: nothing that a message told is lost.
    mutating func recovered(
        _ replica: ReplicaIndex, _ storage: borrowing SimulatedStorage, executed: Instance, slotCount: Int
    ) -> String? {
        var highest = storage.promised
        var instance = storage.floor
        while instance < storage.floor + UInt64(slotCount) {
            let slot = storage[instance]
            if slot.view != decidedView { highest = max(highest, slot.view) }
            let place = Int(instance) * count + replica
            let told = place < accepted.count ? accepted[place] : 0
            if told > 0 && instance > executed {
                guard slot.view > 0 else { return "replica \(replica) lost its acceptance of \(instance) in \(told)" }
                guard slot.view >= told || value(of: instance) == slot.batch.checksum else {
                    return "replica \(replica) fell back to view \(slot.view) from \(told) for \(instance)"
                }
            }
            instance += 1
        }
        guard highest >= promised[replica] else {
            return "replica \(replica) forgot its promise of \(promised[replica]), knows \(highest)"
        }
        if executed < compared[replica] { compared[replica] = executed }
        return nil
    }

    /// A state transfer brought the replica here.
    mutating func installed(_ replica: ReplicaIndex, executed: Instance) { compared[replica] = executed }

    /// Whatever the replica said was forgotten with its pools. Only what follows from that is held against it.
    mutating func forget(_ replica: ReplicaIndex) {
        promised[replica] = 0
        var place = replica
        while place < accepted.count {
            accepted[place] = 0
            place += count
        }
        acknowledged[replica] = (view: 0, through: 0)
        compared[replica] = 0
    }
}
