import Dispatch
import MPaxosCSupport
import MPaxosInvariants
import Synchronization

/// Many seeds, on many cores, up to the first failure.
package final class SeedRun: Sendable {
    package struct Totals: Sendable {
        package var done: UInt64 = 0
        package var failure: SimulationFailure?
        /// Of the failure.
        package var replicaCount = 0
        package var decided: UInt64 = 0
        package var answered: UInt64 = 0
        package var crashes: UInt64 = 0
        package var elections: UInt64 = 0
        /// Of its bound, in parts of a thousand, by the slowest convergence of all.
        package var boundUsed: UInt64 = 0
        package var slowest: UInt64 = 0
        /// Simulated time, in microseconds.
        package var time: UInt64 = 0
    }

    /// What came of one seed.
    package struct Outcome: Sendable {
        package var failure: SimulationFailure?
        package var replicaCount: Int
        package var decided: UInt64
        package var answered: UInt64
        package var crashes: Int
        package var elections: UInt64
        package var boundUsed: UInt64
        package var time: UInt64

        package init(
            failure: SimulationFailure?, replicaCount: Int, decided: UInt64, answered: UInt64, crashes: Int,
            elections: UInt64, boundUsed: UInt64, time: UInt64
        ) {
            self.failure = failure
            self.replicaCount = replicaCount
            self.decided = decided
            self.answered = answered
            self.crashes = crashes
            self.elections = elections
            self.boundUsed = boundUsed
            self.time = time
        }
    }

    private let seeds: Range<UInt64>
    private let runSeed: @Sendable (UInt64) -> Outcome
    private let next: Atomic<UInt64>
    private let isStopped = Atomic<Bool>(false)
    private let totals = Mutex(Totals())

    /// - Parameter run: runs one seed; any thread, several at a time.
    package init(seeds: Range<UInt64>, run: @escaping @Sendable (UInt64) -> Outcome) {
        invariant(!seeds.isEmpty, "a run has seeds")
        self.seeds = seeds
        runSeed = run
        next = Atomic(seeds.lowerBound)
    }

    /// Runs of `Simulator`.
    /// - Parameters:
    ///   - replicaCount: nil: the seed's own, see `replicaCount(of:)`.
    ///   - links: nil: the seed's own.
    package convenience init(seeds: Range<UInt64>, replicaCount: Int?, links: Bool? = nil) {
        self.init(seeds: seeds) { seed in
            let options = Self.options(seed: seed, replicaCount: replicaCount, links: links)
            let report = Simulator(seed: seed, options: options).run()
            return Outcome(
                failure: report.failure, replicaCount: options.replicaCount, decided: report.decided,
                answered: report.answered, crashes: report.crashes, elections: report.elections,
                boundUsed: report.boundUsed, time: report.time)
        }
    }

    /// Mostly three or five.
    package static func replicaCount(of seed: UInt64) -> Int {
        [3, 5, 3, 5, 3, 5, 4, 3, 5, 3, 5, 7, 3, 5, 2, 1][Int(seed % 16)]
    }

    /// The options with which a seed is run, here and when it is replayed.
    package static func options(seed: UInt64, replicaCount: Int?, links: Bool? = nil) -> SimulationOptions {
        SimulationOptions(
            replicaCount: replicaCount ?? self.replicaCount(of: seed), invariantInterval: 16, links: links)
    }

    /// Runs them all. `progress` is called now and then, from any of the threads, one at a time.
    package func run(jobs: Int, progress: @Sendable (Totals) -> Void) -> Totals {
        invariant(jobs > 0, "a run has jobs")
        DispatchQueue.concurrentPerform(iterations: jobs) { _ in work(progress) }
        return totals.withLock { $0 }
    }

    /// An invariant that the calling thread breaks is told with the seed, until the standing returned is put back.
    private static func stand(for seed: UInt64) -> csupport_standing {
        let noun: StaticString = "seed"
        return csupport_stand(
            csupport_standing(
                who: UnsafeRawPointer(noun.utf8Start).assumingMemoryBound(to: CChar.self), number: seed, view: nil,
                decided: nil, executed: nil, position: nil))
    }

    private func work(_ progress: @Sendable (Totals) -> Void) {
        while !isStopped.load(ordering: .relaxed) {
            let seed = next.add(1, ordering: .relaxed).oldValue
            guard seed < seeds.upperBound else { return }
            let before = Self.stand(for: seed)
            defer { csupport_stand(before) }
            let report = runSeed(seed)
            if report.failure != nil { isStopped.store(true, ordering: .relaxed) }
            totals.withLock { totals in
                totals.done += 1
                totals.decided += report.decided
                totals.answered += report.answered
                totals.crashes += UInt64(report.crashes)
                totals.elections += report.elections
                totals.time += report.time
                if report.boundUsed > totals.boundUsed {
                    totals.boundUsed = report.boundUsed
                    totals.slowest = seed
                }
                // Of several at once, the lowest.
                if let failure = report.failure, failure.seed < totals.failure?.seed ?? .max {
                    totals.failure = failure
                    totals.replicaCount = report.replicaCount
                }
                if totals.done % 200 == 0 { progress(totals) }
            }
        }
    }
}
