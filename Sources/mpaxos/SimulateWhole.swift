import ArgumentParser
import MPaxosClusterSimulation
import MPaxosSimulation

/// `mpaxos simulate --whole`.
extension SimulateCommand {
    func runWhole() throws {
        if let seeds {
            let totals = try run(SeedRun.ofClusters(seeds: seeds.range, replicaCount: replicas), seeds.range)
            guard let failure = totals.failure else { return }
            try Output.line("\(failure)")
            try Output.line(
                "replay: mpaxos simulate --whole --seed \(failure.seed) --replicas \(totals.replicaCount) --trace")
            throw Failure(.notSo)
        }
        if let seed { try replayWhole(seed) }
        if let plantedBugs { try huntWhole(limit: plantedBugs) }
    }

    private func replayWhole(_ seed: UInt64) throws {
        var options = ClusterOptions(seed: seed, replicaCount: replicas)
        options.trace = trace
        options.faults = faults?.numbers
        if let duration { options.duration = 1000 * duration }
        let report = ClusterSimulator(seed: seed, options: options).run()
        if let failure = report.failure {
            try Output.line("\(failure)")
            throw Failure(.notSo)
        }
        try Output.line(
            "seed \(seed), \(options.replicaCount) replicas: \(report.decided) instances decided, \(report.answered) answers, \(report.crashes) crashes, \(report.elections) elections, \(report.snapshots) snapshots, \(report.turns) turns, \(report.frames) frames, \(report.dropped) batches dropped: no failure"
        )
    }

    private func huntWhole(limit: UInt64) throws {
        var isMissed = false
        for plant in ClusterPlant.allCases {
            let counts = (0..<5 as Range<UInt64>).map { plant.seedsUntilFound(from: $0 * 1_000_000, limit: limit) }
            let median = counts.map { $0 ?? .max }.sorted()[2]
            isMissed = isMissed || median == .max
            let each = counts.map { $0.map { "\($0)" } ?? "-" }.joined(separator: " ")
            try Output.line("\(plant): \(median == .max ? "not found" : "median \(median)"), each: \(each)")
        }
        if isMissed { throw Failure(.notSo) }
    }
}
