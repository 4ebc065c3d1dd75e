import MPaxosSimulation
import Testing

/// The simulator finds each of the deliberate mistakes. The medians of the seeds that this takes are in
/// docs/testing.md, from `mpaxos simulate --planted-bugs 5000`; here the searches for what is rare begin close to where
/// it was found once, so that they are quick for as long as the seeds mean the same.
@Suite struct PlantedBugTests {
    private static let firstSeeds: [String: UInt64] = [
        "promiseBeforeDurable": 4_000_000, "establishedTooEarly": 3_000_000, "adoptFirstReported": 60,
        "decidedWithoutView": 40, "foundedByMajority": 60, "noncesUnchecked": 60, "poolsNotCompared": 1_000_040,
        "damageTakenForTear": 3_000_000,
    ]

    @Test(arguments: BugHunt.all)
    func isFound(hunt: BugHunt) throws {
        let first = Self.firstSeeds[hunt.name] ?? 0
        let found = try #require(hunt.run(from: first, limit: 2_000), "\(hunt) is not found by 2000 seeds")
        print("\(hunt), \(hunt.replicaCount) replicas: seed \(first) and \(found.seeds - 1) more: \(found.failure)")
    }

    /// Without any, the same clusters pass the same seeds.
    @Test(arguments: [3, 4, 5])
    func nothingIsFoundWhereNothingIs(replicaCount: Int) {
        let hunt = BugHunt(name: "none", bug: [], replicaCount: replicaCount)
        #expect(hunt.run(from: 0, limit: 20)?.failure.description == nil)
    }

    @Test func allArePlanted() {
        #expect(BugHunt.all.count >= 29)
        #expect(Set(BugHunt.all.map(\.bug.rawValue)).count == BugHunt.all.count)
    }
}
