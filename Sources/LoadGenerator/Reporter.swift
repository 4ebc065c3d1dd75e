import Histogram

/// Gathers latencies: what came since the last report, and all.
struct Reporter {
    var total = LoadLoop.emptyHistogram()
    private var phaseStart: UInt64 = 0
    private var last: UInt64 = 0
    private var lastCompleted: UInt64 = 0
    /// Nanoseconds at which the next report is due.
    private(set) var due: UInt64 = 0

    mutating func begin(_ completed: UInt64, now: UInt64) {
        phaseStart = now
        last = now
        lastCompleted = completed
        due = now + 1_000_000_000
    }

    /// Takes over the latencies that the loop has gathered.
    mutating func collect(_ loop: inout LoadLoop) {
        total.add(loop.latencies)
        loop.latencies.reset()
    }

    mutating func report(_ phase: BenchProgress.Phase, _ loop: inout LoadLoop, _ progress: (BenchProgress) -> Void) {
        let now = MonotonicClock.now()
        progress(
            BenchProgress(
                phase: phase, elapsed: Double(now - phaseStart) / 1e9,
                rate: now > last ? Double(loop.completed - lastCompleted) * 1e9 / Double(now - last) : 0,
                p50: Measurement.microseconds(loop.latencies, 50), p99: Measurement.microseconds(loop.latencies, 99),
                sessions: loop.openSessions, counts: loop.counts))
        collect(&loop)
        last = now
        lastCompleted = loop.completed
        due = now + 1_000_000_000
    }
}

/// Time and CPU between two moments.
struct Measurement {
    private let processes: [Int32]?
    private let start = MonotonicClock.now()
    private let ownStart = ProcessorTime.own()
    private let replicasStart: UInt64?
    private let completedBefore: UInt64
    private var completed: UInt64 = 0
    private var elapsed: UInt64 = 1
    private var own: UInt64 = 0
    private var replicas: UInt64?

    init(_ processes: [Int32]?, startingWith completed: UInt64) {
        self.processes = processes
        replicasStart = processes.flatMap(ProcessorTime.of)
        completedBefore = completed
    }

    mutating func end(completed: UInt64) {
        elapsed = max(1, MonotonicClock.now() - start)
        own = ProcessorTime.own() - ownStart
        if let before = replicasStart, let after = processes.flatMap(ProcessorTime.of), after >= before {
            replicas = after - before
        }
        self.completed = completed - completedBefore
    }

    func result(_ latencies: Histogram<UInt64>, _ counts: BenchCounts) -> BenchResult {
        let requests = Double(max(1, completed))
        return BenchResult(
            rate: Double(completed) * 1e9 / Double(elapsed),
            p50: Measurement.microseconds(latencies, 50), p90: Measurement.microseconds(latencies, 90),
            p99: Measurement.microseconds(latencies, 99), p999: Measurement.microseconds(latencies, 99.9),
            max: Measurement.microseconds(latencies, 100),
            mean: latencies.totalCount == 0 ? 0 : latencies.mean / 1000, completed: completed,
            seconds: Double(elapsed) / 1e9, replicaProcessorTime: replicas.map { Double($0) / 1000 / requests },
            generatorProcessorTime: Double(own) / 1000 / requests, counts: counts)
    }

    /// A percentile in microseconds; 0 when nothing was recorded.
    static func microseconds(_ latencies: Histogram<UInt64>, _ percentile: Double) -> Double {
        guard latencies.totalCount > 0 else { return 0 }
        let value = percentile >= 100 ? latencies.max : latencies.valueAtPercentile(percentile)
        return Double(value) / 1000
    }
}
