/// How a run stands, about once a second.
package struct BenchProgress: Sendable {
    package enum Phase: String, Sendable {
        case opening, warmup, measuring, closing
    }

    package let phase: Phase
    /// Seconds since the phase began.
    package let elapsed: Double
    /// Completed requests a second, since the last report.
    package let rate: Double
    /// Latency since the last report, microseconds; 0 when nothing completed.
    package let p50: Double
    package let p99: Double
    /// Sessions open by now.
    package let sessions: Int
    package let counts: BenchCounts
}

/// What happened besides success. All since the run began but for `errors`, which starts anew with the measurement.
package struct BenchCounts: Sendable, Equatable {
    /// Requests that ended otherwise than with OK and a reply that belongs to them.
    package var errors = 0
    package var busy = 0
    package var noLeader = 0
    package var redirects = 0
    /// Requests sent again because no reply came in time.
    package var timeouts = 0
    /// Connections lost, or given up for another replica, after they had stood.
    package var disconnects = 0
    /// Sessions that had to be opened again.
    package var expired = 0
    /// Replies that belonged to no outstanding request: the second answer to a retried one.
    package var unexpected = 0

    package init() {}
}

/// What was measured. Latencies in microseconds.
package struct BenchResult: Sendable {
    /// Completed requests a second.
    package var rate: Double
    package var p50: Double
    package var p90: Double
    package var p99: Double
    package var p999: Double
    package var max: Double
    package var mean: Double
    package var completed: UInt64
    package var seconds: Double
    /// CPU time of all replica processes together, per request; nil unless all that answered run on this host.
    package var replicaProcessorTime: Double?
    /// CPU time of this process, per request.
    package var generatorProcessorTime: Double
    package var counts: BenchCounts

    /// One object in one line.
    package var json: String {
        let fields: [(String, String)] = [
            ("rate", Self.text(rate)),
            ("p50_us", Self.text(p50)),
            ("p90_us", Self.text(p90)),
            ("p99_us", Self.text(p99)),
            ("p999_us", Self.text(p999)),
            ("max_us", Self.text(max)),
            ("mean_us", Self.text(mean)),
            ("errors", "\(counts.errors)"),
            ("seconds", Self.text(seconds)),
            ("completed", "\(completed)"),
            ("replica_cpu_us", replicaProcessorTime.map(Self.text) ?? "null"),
            ("generator_cpu_us", Self.text(generatorProcessorTime)),
            ("busy", "\(counts.busy)"),
            ("no_leader", "\(counts.noLeader)"),
            ("redirects", "\(counts.redirects)"),
            ("timeouts", "\(counts.timeouts)"),
            ("disconnects", "\(counts.disconnects)"),
            ("expired", "\(counts.expired)"),
        ]
        return "{" + fields.map { "\"\($0)\":\($1)" }.joined(separator: ",") + "}"
    }

    /// With three decimals at most; JSON knows no infinities.
    private static func text(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        let rounded = (value * 1000).rounded() / 1000
        return rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int64(rounded))" : "\(rounded)"
    }
}
