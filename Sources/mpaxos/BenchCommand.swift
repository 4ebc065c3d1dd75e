import ArgumentParser
import Glibc
import MPaxosLoadGenerator
import MPaxosTopology

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Load a cluster, and measure throughput and latency.",
        discussion: """
            Without --rate every client sends its next request when the last is answered. With --rate requests start \
            on a schedule, and latency counts from the intended start. Several clients or rates with commas between \
            are a ramp: each is warmed up and measured in turn. Progress goes to standard error, the result to \
            standard output; ctrl-C ends the run early.
            """)

    enum Target: String, ExpressibleByArgument, CaseIterable { case leader, all }
    enum Reads: String, ExpressibleByArgument, CaseIterable { case query, local, ordered }

    @OptionGroup var topology: TopologyOptions
    @OptionGroup var key: KeyOptions

    @Option(
        help: ArgumentHelp("Sessions, each with at most one request outstanding.", valueName: "n,..."))
    var clients = Levels(argument: "100")!

    @Option(
        help: ArgumentHelp(
            "Connections that the clients share. (default: as many as clients, up to 100)", valueName: "c"))
    var connections: Int?

    @Option(
        help: ArgumentHelp(
            "Without --rate: requests outstanding at once; the clients take turns. (default: one of each client)",
            valueName: "n"))
    var outstanding: Int?

    @Option(help: ArgumentHelp("Requests a second: an open loop.", valueName: "r,..."))
    var rate: Levels?

    @Option(help: ArgumentHelp("Bytes of a value, or a range like 16-1024.", valueName: "bytes"))
    var valueSize = SizeRange(argument: "128")!

    @Option(help: ArgumentHelp("Number of keys.", valueName: "n"))
    var keys: UInt64 = 100_000

    @Option(
        help: ArgumentHelp(
            "How keys are drawn: uniform, zipf (exponent 0.99), or zipf:EXPONENT.", valueName: "name"
        ))
    var distribution = KeyDistributionArgument(argument: "uniform")!

    @Option(help: ArgumentHelp("Share of reads, 0 to 1; what is nothing else is a put.", valueName: "share"))
    var readShare = 0.0

    @Option(help: "Reads are linearizable queries, answered by the asked replica as it is, or ordered in the log.")
    var reads = Reads.query

    @Option(help: ArgumentHelp("Share of deletes, 0 to 1.", valueName: "share"))
    var deleteShare = 0.0

    @Option(help: ArgumentHelp("Share of swaps that set a key if it is absent, 0 to 1.", valueName: "share"))
    var createShare = 0.0

    @Option(help: ArgumentHelp("Seconds that are measured, of each step.", valueName: "s"))
    var seconds = 10.0

    @Option(help: ArgumentHelp("Seconds of load before the measurement, of each step.", valueName: "s"))
    var warmup = 2.0

    @Option(help: "Whom to send to: the leader, or all replicas alike.")
    var to = Target.leader

    @Option(help: ArgumentHelp("Seconds until an unanswered request is sent again.", valueName: "s"))
    var requestTimeout = 1.0

    @Option(help: ArgumentHelp("Seconds between lines of progress, and of the time series in JSON.", valueName: "s"))
    var interval = 1.0

    @Option(help: ArgumentHelp("Keys and operations are drawn from this: equal seeds, equal draws.", valueName: "n"))
    var seed: UInt64 = 1

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(help: "Show progress even when standard error is no terminal.")
    var progress = false

    @OptionGroup var timeout: TimeoutOptions

    func run() throws {
        if rate != nil && clients.values.count > 1 {
            throw Failure(.usage, "--clients has several numbers, one expected with --rate")
        }
        let topology = try topology.read()
        var configuration = configuration(for: topology)
        configuration.clusterKeys = try key.read(for: topology)
        let bench = Bench(configuration)
        let steps = configuration.levels.count
        Signals.block()
        Signals.onRequest { _ in bench.stop() }
        let shows = progress || isatty(STDERR_FILENO) == 1
        let result: BenchResult
        do throws(BenchError) {
            result = try bench.run { progress in
                guard shows else { return }
                let line = BenchReport.line(of: progress, steps: steps)
                writeWhole(Array((line + "\n").utf8), to: STDERR_FILENO)
            }
        } catch {
            switch error.kind {
            case .usage: throw Failure(.usage, error.description)
            case .denied: throw Failure(.refused, error.description)
            case .noAnswer: throw Failure(.noAnswer, error.description)
            case .system: throw Failure(.notSo, error.description)
            }
        }
        try Output.line(json ? result.json : BenchReport.text(of: result, isOpenLoop: configuration.isOpenLoop))
    }

    private func configuration(for topology: Topology) -> BenchConfiguration {
        var configuration = BenchConfiguration(endpoints: topology.replicas.map(\.client.description))
        // Anything that is no number of clients becomes one that is refused.
        configuration.sessions = clients.values.max().flatMap { Int(exactly: $0) } ?? 0
        configuration.connections = connections
        configuration.outstanding = outstanding
        if let rate {
            configuration.load = .open(rate: rate.values[0])
            if rate.values.count > 1 { configuration.ramp = rate.values }
        } else if clients.values.count > 1 {
            configuration.ramp = clients.values
        }
        configuration.target = to == .leader ? .leader : .all
        configuration.valueSizes = valueSize.sizes
        configuration.keys = keys
        configuration.keyDistribution = distribution.distribution
        configuration.readShare = readShare
        switch reads {
        case .query: configuration.reads = .query
        case .local: configuration.reads = .local
        case .ordered: configuration.reads = .ordered
        }
        configuration.deleteShare = deleteShare
        configuration.createShare = createShare
        configuration.seconds = seconds
        configuration.warmup = warmup
        configuration.timeout = timeout.timeout
        configuration.requestTimeout = requestTimeout
        configuration.interval = interval
        configuration.seed = seed
        return configuration
    }
}
