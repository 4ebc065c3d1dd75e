import Foundation
import MPaxosSimulation
import MPaxosStorage
import Testing

@testable import MPaxosClusterSimulation

/// Whole replicas under faults: some seeds of always, and new ones each time.
@Suite struct ClusterSeedTests {
    /// New seeds each time, or those from MPAXOS_SEED on.
    private static let firstSeed =
        ProcessInfo.processInfo.environment["MPAXOS_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0..<1 << 48)

    @Test(arguments: [(1, 2), (2, 2), (3, 6), (5, 2)]) func seedsPass(replicaCount: Int, seeds: UInt64) {
        run(replicaCount, 0..<seeds)
    }

    @Test(arguments: [(3, 6), (4, 2), (5, 2)]) func newSeedsPass(replicaCount: Int, seeds: UInt64) {
        print("\(replicaCount) whole replicas: seeds from MPAXOS_SEED=\(Self.firstSeed) on")
        run(replicaCount, Self.firstSeed..<Self.firstSeed + seeds)
    }

    /// More new seeds, by the release build, which is some ten times as fast. Few, as long as one in a thousand of
    /// three replicas meets the stall of an election in a full log ("Not covered" in docs/testing.md).
    @Test(
        .enabled(if: ProcessInfo.processInfo.environment["MPAXOS_EXECUTABLE"] != nil), arguments: [(3, 40), (5, 20)])
    func newSeedsPassInARelease(replicaCount: Int, seeds: UInt64) throws {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(
            fileURLWithPath: try #require(ProcessInfo.processInfo.environment["MPAXOS_EXECUTABLE"]))
        process.arguments = [
            "simulate", "--whole", "--replicas", "\(replicaCount)", "--seeds",
            "\(Self.firstSeed)..<\(Self.firstSeed + seeds)",
        ]
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
    }

    /// One run is like another of the same seed.
    @Test(arguments: 40...41 as ClosedRange<UInt64>) func aSeedIsOneRun(seed: UInt64) {
        let reports = (0..<2).map { _ in
            ClusterSimulator(seed: seed, options: ClusterOptions(replicaCount: 3, duration: 500_000)).run()
        }
        #expect(reports[0].turns == reports[1].turns && reports[0].frames == reports[1].frames)
        #expect(reports[0].decided == reports[1].decided && reports[0].time == reports[1].time)
    }

    /// What can be full was full, and what can be lost was lost, in the seeds of always.
    @Test func seedsMeetWhatTheyAreFor() {
        let options = ClusterOptions(replicaCount: 3, duration: 1_000_000)
        var reports = (0..<24 as Range<UInt64>).map { ClusterSimulator(seed: $0, options: options).run() }
        // Few seeds have a log that is filled.
        reports += (0..<8 as Range<UInt64>).map {
            ClusterSimulator(seed: $0, options: options) { plan in
                plan.clients = 16
                plan.thinkTime = 100
                plan.isHeavy = true
                plan.maxRequest = 8_256
                plan.largestValue = 8_000
                plan.geometry = AcceptorGeometry(slots: 1024, arenaSize: 10 * 8_320)
            }.run()
        }
        #expect(reports.contains { $0.crashes > 0 })
        #expect(reports.contains { $0.snapshots > 0 })
        #expect(reports.contains { $0.dropped > 0 })
        #expect(reports.contains { $0.elections > 0 })
        #expect(reports.contains { $0.forged > 0 })
    }

    /// A replica whose state is another than that of the others stops, and none of the others does.
    @Test(arguments: [3, 5], 0..<3 as Range<UInt64>) func whatDriftsStops(replicaCount: Int, seed: UInt64) {
        let report = ClusterSimulator(seed: seed, options: ClusterOptions(replicaCount: replicaCount)) { plan in
            plan.isFounded = true
            plan.interval = 0
            plan.earlyCrash = 0
            plan.clients = 4
            plan.thinkTime = 1_000
            plan.driftTime = 500_000
        }.run()
        #expect(report.failure == nil && report.driftsFound == 1, "\(report)")
    }

    private func run(_ replicaCount: Int, _ seeds: Range<UInt64>) {
        for seed in seeds {
            let report = ClusterSimulator(seed: seed, options: ClusterOptions(replicaCount: replicaCount)).run()
            if let failure = report.failure {
                Issue.record("\(failure); mpaxos simulate --whole --seed \(seed) --replicas \(replicaCount) --trace")
            }
            #expect(report.answered > 0)
        }
    }
}

/// A mistake on purpose is seen.
@Suite struct ClusterPlantTests {
    /// How many seeds each may take here: some times its median. Those that a replica finds by stopping its process,
    /// and those that take too many seeds, are for `mpaxos simulate --whole --planted-bugs`.
    @Test(arguments: [
        (ClusterPlant.forgottenLogFence, 40 as UInt64), (.forgottenStateFence, 60), (.forgottenLogFlush, 40),
        (.forwardTwice, 20),
        (.skippedAlone, 10), (.epochUsedTwice, 60), (.replyToAnother, 30), (.requestTwice, 60), (.positionIgnored, 60),
        (.placeKept, 10),
    ]) func isFound(plant: ClusterPlant, limit: UInt64) {
        #expect(!plant.traps)
        #expect(plant.seedsUntilFound(from: 0, limit: limit) != nil)
    }
}
