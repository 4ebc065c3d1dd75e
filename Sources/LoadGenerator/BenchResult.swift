/// How a run stands, once an interval.
package struct BenchProgress: Sendable {
    package enum Phase: String, Sendable {
        case opening, warmup, measuring, closing
    }

    package let phase: Phase
    /// Of a ramp: which step, from 0.
    package let step: Int
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

/// What happened besides success: since the run began, but for errors, in the figures of a whole run; in that time
/// alone in those of a step or an interval.
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
    /// Connections that stood again.
    package var reconnects = 0
    /// Sessions that had to be opened again.
    package var expired = 0
    /// Replies that belonged to no outstanding request: the second answer to a retried one.
    package var unexpected = 0

    package init() {}

    func since(_ before: BenchCounts) -> BenchCounts {
        var difference = BenchCounts()
        for field in BenchCounts.fields { difference[keyPath: field] = self[keyPath: field] - before[keyPath: field] }
        return difference
    }

    private static var fields: [WritableKeyPath<BenchCounts, Int>] {
        [\.errors, \.busy, \.noLeader, \.redirects, \.timeouts, \.disconnects, \.reconnects, \.expired, \.unexpected]
    }

    /// All but the errors, which stand elsewhere.
    func write(to object: inout JSONText) {
        object.add("busy", busy)
        object.add("no_leader", noLeader)
        object.add("redirects", redirects)
        object.add("timeouts", timeouts)
        object.add("disconnects", disconnects)
        object.add("reconnects", reconnects)
        object.add("expired", expired)
    }
}

/// One stretch of the measured time.
package struct BenchInterval: Sendable {
    package var step: Int
    /// Seconds since the measurement of the first step began, at the end of the interval; warm-ups between steps
    /// included.
    package var at: Double
    package var seconds: Double
    package var completed: UInt64
    /// Microseconds; 0 when nothing completed.
    package var p50: Double
    package var p99: Double
    package var max: Double
    package var counts: BenchCounts

    package var rate: Double { Double(completed) / seconds }

    var json: JSONText {
        var object = JSONText()
        object.add("at", at)
        object.add("seconds", seconds)
        object.add("step", step)
        object.add("rate", rate)
        object.add("p50_us", p50)
        object.add("p99_us", p99)
        object.add("max_us", max)
        object.add("errors", counts.errors)
        counts.write(to: &object)
        return object
    }
}

/// What was measured in a step, or in all steps together. Latencies in microseconds.
package struct BenchFigures: Sendable {
    /// Requests a second that were to start, in an open loop; clients, in a closed one. Of all steps together: the
    /// last.
    package var level: Double
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
    /// CPU time of all replica processes together, per request; nil unless all that answered run on this host, and
    /// lived.
    package var replicaProcessorTime: Double?
    /// The same of each replica by its id; nil for one that is elsewhere or died.
    package var processorTimes: [(replica: Int, time: Double?)]
    /// CPU time of this process, per request.
    package var generatorProcessorTime: Double
    package var counts: BenchCounts

    var json: JSONText {
        var object = JSONText()
        object.add("rate", rate)
        object.add("p50_us", p50)
        object.add("p90_us", p90)
        object.add("p99_us", p99)
        object.add("p999_us", p999)
        object.add("max_us", max)
        object.add("mean_us", mean)
        object.add("errors", counts.errors)
        object.add("seconds", seconds)
        object.add("completed", Int(completed))
        object.add("replica_cpu_us", replicaProcessorTime)
        object.add("generator_cpu_us", generatorProcessorTime)
        counts.write(to: &object)
        object.add(
            "replicas",
            processorTimes.map { replica, time in
                var entry = JSONText()
                entry.add("id", replica)
                entry.add("cpu_us", time)
                return entry
            })
        return object
    }
}

/// The outcome of a run.
package struct BenchResult: Sendable {
    /// All steps together.
    package var total: BenchFigures
    /// One, or those of a ramp.
    package var steps: [BenchFigures]
    package var series: [BenchInterval]
    /// Points of the distribution of all latencies, ever denser towards its end: share of requests in percent,
    /// microseconds.
    package var distribution: [(percentile: Double, latency: Double)]

    /// One object in one line: the figures of all steps together, and in arrays what they are made of.
    package var json: String {
        var object = total.json
        object.add(
            "steps",
            steps.map { step in
                var entry = step.json
                entry.add("level", step.level)
                return entry
            })
        object.add("series", series.map(\.json))
        object.add(
            "percentiles",
            distribution.map { percentile, latency in
                var entry = JSONText()
                entry.add("percent", percentile)
                entry.add("us", latency)
                return entry
            })
        return object.text
    }
}
