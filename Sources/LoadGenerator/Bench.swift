import Glibc
import Histogram
import Synchronization

/// A run of the load generator (`mpaxos bench`): opens sessions, warms up, measures, closes the sessions.
///
/// Simple and cheap by design: one thread that speaks ZMTP over plain sockets. `run` may be called once; `stop` from
/// any thread or signal handler.
package final class Bench: Sendable {
    private let configuration: BenchConfiguration
    private let isStopped = Atomic<Bool>(false)

    package init(_ configuration: BenchConfiguration) {
        self.configuration = configuration
    }

    /// Ends the run early; `run` returns what was measured until then.
    package func stop() {
        isStopped.store(true, ordering: .relaxed)
    }

    /// Runs the load on the calling thread. `progress` is called on it once an interval.
    package func run(progress: (BenchProgress) -> Void) throws(BenchError) -> BenchResult {
        if let problem = configuration.problem { throw BenchError(.usage, problem) }
        var endpoints: [Endpoint] = []
        for text in configuration.endpoints { endpoints.append(try Endpoint(text)) }
        let dialer = try configuration.clusterKeys.map { (keys) throws(BenchError) in try CurveDialer(keys) }
        let replicas = try meetReplicas(endpoints, dialer)

        var loop = try LoadLoop(configuration, endpoints: endpoints, dialer: dialer, leader: replicas.leader)
        var reporter = Reporter(interval: configuration.interval)
        try openSessions(&loop, &reporter, progress)

        var total = Tally(replicas: replicas.processes.map { _ in 0 })
        var steps: [BenchFigures] = []
        for (step, level) in configuration.levels.enumerated() {
            if step > 0 && isStopped.load(ordering: .relaxed) { break }
            reporter.step = step
            let now = MonotonicClock.now()
            if step == 0 { loop.start(level, now: now) } else { loop.change(to: level, now: now) }
            let tally = try measure(replicas, &loop, &reporter, progress)
            total.add(tally)
            steps.append(tally.figures(level, replicas: replicas.ids))
        }
        // What befell the run while it opened and warmed up is told too, but is no error of the measurement.
        let errors = total.counts.errors
        total.counts = loop.counts
        total.counts.errors = errors

        // Whatever the cluster does now, the measurement stands.
        loop.drain()
        try? pass(1, in: .closing, &loop, &reporter, progress, unless: { $0.pendingSessions == 0 })
        loop.closeAll(now: MonotonicClock.now())
        try? pass(2, in: .closing, &loop, &reporter, progress, unless: { $0.pendingSessions == 0 })
        return BenchResult(
            total: total.figures(steps.last!.level, replicas: replicas.ids), steps: steps, series: reporter.series,
            distribution: total.latencies.percentiles(ticksPerHalfDistance: 5).map {
                ($0.percentile, Double($0.value) / 1000)
            })
    }

    /// Warms up, then measures.
    private func measure(
        _ replicas: Replicas, _ loop: inout LoadLoop, _ reporter: inout Reporter, _ progress: (BenchProgress) -> Void
    ) throws(BenchError) -> Tally {
        try pass(configuration.warmup, in: .warmup, &loop, &reporter, progress)
        let measurement = Measurement(replicas.processes, loop)
        try pass(configuration.seconds, in: .measuring, &loop, &reporter, progress)
        var tally = measurement.end(loop)
        loop.recordUnanswered(now: MonotonicClock.now())
        tally.latencies = reporter.endMeasurement(&loop)
        return tally
    }

    // MARK: Before the load

    private struct Replicas {
        /// Index of the leader's endpoint; 0 when only `all` is asked for and none is known.
        var leader: Int
        /// Of those that answered.
        var ids: [Int]
        /// Their processes, as far as they run on this host and say so.
        var processes: [Int32?]
    }

    /// Asks all replicas for their STATUS until one answers and, for `--to leader`, a leader that answers is known.
    private func meetReplicas(
        _ endpoints: [Endpoint], _ dialer: CurveDialer?
    ) throws(BenchError) -> Replicas {
        let deadline = MonotonicClock.now() + UInt64(configuration.timeout * 1e9)
        var answered = false
        repeat {
            let statuses = endpoints.map { endpoint in
                if let dialer { return StatusProbe.ask(endpoint, by: dialer, milliseconds: 1000) }
                return StatusProbe.ask(endpoint, milliseconds: 1000)
            }
            let leader = statuses.lazy.compactMap { $0?.leader }.first.flatMap { id in
                statuses.firstIndex { $0?.id == id }
            }
            answered = answered || statuses.contains { $0 != nil }
            if leader != nil || configuration.target == .all && answered {
                let answering = zip(endpoints, statuses).compactMap { $1 == nil ? nil : ($0, $1!) }
                return Replicas(
                    leader: leader ?? 0, ids: answering.map(\.1.id),
                    processes: answering.map { $0.isLocal ? $1.pid : nil })
            }
            // Nothing but the next try to wait for.
            var pause = timespec(tv_sec: 0, tv_nsec: 50_000_000)
            nanosleep(&pause, nil)
        } while MonotonicClock.now() < deadline && !isStopped.load(ordering: .relaxed)
        let names = endpoints.map(\.text).joined(separator: ", ")
        let reason = dialer?.obstacle.map { ": \($0)" } ?? ""
        throw BenchError(
            .noAnswer, answered ? "no replica of \(names) knows a leader" : "no replica answers at \(names)\(reason)")
    }

    private func openSessions(
        _ loop: inout LoadLoop, _ reporter: inout Reporter, _ progress: (BenchProgress) -> Void
    ) throws(BenchError) {
        loop.openAll(now: MonotonicClock.now())
        try pass(configuration.timeout, in: .opening, &loop, &reporter, progress) {
            $0.openSessions == $0.sessionCount
        }
        guard loop.openSessions == loop.sessionCount else {
            let reason = loop.dialer?.obstacle.map { ": \($0)" } ?? ""
            throw BenchError(
                .noAnswer,
                "\(loop.openSessions) of \(loop.sessionCount) sessions could be opened in \(configuration.timeout) s\(reason)"
            )
        }
    }

    // MARK: Time

    /// Lets the loop turn for `seconds`, or until `isDone`, reporting once an interval.
    private func pass(
        _ seconds: Double, in phase: BenchProgress.Phase, _ loop: inout LoadLoop, _ reporter: inout Reporter,
        _ progress: (BenchProgress) -> Void, unless isDone: (borrowing LoadLoop) -> Bool = { _ in false }
    ) throws(BenchError) {
        let start = MonotonicClock.now()
        let end = start + UInt64(seconds * 1e9)
        reporter.begin(phase, &loop, now: start)
        var now = start
        while now < end && !isDone(loop) && (phase == .closing || !isStopped.load(ordering: .relaxed)) {
            loop.turn(until: min(end, reporter.due, now + 100_000_000))
            if let failure = loop.failure { throw failure }
            now = MonotonicClock.now()
            if now >= reporter.due { reporter.report(phase, &loop, progress) }
        }
    }
}
