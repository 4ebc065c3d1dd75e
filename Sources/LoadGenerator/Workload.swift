/// What the next request is. Reproducible from its seed.
struct Workload {
    private var state: UInt64
    private let keys: UInt64
    /// A draw below this is a read.
    private let readThreshold: UInt64
    private let readsOnly: Bool

    init(_ configuration: BenchConfiguration) {
        // Any seed but zero will do for xorshift; neighbouring seeds shall not give neighbouring streams.
        state = (configuration.seed &+ 1) &* 0x9E37_79B9_7F4A_7C15 | 1
        keys = configuration.keys
        readsOnly = configuration.readShare >= 1
        readThreshold = readsOnly ? .max : UInt64(configuration.readShare * 0x1p64)
    }

    mutating func nextIsRead() -> Bool {
        readsOnly || readThreshold > 0 && draw() < readThreshold
    }

    mutating func nextKey() -> UInt64 {
        // The high half of the product is uniform below `keys`.
        draw().multipliedFullWidth(by: keys).high
    }

    private mutating func draw() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state &* 0x2545_F491_4F6C_DD1D
    }
}

/// When the requests of an open loop are meant to start.
struct ArrivalSchedule {
    private let origin: UInt64
    private let interval: Double
    private var issued: UInt64 = 0

    /// - Parameters:
    ///   - rate: requests a second.
    ///   - origin: nanoseconds at which the first is due.
    init(rate: Double, origin: UInt64) {
        precondition(rate > 0, "a schedule needs a rate")
        interval = 1e9 / rate
        self.origin = origin
    }

    /// Nanoseconds at which the next request is due. Computed from its number, so that errors don't add up.
    var next: UInt64 { origin + UInt64(Double(issued) * interval) }

    mutating func take() -> UInt64 {
        defer { issued += 1 }
        return next
    }
}
