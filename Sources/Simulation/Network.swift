import MPaxosConsensus

/// Decides whether and when messages arrive.
struct Network: ~Copyable {
    private let count: Int
    /// How many partitions block the way from a to b, at a * count + b.
    private var blocks: Buffer<Int>
    /// The ways that each partition blocks.
    private var partitions: [UInt64: [Int]] = [:]
    private var nextPartition: UInt64 = 0
    /// Kinds of messages that do not get from one replica, or to another; -1: any.
    struct Mute: BitwiseCopyable {
        var number: UInt64
        var from: ReplicaIndex
        var to: ReplicaIndex
        var kinds: UInt16
    }
    private var mutes = Buffer<Mute>()
    var plan: FaultPlan

    init(count: Int, plan: FaultPlan) {
        self.count = count
        self.plan = plan
        blocks = Buffer(repeating: 0, count: count * count)
    }

    @inline(__always) func isOpen(from: ReplicaIndex, to: ReplicaIndex) -> Bool { blocks[from * count + to] == 0 }

    /// Delays of the copies of one message: none when it is lost, two when it is duplicated.
    mutating func deliveries(
        of kind: Message.Kind, from: ReplicaIndex, to: ReplicaIndex, random: inout SimulationRandom
    ) -> (Microseconds?, Microseconds?) {
        guard isOpen(from: from, to: to) && !isMuted(kind, from: from, to: to) else { return (nil, nil) }
        if plan.loss > 0 && random.chance(perMille: plan.loss) { return (nil, nil) }
        let first = delay(random: &random)
        if plan.duplication > 0 && random.chance(perMille: plan.duplication) { return (first, delay(random: &random)) }
        return (first, nil)
    }

    @inline(__always) private func isMuted(_ kind: Message.Kind, from: ReplicaIndex, to: ReplicaIndex) -> Bool {
        for mute in mutes.elements
        where (mute.from < 0 || mute.from == from) && (mute.to < 0 || mute.to == to)
            && mute.kinds >> UInt16(kind.rawValue) & 1 != 0
        { return true }
        return false
    }

    @inline(__always) func delay(random: inout SimulationRandom) -> Microseconds {
        var delay = plan.delay
        if plan.jitter > 0 { delay += random.below(plan.jitter) }
        if plan.straggle > 0 && random.chance(perMille: plan.stragglers) { delay += random.below(plan.straggle) }
        return delay
    }

    /// Blocks all ways for which `isBlocked` holds. Returns the number of the partition.
    mutating func block(_ isBlocked: (_ from: ReplicaIndex, _ to: ReplicaIndex) -> Bool) -> UInt64 {
        nextPartition += 1
        var ways: [Int] = []
        for from in 0..<count {
            for to in 0..<count where from != to && isBlocked(from, to) { ways.append(from * count + to) }
        }
        for way in ways { blocks[way] += 1 }
        partitions[nextPartition] = ways
        return nextPartition
    }

    /// Loses all messages of some kinds, by their raw values' bits. Returns a number as for a partition.
    mutating func mute(_ kinds: UInt16, from: ReplicaIndex, to: ReplicaIndex) -> UInt64 {
        nextPartition += 1
        mutes.append(Mute(number: nextPartition, from: from, to: to, kinds: kinds))
        return nextPartition
    }

    mutating func heal(_ partition: UInt64) {
        var kept = 0
        for mute in mutes.elements where mute.number != partition {
            mutes[kept] = mute
            kept += 1
        }
        mutes.truncate(to: kept)
        guard let ways = partitions.removeValue(forKey: partition) else { return }
        for way in ways { blocks[way] -= 1 }
    }

    mutating func healAll() {
        partitions.removeAll()
        mutes.removeAll()
        blocks.elements.update(repeating: 0)
    }
}
