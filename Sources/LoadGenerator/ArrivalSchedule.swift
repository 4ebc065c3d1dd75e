import MPaxosInvariants

/// When the requests of an open loop are meant to start.
struct ArrivalSchedule {
    private let origin: UInt64
    private let interval: Double
    private var issued: UInt64 = 0

    /// - Parameters:
    ///   - rate: requests a second.
    ///   - origin: nanoseconds at which the first is due.
    init(rate: Double, origin: UInt64) {
        invariant(rate > 0, "a schedule has a rate")
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
