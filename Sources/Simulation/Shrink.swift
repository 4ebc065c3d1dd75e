/// The search for a shorter run of a seed that fails: with fewer faults, fewer clients, a shorter phase with faults. To
/// leave one fault out changes all that comes after it, so each attempt is a run of its own, and any failure will do.
package struct Shrink {
    private let seed: UInt64
    private let deadline: ContinuousClock.Instant
    package private(set) var options: SimulationOptions
    /// Of the best run so far.
    package private(set) var report: SimulationReport
    package private(set) var attempts = 0
    private var faults: [Int]

    /// Nil when the seed does not fail.
    package init?(seed: UInt64, options: SimulationOptions, limit: Duration = .seconds(20)) {
        self.seed = seed
        self.options = options
        deadline = .now + limit
        report = Simulator(seed: seed, options: options).run()
        faults = Array(0..<report.faults).map { $0 + 1 }
        guard report.failure != nil else { return nil }
        leaveOutFaults()
        leaveOutClients()
        shorten()
        leaveOutFaults()
    }

    private mutating func fails(_ change: (inout SimulationOptions) -> Void) -> Bool {
        guard ContinuousClock.now < deadline else { return false }
        attempts += 1
        var changed = options
        change(&changed)
        let changedReport = Simulator(seed: seed, options: changed).run()
        guard changedReport.failure != nil else { return false }
        options = changed
        report = changedReport
        return true
    }

    /// Delta debugging: halves, then quarters, down to single faults.
    private mutating func leaveOutFaults() {
        // What was drawn after the failure never happened.
        faults.removeAll { $0 > report.faults }
        var size = faults.count
        while size > 0 {
            var first = 0
            while first < faults.count {
                var fewer = faults
                fewer.removeSubrange(first..<min(first + size, faults.count))
                if fails({ $0.faults = Set(fewer) }) { faults = fewer } else { first += size }
            }
            size /= 2
        }
    }

    private mutating func leaveOutClients() {
        for count in 1...3 where fails({ $0.clientLimit = count }) { return }
    }

    private mutating func shorten() {
        while options.duration > 10_000 && fails({ $0.duration /= 2 }) {}
    }
}
