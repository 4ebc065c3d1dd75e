import MPaxosConsensus

/// What the links of one run are like: as TCP they lose nothing and keep the order, but they take their time.
struct LinkPlan {
    /// The times that a window is made for are those of a leader that is suspected after 300 ms. Where that is sooner,
    /// the clocks of the windows run faster by this.
    var pace: UInt64 = 1
    /// Bytes a second of each way, at from * count + to.
    var rates: [UInt64] = []
    var delays: [Microseconds] = []
    /// Added to the delay by chance, up to this much.
    var jitter: Microseconds = 0
    /// Bytes that a way takes before it pushes back; `.max`: it takes all.
    var bound = Int.max
    /// All that a replica sends goes through one narrow place.
    var isShared = false
    /// The largest batch, in bytes.
    var largestBatch: UInt32 = 0

    /// The lowest rate at which a heartbeat is in time behind what a window has under way at first, for each `suspect`.
    static let leastBytesPerSuspect: UInt64 = 320 << 10

    init() {}

    init(random: inout SimulationRandom, count: Int, suspect: Microseconds) {
        pace = max(1, 300_000 / suspect)
        let perSuspect = Self.leastBytesPerSuspect << random.below(8)
        let isEven = random.chance(perMille: 500)
        let delay = 20 + random.below(random.chance(perMille: 500) ? suspect / 5 : 200)
        isShared = random.chance(perMille: 250)
        if random.chance(perMille: 600) { jitter = 1 + random.below(suspect / 10) }
        if random.chance(perMille: 500) { bound = (16 << 10) << random.index(7) }
        for _ in 0..<count * count {
            let times: UInt64 = isEven || isShared ? 1 : 1 << random.below(4)
            rates.append(max(perSuspect * times * 1_000_000 / suspect, 1))
            delays.append(isEven ? delay : 20 + random.below(2 * delay))
        }
        if isShared {
            // What a heartbeat may wait for is under way to all others together.
            for place in rates.indices { rates[place] *= UInt64(count - 1 > 0 ? count - 1 : 1) }
        }
        // From next to nothing to what takes far longer than a leader may be silent.
        let most = min(4 << 20, perSuspect * (1 + random.below(12)))
        largestBatch = UInt32(max(64, most >> random.below(12)))
    }

    /// Bytes of a batch: mostly small.
    func batchLength(random: inout SimulationRandom) -> UInt32 {
        let largest = UInt64(largestBatch)
        switch random.below(20) {
        case 0: return UInt32(1 + random.below(largest))
        case 1..<6: return UInt32(1 + random.below(largest / 32 + 1))
        default: return 8
        }
    }

    var lowestRate: UInt64 { rates.min() ?? 1 }
}
