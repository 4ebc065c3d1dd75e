import MPaxosConsensus

/// The links of a run: the ways, and what waits for them.
struct Links: ~Copyable {
    let count: Int
    private(set) var plan: LinkPlan
    let ways: UnsafeMutablePointer<Way>
    let outboxes: UnsafeMutablePointer<Outbox>
    var repetitions: Repetitions
    /// Replicas that have something to tell their core of the room on their links, and to which peers, a bit each.
    private(set) var changed: UInt16 = 0
    private var changedPeers: Buffer<UInt16>
    /// Until when the narrowest place of each way is busy.
    private var busyUntil: Buffer<Microseconds>
    /// When all that was handed to each way is through that.
    private var through: Buffer<Microseconds>

    init(count: Int, plan: LinkPlan) {
        self.count = count
        self.plan = plan
        ways = .allocate(capacity: count * count)
        outboxes = .allocate(capacity: count * count)
        for place in 0..<count * count {
            (ways + place).initialize(to: Way())
            (outboxes + place).initialize(to: Outbox())
        }
        repetitions = Repetitions(ways: count * count)
        changedPeers = Buffer(repeating: 0, count: count)
        busyUntil = Buffer(repeating: 0, count: count * count)
        through = Buffer(repeating: 0, count: count * count)
    }

    deinit {
        ways.deinitialize(count: count * count)
        outboxes.deinitialize(count: count * count)
        ways.deallocate()
        outboxes.deallocate()
    }

    @inline(__always) func place(_ from: ReplicaIndex, _ to: ReplicaIndex) -> Int { from * count + to }

    private func narrowPlace(_ place: Int) -> Int { plan.isShared ? place / count : place }

    private func rate(_ place: Int, now: Microseconds) -> UInt64 {
        now < ways[place].slowUntil ? max(plan.rates[place] / 10, 1) : plan.rates[place]
    }

    /// When a way that pushes back takes something again; nil: it does not.
    func pushesBack(_ place: Int, now: Microseconds) -> Microseconds? {
        guard plan.bound < .max && through[place] > now else { return nil }
        let allowed = UInt64(plan.bound) * 1_000_000 / rate(place, now: now)
        return through[place] > now + allowed ? through[place] - allowed : nil
    }

    /// When the last of `bytes` that are handed to a way now is through its narrowest place.
    mutating func carry(_ bytes: Int, on place: Int, now: Microseconds) -> Microseconds {
        let narrow = narrowPlace(place)
        busyUntil[narrow] = max(busyUntil[narrow], now) + max(UInt64(bytes) * 1_000_000 / rate(place, now: now), 1)
        through[place] = busyUntil[narrow]
        return busyUntil[narrow]
    }

    mutating func setDelay(_ delay: Microseconds) {
        for place in plan.delays.indices { plan.delays[place] = delay }
    }

    mutating func noteChange(_ from: ReplicaIndex, _ to: ReplicaIndex) {
        changed |= 1 << UInt16(from)
        changedPeers[from] |= 1 << UInt16(to)
    }

    /// The peers of a replica whose room changed, which is noted no more.
    mutating func takeChanges(of index: ReplicaIndex) -> UInt16 {
        changed &= ~(1 << UInt16(index))
        defer { changedPeers[index] = 0 }
        return changedPeers[index]
    }

    /// A replica's memory is gone, and what waited in it.
    mutating func forget(_ index: ReplicaIndex) {
        for peer in 0..<count { outboxes[place(index, peer)] = Outbox() }
        _ = takeChanges(of: index)
    }
}
