import Foundation
import MPaxosConsensus
import Testing

@testable import MPaxosSimulation

@Suite struct SimulationTests {
    /// New seeds each time, or those from MPAXOS_SEED on.
    static let firstSeed =
        ProcessInfo.processInfo.environment["MPAXOS_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0..<1 << 48)

    @Test(arguments: [(1, 60), (2, 60), (3, 300), (4, 80), (5, 200), (7, 40)])
    func newSeedsPass(replicaCount: Int, seeds: UInt64) {
        print("\(replicaCount) replicas: seeds from MPAXOS_SEED=\(Self.firstSeed) on")
        run(replicaCount, Self.firstSeed..<Self.firstSeed + seeds)
    }

    @Test(arguments: [(1, 40), (2, 40), (3, 60), (4, 40), (5, 40), (6, 10)])
    func seedsPass(replicaCount: Int, seeds: UInt64) {
        run(replicaCount, 0..<seeds)
    }

    /// Whatever the seeds say, over links, and without any.
    @Test(arguments: [(2, 40), (3, 150), (5, 80)], [true, false])
    func newSeedsPass(numbers: (replicaCount: Int, seeds: UInt64), links: Bool) {
        print("\(numbers.replicaCount) replicas, links \(links): seeds from MPAXOS_SEED=\(Self.firstSeed) on")
        let total = run(numbers.replicaCount, Self.firstSeed..<Self.firstSeed + numbers.seeds, links: links)
        #expect((total.pieces > 10 * Int(numbers.seeds)) == links)
    }

    /// A follower without room is rare: new seeds need not have one.
    @Test(arguments: [true, false]) func someProposalsAreRefused(links: Bool) {
        #expect(run(3, 0..<150, links: links).refusals > 0)
    }

    @discardableResult
    private func run(_ replicaCount: Int, _ seeds: Range<UInt64>, links: Bool? = nil) -> SimulationReport {
        var total = SimulationReport(seed: 0)
        for seed in seeds {
            let report = Simulator(
                seed: seed,
                options: SimulationOptions(
                    replicaCount: replicaCount, duration: 500_000, invariantInterval: 8, links: links)
            ).run()
            if let failure = report.failure { Issue.record("\(replicaCount) replicas, \(failure)") }
            total.decided += report.decided
            total.pieces += report.pieces
            total.refusals += report.refusals
            total.crashes += report.crashes
            total.answered += report.answered
        }
        // A simulation in which nothing happens passes all checks too.
        #expect(total.decided > 10 * UInt64(seeds.count))
        #expect(total.answered > 5 * UInt64(seeds.count))
        #expect(total.crashes > seeds.count / 4)
        return total
    }

    /// What is done to pools from outside, and the founding of clusters, happens in runs of the length that `simulate`
    /// has.
    @Test func faultsFromOutsideAreMet() {
        var total = SimulationReport(seed: 0)
        for seed in 0..<150 as Range<UInt64> {
            let report = Simulator(seed: seed, options: SimulationOptions(replicaCount: 3, invariantInterval: 0)).run()
            if let failure = report.failure { Issue.record("\(failure)") }
            total.foundings += report.foundings
            total.objections += report.objections
            total.expulsions += report.expulsions
            total.refusedStarts += report.refusedStarts
            total.driftsFound += report.driftsFound
        }
        print(
            "\(total.foundings) foundings, \(total.objections) objections, \(total.expulsions) expulsions, "
                + "\(total.refusedStarts) refused starts, \(total.driftsFound) drifts found")
        #expect(total.foundings > 0 && total.objections > 0 && total.expulsions > 0)
        #expect(total.refusedStarts > 0 && total.driftsFound > 0)
    }

    /// What a member with a key says in the name of another is as if it had not been said: before the founding and
    /// after.
    @Test(arguments: [3, 5]) func liesAreWithoutEffect(replicaCount: Int) {
        var (lies, earlyLies) = (0, 0)
        for seed in 0..<40 as Range<UInt64> {
            var reports: [SimulationReport] = []
            for keys in [true, false] {
                let options = SimulationOptions(
                    replicaCount: replicaCount, duration: 500_000, invariantInterval: 0, keys: keys)
                var report = Simulator(seed: seed, options: options).run()
                if let failure = report.failure { Issue.record("\(failure)") }
                lies += report.lies
                earlyLies += report.earlyLies
                if !keys { #expect(report.lies == 0) }
                (report.lies, report.earlyLies) = (0, 0)
                reports.append(report)
            }
            #expect("\(reports[0])" == "\(reports[1])", "seed \(seed)")
        }
        print("\(replicaCount) replicas: \(lies) lies, \(earlyLies) before the founding")
        #expect(lies > 400 && earlyLies > 0)
    }

    @Test(arguments: [true, false])
    func aSeedAlwaysGivesTheSameRun(links: Bool) {
        for seed in 0..<5 as Range<UInt64> {
            let options = SimulationOptions(replicaCount: 3, duration: 500_000, links: links)
            let first = Simulator(seed: seed, options: options).run()
            let second = Simulator(seed: seed, options: options).run()
            #expect(first.steps == second.steps)
            #expect(first.decided == second.decided)
            #expect(first.answered == second.answered)
            #expect(first.time == second.time)
        }
    }

    /// Two of five on pools of an earlier time meet each other: what they say counts nowhere.
    @Test func twoThatAreLostMeet() {
        let report = Simulator(seed: 502023, options: SimulationOptions(replicaCount: 5)).run()
        #expect(report.failure?.description == nil)
    }

    /// A replica that sleeps through the phase without faults and would sleep on is woken at its end: by then the
    /// others have dropped what it lacks, and it must get their state within the bound.
    @Test func whoWakesEarlyGetsAStateInTime() {
        var woken = 0
        for seed in 0..<8 as Range<UInt64> {
            let options = SimulationOptions(replicaCount: 3, duration: 500_000, faults: [])
            let simulator = Simulator(seed: seed, options: options)
            guard !simulator.beginsUnfounded else { continue }
            simulator.plan = FaultPlan()
            simulator.network.plan = simulator.plan
            simulator.replicas[2].pausedUntil = 1_000_000_000
            let report = simulator.run()
            #expect(report.failure?.description == nil)
            #expect(report.transfers > 0, "seed \(seed): the others have dropped what it lacks")
            // A transfer stops its replica. Another crash: the majority that goes on does without the sleeper, which
            // starts anew.
            if report.crashes == report.transfers { woken += 1 }
        }
        #expect(woken > 0)
    }

    @Test func manySeedsAreRunAndCounted() {
        let totals = SeedRun(seeds: 0..<6, replicaCount: 3).run(jobs: 2) { _ in }
        #expect(totals.done == 6 && totals.failure == nil)
        #expect(totals.decided > 60 && totals.answered > 0)
    }

    /// Of five failures with many faults each, what is left of them fails again, with a fifth of the faults together.
    @Test func failuresShrink() throws {
        var (before, after, seed) = (0, 0, 0 as UInt64)
        var found = 0
        while found < 5 {
            defer { seed += 1 }
            try #require(seed < 200, "the planted bug shows")
            let options = SimulationOptions(
                replicaCount: 3, plantedBugs: .staleRead, duration: 1_500_000, invariantInterval: 0)
            let whole = Simulator(seed: seed, options: options).run()
            guard whole.failure != nil else {
                if seed < 5 { #expect(Shrink(seed: seed, options: options)?.attempts == nil) }
                continue
            }
            guard whole.faults > 8 else { continue }
            found += 1
            let shrink = try #require(Shrink(seed: seed, options: options, limit: .seconds(300)))
            let left = shrink.options.faults?.count ?? whole.faults
            before += whole.faults
            after += left
            #expect(left <= whole.faults && shrink.options.duration <= options.duration)
            let again = Simulator(seed: seed, options: shrink.options).run()
            #expect(again.failure?.what == shrink.report.failure?.what && again.steps == shrink.report.steps)
        }
        print("\(before) faults shrank to \(after)")
        #expect(5 * after <= before)
    }

    /// What takes too long is left as it is.
    @Test func shrinkingIsBounded() throws {
        let options = SimulationOptions(replicaCount: 3, plantedBugs: .catchUpSkips, duration: 1_500_000)
        let seed = try #require(
            (0..<50 as Range<UInt64>).first { Simulator(seed: $0, options: options).run().failure != nil })
        let shrink = try #require(Shrink(seed: seed, options: options, limit: .zero))
        #expect(shrink.attempts == 0 && shrink.options.faults == nil)
    }
}
