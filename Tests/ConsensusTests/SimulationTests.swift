import Consensus
import Simulation
import Testing

@Suite struct SimulationTests {
    @Test(arguments: [(1, 400), (2, 400), (3, 500), (4, 300), (5, 300)])
    func seedsPass(replicaCount: Int, seeds: UInt64) {
        var decided: UInt64 = 0
        var crashes = 0
        for seed in 0..<seeds {
            let report = Simulator(
                seed: seed,
                options: SimulationOptions(
                    replicaCount: replicaCount, duration: 300_000, invariantInterval: 8)
            ).run()
            if let failure = report.failure { Issue.record("\(replicaCount) replicas, \(failure)") }
            decided += report.decided
            crashes += report.crashes
        }
        // A simulation in which nothing happens passes all checks too.
        #expect(decided > 10 * seeds)
        #expect(crashes > Int(seeds) / 4)
    }

    @Test func aSeedAlwaysGivesTheSameRun() {
        for seed in 0..<5 as Range<UInt64> {
            let options = SimulationOptions(replicaCount: 3, duration: 500_000)
            let first = Simulator(seed: seed, options: options).run()
            let second = Simulator(seed: seed, options: options).run()
            #expect(first.steps == second.steps)
            #expect(first.decided == second.decided)
            #expect(first.time == second.time)
        }
    }

    /// Each deliberate mistake, with a cluster and seeds among which it shows. From `firstSeed` on, to be quick.
    @Test(arguments: [
        (PlantedBugs.votesOverViews, "votes over views", 5), (.smallQuorum, "quorum (N+1)/2", 4),
        (.promiseBeforeDurable, "promise before durable", 3), (.commitWithoutView, "commit without view", 3),
        (.acceptedBeforeDurable, "accepted before durable", 3), (.proposeBeforeDurable, "propose before durable", 3),
    ])
    func plantedBugsAreFound(bug: PlantedBugs, name: String, replicaCount: Int) {
        let limit: UInt64 = 400
        for seed in 0..<limit {
            let options = SimulationOptions(
                replicaCount: replicaCount, plantedBugs: bug, duration: 1_500_000, invariantInterval: 0)
            if let failure = Simulator(seed: seed, options: options).run().failure {
                print("\(name): found with seed \(seed): \(failure.what)")
                return
            }
        }
        Issue.record("\(name) was not found in \(limit) seeds")
    }
}
