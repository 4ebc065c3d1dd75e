import Histogram

/// What one step of a run measured, or several together.
struct Tally {
    var latencies = LoadLoop.emptyHistogram()
    var counts = BenchCounts()
    var completed: UInt64 = 0
    var elapsed: UInt64 = 0
    /// CPU nanoseconds of this process.
    var own: UInt64 = 0
    /// The same of each replica; nil when it isn't known.
    var replicas: [UInt64?]

    mutating func add(_ other: Tally) {
        latencies.add(other.latencies)
        counts = counts.since(BenchCounts().since(other.counts))
        completed += other.completed
        elapsed += other.elapsed
        own += other.own
        for index in replicas.indices {
            if let sum = replicas[index], let more = other.replicas[index] {
                replicas[index] = sum + more
            } else {
                replicas[index] = nil
            }
        }
    }

    func figures(_ level: Double, replicas ids: [Int]) -> BenchFigures {
        let requests = Double(max(1, completed))
        let times = replicas.map { $0.map { Double($0) / 1000 / requests } }
        let areKnown = !times.isEmpty && times.allSatisfy { $0 != nil }
        return BenchFigures(
            level: level, rate: Double(completed) * 1e9 / Double(max(1, elapsed)),
            p50: latencies.microseconds(50), p90: latencies.microseconds(90), p99: latencies.microseconds(99),
            p999: latencies.microseconds(99.9), max: latencies.microseconds(100),
            mean: latencies.totalCount == 0 ? 0 : latencies.mean / 1000, completed: completed,
            seconds: Double(elapsed) / 1e9,
            replicaProcessorTime: areKnown ? times.reduce(0) { $0 + $1! } : nil,
            processorTimes: zip(ids, times).map { ($0, $1) },
            generatorProcessorTime: Double(own) / 1000 / requests, counts: counts)
    }
}

/// Time and CPU from when it is made until `end`.
struct Measurement {
    private let processes: [Int32?]
    private let start = MonotonicClock.now()
    private let ownStart = ProcessorTime.own()
    private let replicasStart: [UInt64?]
    private let completedBefore: UInt64
    private let countsBefore: BenchCounts

    init(_ processes: [Int32?], _ loop: borrowing LoadLoop) {
        self.processes = processes
        replicasStart = processes.map { $0.flatMap(ProcessorTime.of) }
        completedBefore = loop.completed
        countsBefore = loop.counts
    }

    /// All but the latencies, which the reporter gathers.
    func end(_ loop: borrowing LoadLoop) -> Tally {
        let elapsed = max(1, MonotonicClock.now() - start)
        var replicas: [UInt64?] = []
        for (process, before) in zip(processes, replicasStart) {
            let after = process.flatMap(ProcessorTime.of)
            if let before, let after, after >= before { replicas.append(after - before) } else { replicas.append(nil) }
        }
        return Tally(
            counts: loop.counts.since(countsBefore), completed: loop.completed - completedBefore, elapsed: elapsed,
            own: ProcessorTime.own() - ownStart, replicas: replicas)
    }
}

extension Histogram<UInt64> {
    /// A percentile of nanoseconds in microseconds; 0 when nothing was recorded.
    func microseconds(_ percentile: Double) -> Double {
        guard totalCount > 0 else { return 0 }
        return Double(percentile >= 100 ? max : valueAtPercentile(percentile)) / 1000
    }
}
