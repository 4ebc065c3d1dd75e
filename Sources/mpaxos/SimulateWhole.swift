import ArgumentParser
import Foundation
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
        options.plant = plant
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

    /// Each seed in a process of its own: some plants are found by a replica, which stops its process.
    private func huntWhole(limit: UInt64) throws {
        var isMissed = false
        for plant in ClusterPlant.allCases {
            var counts: [UInt64?] = []
            for first in 0..<5 as Range<UInt64> {
                counts.append(
                    try (1...limit).first { try !Self.holds(plant, seed: first * 1_000_000 + $0 - 1) })
            }
            let median = counts.map { $0 ?? .max }.sorted()[2]
            isMissed = isMissed || median == .max
            let each = counts.map { $0.map { "\($0)" } ?? "-" }.joined(separator: " ")
            try Output.line("\(plant): \(median == .max ? "not found" : "median \(median)"), each: \(each)")
        }
        if isMissed { throw Failure(.notSo) }
    }

    private static func holds(_ plant: ClusterPlant, seed: UInt64) throws -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["simulate", "--whole", "--replicas", "3", "--seed", "\(seed)", "--plant", plant.rawValue]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus == 0 && process.terminationReason == .exit
    }
}

extension ClusterPlant: ExpressibleByArgument {}
