import MPaxosLoadGenerator

/// The outcome of `mpaxos bench` in words.
enum BenchReport {
    static func line(of progress: BenchProgress, steps: Int) -> String {
        var line = progress.phase.rawValue
        if steps > 1 && progress.phase != .opening && progress.phase != .closing {
            line += " step \(progress.step + 1)/\(steps)"
        }
        line += " \(decimal(progress.elapsed, 0)) s:"
        if progress.phase == .opening {
            line += " \(progress.sessions) sessions open"
        } else {
            line +=
                " \(decimal(progress.rate, 0))/s, p50 \(decimal(progress.p50, 0)) us, p99 \(decimal(progress.p99, 0)) us"
        }
        if progress.counts.errors > 0 { line += ", \(progress.counts.errors) errors" }
        return line
    }

    static func text(of result: BenchResult, isOpenLoop: Bool) -> String {
        guard result.steps.count > 1 else { return table(of: result.total) }
        var rows = [
            [
                isOpenLoop ? "rate asked" : "clients", "requests/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us",
                "errors", "replica cpu us", "generator cpu us",
            ]
        ]
        for step in result.steps {
            let latencies = [step.p50, step.p90, step.p99, step.p999, step.max].map { decimal($0, 1) }
            rows.append(
                [decimal(step.level, 0), decimal(step.rate, 0)] + latencies + [
                    "\(step.counts.errors)", step.replicaProcessorTime.map { decimal($0, 2) } ?? "-",
                    decimal(step.generatorProcessorTime, 2),
                ])
        }
        return Table.aligned(rows)
    }

    private static func table(of figures: BenchFigures) -> String {
        var rows: [(String, String)] = [
            ("throughput", "\(decimal(figures.rate, 0)) requests/s"),
            ("p50", "\(decimal(figures.p50, 1)) us"),
            ("p90", "\(decimal(figures.p90, 1)) us"),
            ("p99", "\(decimal(figures.p99, 1)) us"),
            ("p99.9", "\(decimal(figures.p999, 1)) us"),
            ("max", "\(decimal(figures.max, 1)) us"),
            ("errors", "\(figures.counts.errors)"),
            ("measured", "\(decimal(figures.seconds, 2)) s, \(figures.completed) requests"),
        ]
        if let processorTime = figures.replicaProcessorTime {
            rows.append(("replica cpu", "\(decimal(processorTime, 2)) us a request, all replicas together"))
        }
        let each = figures.processorTimes.compactMap { replica, time in
            time.map { "\(decimal($0, 2)) us (replica \(replica))" }
        }
        if each.count > 1 { rows.append(("", each.joined(separator: ", "))) }
        rows.append(("generator cpu", "\(decimal(figures.generatorProcessorTime, 2)) us a request"))
        let counts = figures.counts
        let events = [
            ("busy", counts.busy), ("no leader", counts.noLeader), ("redirects", counts.redirects),
            ("timeouts", counts.timeouts), ("disconnects", counts.disconnects), ("reconnects", counts.reconnects),
            ("expired sessions", counts.expired),
        ].filter { $0.1 > 0 }.map { "\($0.1) \($0.0)" }
        if !events.isEmpty { rows.append(("events", events.joined(separator: ", "))) }
        return Table.aligned(rows.map { [$0.0, $0.1] })
    }
}
