import Histogram

/// Cuts a run into intervals: reports each, keeps those that are measured, and gathers their latencies.
struct Reporter {
    private let interval: UInt64
    /// Latencies of the step that is measured.
    private var latencies = LoadLoop.emptyHistogram()
    private(set) var series: [BenchInterval] = []
    var step = 0
    private var origin: UInt64?
    private var phaseStart: UInt64 = 0
    private var last: UInt64 = 0
    private var lastCompleted: UInt64 = 0
    private var lastCounts = BenchCounts()
    private var reports: UInt64 = 0

    init(interval: Double) {
        self.interval = UInt64(interval * 1e9)
    }

    /// Nanoseconds at which the next report is due.
    var due: UInt64 { phaseStart + (reports + 1) * interval }

    mutating func begin(_ phase: BenchProgress.Phase, _ loop: inout LoadLoop, now: UInt64) {
        if phase == .measuring && origin == nil { origin = now }
        loop.latencies.reset()
        phaseStart = now
        reports = 0
        mark(loop, now)
    }

    mutating func report(_ phase: BenchProgress.Phase, _ loop: inout LoadLoop, _ progress: (BenchProgress) -> Void) {
        let now = MonotonicClock.now()
        progress(
            BenchProgress(
                phase: phase, step: step, elapsed: Double(now - phaseStart) / 1e9,
                rate: now > last ? Double(loop.completed - lastCompleted) * 1e9 / Double(now - last) : 0,
                p50: loop.latencies.microseconds(50), p99: loop.latencies.microseconds(99),
                sessions: loop.openSessions, counts: loop.counts))
        close(phase, &loop, now)
        reports = (now - phaseStart) / interval
    }

    /// The measured phase is over; returns its latencies.
    mutating func endMeasurement(_ loop: inout LoadLoop) -> Histogram<UInt64> {
        close(.measuring, &loop, MonotonicClock.now())
        defer { latencies.reset() }
        return latencies
    }

    private mutating func close(_ phase: BenchProgress.Phase, _ loop: inout LoadLoop, _ now: UInt64) {
        if phase == .measuring, let origin {
            // The moment between the last report and the end of the phase is no interval.
            if now - last >= interval / 20 {
                series.append(
                    BenchInterval(
                        step: step, at: Double(now - origin) / 1e9, seconds: Double(now - last) / 1e9,
                        completed: loop.completed - lastCompleted, p50: loop.latencies.microseconds(50),
                        p99: loop.latencies.microseconds(99), max: loop.latencies.microseconds(100),
                        counts: loop.counts.since(lastCounts)))
            }
            latencies.add(loop.latencies)
        }
        loop.latencies.reset()
        mark(loop, now)
    }

    private mutating func mark(_ loop: borrowing LoadLoop, _ now: UInt64) {
        last = now
        lastCompleted = loop.completed
        lastCounts = loop.counts
    }
}
