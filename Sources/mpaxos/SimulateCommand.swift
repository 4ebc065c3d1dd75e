import ArgumentParser
import Foundation
import MPaxosClusterSimulation
import MPaxosSimulation

struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run the protocol in a deterministic simulation, with faults drawn from a seed.",
        usage: """
            mpaxos simulate --seeds A..<B [--replicas <n>] [--links|--no-links] [--jobs <n>]
            mpaxos simulate --seed N [--trace] [--replicas <n>] [--links|--no-links] [--faults <n,n>] \
            [--clients <n>] [--duration <ms>]
            mpaxos simulate --planted-bugs <limit>
            mpaxos simulate --whole (--seeds A..<B | --seed N [--trace] [--faults <n,n>] [--duration <ms>] | \
            --planted-bugs <limit>) [--replicas <n>]
            """,
        discussion: """
            Stops at the first seed that violates a safety or liveness rule, with exit code 1 and a shorter run of it \
            if there is one. --planted-bugs switches deliberate mistakes on, one after the other, and tells after how \
            many seeds each is found.
            """)

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

    @Flag(help: "Whole replicas: their stages, pools and clients, not the core alone.")
    var whole = false

    @Option(help: ArgumentHelp("With --whole --seed N, a mistake that is made on purpose.", valueName: "name"))
    var plant: ClusterPlant?

    @Flag(help: "Print every step.")
    var trace = false

    @Option(help: ArgumentHelp("Replicas, 1 to 9. (default: 1 to 7, mostly 3 or 5, by the seed)", valueName: "n"))
    var replicas: Int?

    @Flag(
        inversion: .prefixedNo,
        help: "Links that take their time, or a network that loses and repeats. (default: by the seed)")
    var links: Bool?

    /// Numbers of faults, or none.
    struct Faults: ExpressibleByArgument {
        let numbers: Set<Int>

        init?(argument: String) {
            if argument == "none" {
                numbers = []
                return
            }
            let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
            guard parts.allSatisfy({ $0 ?? 0 > 0 }) else { return nil }
            numbers = Set(parts.compactMap(\.self))
        }
    }

    @Option(
        help: ArgumentHelp(
            "Of the faults of a seed only these, counted from 1, or none. (default: all)", valueName: "n,n"))
    var faults: Faults?

    @Option(help: ArgumentHelp("At most so many clients, at least 1.", valueName: "n"))
    var clients: Int?

    @Option(help: ArgumentHelp("Length of the phase with faults. (default: 2000)", valueName: "ms"))
    var duration: UInt64?

    @Option(help: ArgumentHelp("Seeds to run at a time. (default: one a core)", valueName: "n"))
    var jobs: Int?

    @Option(
        help: ArgumentHelp(
            "Hunt each planted bug from five first seeds, with at most so many seeds.", valueName: "limit"))
    var plantedBugs: UInt64?

    func validate() throws {
        let modes = (seeds == nil ? 0 : 1) + (seed == nil ? 0 : 1) + (plantedBugs == nil ? 0 : 1)
        guard plant == nil || (whole && seed != nil) else {
            throw ValidationError("--plant goes with --whole --seed N")
        }
        guard !whole || (links == nil && clients == nil) else {
            throw ValidationError("--links and --clients are not for --whole, whose seeds have their own")
        }
        guard modes == 1 else { throw ValidationError("give one of --seeds A..<B, --seed N, --planted-bugs <limit>") }
        guard !trace || seed != nil else { throw ValidationError("--trace goes with --seed N") }
        guard seed != nil || (faults == nil && clients == nil && duration == nil) else {
            throw ValidationError("--faults, --clients and --duration go with --seed N")
        }
        guard clients ?? 1 > 0 else { throw ValidationError("--clients is \(clients ?? 1), expected at least 1") }
        guard (1...1_000_000).contains(duration ?? 1) else {
            throw ValidationError("--duration is \(duration ?? 1), expected 1 to 1000000 milliseconds")
        }
        guard (1...9).contains(replicas ?? 1) else {
            throw ValidationError("--replicas is \(replicas ?? 1), expected 1 to 9")
        }
        guard jobs ?? 1 > 0 else { throw ValidationError("--jobs is \(jobs ?? 1), expected at least 1") }
        guard plantedBugs ?? 1 > 0 else { throw ValidationError("--planted-bugs is 0, expected at least 1") }
    }

    func run() throws {
        if whole { return try runWhole() }
        if let seeds { try run(seeds.range) }
        if let seed { try replay(seed) }
        if let plantedBugs { try hunt(limit: plantedBugs) }
    }

    private func run(_ range: Range<UInt64>) throws {
        let totals = try run(SeedRun(seeds: range, replicaCount: replicas, links: links), range)
        guard let failure = totals.failure else { return }
        try Output.line("\(failure)")
        try printReplay(
            of: failure.seed,
            options: SeedRun.options(seed: failure.seed, replicaCount: totals.replicaCount, links: links))
        throw Failure(.notSo)
    }

    /// Runs the seeds of a range, and says what came of them.
    func run(_ seeds: SeedRun, _ range: Range<UInt64>) throws -> SeedRun.Totals {
        let jobs = jobs ?? ProcessInfo.processInfo.activeProcessorCount
        let start = ContinuousClock.now
        let totals = seeds.run(jobs: jobs) { totals in
            let rate = Double(totals.time) / 1e6 / (ContinuousClock.now - start).seconds
            say("\(totals.done) of \(range.count) seeds, \(Int(rate)) simulated seconds a second")
        }
        let simulated = Double(totals.time) / 1e6
        let rate = simulated / (ContinuousClock.now - start).seconds
        try Output.line(
            "\(totals.done) seeds: \(Int(simulated)) simulated seconds, \(Int(rate)) a second; \(totals.decided) instances decided, \(totals.answered) answers, \(totals.crashes) crashes, \(totals.elections) elections; the slowest convergence took \(totals.boundUsed / 10)% of its bound (seed \(totals.slowest))"
        )
        return totals
    }

    private func printReplay(of seed: UInt64, options: SimulationOptions) throws {
        let network = options.links.map { $0 ? " --links" : " --no-links" } ?? ""
        let whole = "mpaxos simulate --seed \(seed) --replicas \(options.replicaCount)\(network) --trace"
        guard let shrink = Shrink(seed: seed, options: options), let failure = shrink.report.failure else {
            try Output.line("replay: \(whole)")
            return
        }
        var replay = "mpaxos simulate --seed \(seed) --replicas \(options.replicaCount)\(network)"
        if let faults = shrink.options.faults {
            replay += " --faults \(faults.isEmpty ? "none" : faults.sorted().map(String.init).joined(separator: ","))"
        }
        if shrink.options.clientLimit < .max { replay += " --clients \(shrink.options.clientLimit)" }
        if shrink.options.duration < options.duration { replay += " --duration \(shrink.options.duration / 1000)" }
        try Output.line("as it was: \(whole)")
        try Output.line(
            "shrunk to \(shrink.report.steps) steps, \(shrink.options.faults?.count ?? shrink.report.faults) faults: \(failure)"
        )
        try Output.line("replay: \(replay) --trace")
    }

    private func replay(_ seed: UInt64) throws {
        var options = SeedRun.options(seed: seed, replicaCount: replicas, links: links)
        options.trace = trace
        options.faults = faults?.numbers
        options.clientLimit = clients ?? .max
        if let duration { options.duration = 1000 * duration }
        let report = Simulator(seed: seed, options: options).run()
        if let failure = report.failure {
            try Output.line("\(failure)")
            throw Failure(.notSo)
        }
        try Output.line(
            "seed \(seed), \(options.replicaCount) replicas: \(report.decided) instances decided, \(report.answered) answers, \(report.crashes) crashes, \(report.elections) elections: no failure"
        )
    }

    private func hunt(limit: UInt64) throws {
        var isMissed = false
        for hunt in BugHunt.all {
            let counts = (0..<5 as Range<UInt64>).map { hunt.run(from: $0 * 1_000_000, limit: limit)?.seeds }
            let median = counts.map { $0 ?? .max }.sorted()[2]
            isMissed = isMissed || median == .max
            let each = counts.map { $0.map { "\($0)" } ?? "-" }.joined(separator: " ")
            try Output.line(
                "\(hunt.name), \(hunt.replicaCount) replicas: \(median == .max ? "not found" : "median \(median)"), each: \(each)"
            )
        }
        if isMissed { throw Failure(.notSo) }
    }
}

extension Duration {
    fileprivate var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
