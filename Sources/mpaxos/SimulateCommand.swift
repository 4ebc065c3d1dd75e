import ArgumentParser
import Simulation

struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run the protocol in a deterministic simulation, with faults drawn from a seed.",
        usage: """
            mpaxos simulate --seeds A..<B [--replicas <n>]
            mpaxos simulate --seed N [--trace] [--replicas <n>]
            """,
        discussion: "Exit code 1 when a seed violates a safety or liveness rule; the same seed shows it again.")

    /// A range of seeds as Swift spells it.
    struct Seeds: ExpressibleByArgument {
        let range: Range<UInt64>

        init?(argument: String) {
            let ends = argument.split(separator: "..<", omittingEmptySubsequences: false).map { UInt64($0) }
            guard ends.count == 2, let first = ends[0], let last = ends[1], first < last else { return nil }
            range = first..<last
        }
    }

    @Option(help: ArgumentHelp("The seeds to run.", valueName: "A..<B"))
    var seeds: Seeds?

    @Option(help: ArgumentHelp("One seed to run.", valueName: "n"))
    var seed: UInt64?

    @Flag(help: "Print every step.")
    var trace = false

    @Option(help: ArgumentHelp("Replicas, 1 to 9. (default: 2 to 5, by the seed)", valueName: "n"))
    var replicas: Int?

    private static let sizes = [3, 5, 4, 2]
    /// Seeds between two lines of progress.
    private static let stride: UInt64 = 100

    func validate() throws {
        guard (seeds == nil) != (seed == nil) else { throw ValidationError("give either --seeds A..<B or --seed N") }
        guard !trace || seed != nil else { throw ValidationError("--trace goes with --seed N") }
        guard (1...9).contains(replicas ?? 1) else {
            throw ValidationError("--replicas is \(replicas ?? 1), expected 1 to 9")
        }
    }

    func run() throws {
        let first = seeds?.range.lowerBound ?? seed ?? 0
        let count = seeds.map { $0.range.upperBound - $0.range.lowerBound } ?? 1
        var failures = 0
        var decided: UInt64 = 0
        for offset in 0..<count {
            let seed = first + offset
            let report = simulate(seed)
            decided += report.decided
            if let failure = report.failure {
                failures += 1
                print("\(failure); replay with --seed \(seed) --trace\(replicas.map { " --replicas \($0)" } ?? "")")
            }
            let done = offset + 1
            if done % Self.stride == 0 { say("\(done) of \(count) seeds, \(failures) failed") }
        }
        print("\(count) seeds, \(failures) failed, \(decided) instances decided")
        if failures > 0 { throw Failure(.notSo) }
    }

    private func simulate(_ seed: UInt64) -> SimulationReport {
        let count = replicas ?? Self.sizes[Int(seed % UInt64(Self.sizes.count))]
        return Simulator(seed: seed, options: SimulationOptions(replicaCount: count, trace: trace)).run()
    }
}
