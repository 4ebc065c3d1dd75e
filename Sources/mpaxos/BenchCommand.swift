import ArgumentParser
import Glibc
import LoadGenerator
import Topology

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Load a cluster, and measure throughput and latency.",
        discussion: """
            Without --rate every client sends its next request when the last is answered. With --rate requests start on \
            a schedule, and latency counts from the intended start. Progress goes to standard error, the result to \
            standard output; ctrl-C ends the run early.
            """)

    enum Target: String, ExpressibleByArgument, CaseIterable { case leader, all }

    @OptionGroup var topology: TopologyOptions

    @Option(help: ArgumentHelp("Sessions, each with at most one request outstanding.", valueName: "n"))
    var clients = 100

    @Option(
        help: ArgumentHelp(
            "Connections that the clients share. (default: as many as clients, up to 100)", valueName: "c"))
    var connections: Int?

    @Option(help: ArgumentHelp("Requests a second: an open loop.", valueName: "r"))
    var rate: Double?

    @Option(help: ArgumentHelp("Bytes of a value.", valueName: "bytes"))
    var valueSize = 128

    @Option(help: ArgumentHelp("Number of keys, drawn evenly.", valueName: "n"))
    var keys: UInt64 = 100_000

    @Option(help: ArgumentHelp("Share of reads, 0 to 1; the rest are puts.", valueName: "share"))
    var readShare = 0.0

    @Option(help: ArgumentHelp("Seconds that are measured.", valueName: "s"))
    var seconds = 10.0

    @Option(help: ArgumentHelp("Seconds of load before the measurement.", valueName: "s"))
    var warmup = 2.0

    @Option(help: "Whom to send to: the leader, or all replicas alike.")
    var to = Target.leader

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @OptionGroup var timeout: TimeoutOptions

    func run() throws {
        let topology = try topology.read()
        let bench = Bench(configuration(for: topology))
        Signals.blockTermination()
        Signals.onTermination { bench.stop() }
        do throws(BenchError) {
            let result = try bench.run { progress in
                writeWhole(Array((Self.line(of: progress) + "\n").utf8), to: STDERR_FILENO)
            }
            print(json ? result.json : Self.table(of: result))
        } catch {
            switch error.kind {
            case .usage: throw Failure(.usage, error.description)
            case .noAnswer: throw Failure(.noAnswer, error.description)
            case .system: throw Failure(.notSo, error.description)
            }
        }
    }

    private func configuration(for topology: Topology) -> BenchConfiguration {
        var configuration = BenchConfiguration(endpoints: topology.replicas.map(\.client.description))
        configuration.sessions = clients
        configuration.connections = connections
        if let rate { configuration.load = .open(rate: rate) }
        configuration.target = to == .leader ? .leader : .all
        configuration.valueSize = valueSize
        configuration.keys = keys
        configuration.readShare = readShare
        configuration.seconds = seconds
        configuration.warmup = warmup
        configuration.timeout = timeout.timeout
        return configuration
    }

    private static func line(of progress: BenchProgress) -> String {
        var line = "\(progress.phase.rawValue) \(decimal(progress.elapsed, 0)) s:"
        if progress.phase == .opening {
            line += " \(progress.sessions) sessions open"
        } else {
            line +=
                " \(decimal(progress.rate, 0))/s, p50 \(decimal(progress.p50, 0)) us, p99 \(decimal(progress.p99, 0)) us"
        }
        if progress.counts.errors > 0 { line += ", \(progress.counts.errors) errors" }
        return line
    }

    private static func table(of result: BenchResult) -> String {
        var rows: [(String, String)] = [
            ("throughput", "\(decimal(result.rate, 0)) requests/s"),
            ("p50", "\(decimal(result.p50, 1)) us"),
            ("p90", "\(decimal(result.p90, 1)) us"),
            ("p99", "\(decimal(result.p99, 1)) us"),
            ("p99.9", "\(decimal(result.p999, 1)) us"),
            ("max", "\(decimal(result.max, 1)) us"),
            ("errors", "\(result.counts.errors)"),
            ("measured", "\(decimal(result.seconds, 2)) s, \(result.completed) requests"),
        ]
        if let processorTime = result.replicaProcessorTime {
            rows.append(("replica cpu", "\(decimal(processorTime, 2)) us a request, all replicas together"))
        }
        rows.append(("generator cpu", "\(decimal(result.generatorProcessorTime, 2)) us a request"))
        let counts = result.counts
        let events = [
            ("busy", counts.busy), ("no leader", counts.noLeader), ("redirects", counts.redirects),
            ("timeouts", counts.timeouts), ("disconnects", counts.disconnects), ("expired sessions", counts.expired),
        ].filter { $0.1 > 0 }.map { "\($0.1) \($0.0)" }
        if !events.isEmpty { rows.append(("events", events.joined(separator: ", "))) }
        return Table.aligned(rows.map { [$0.0, $0.1] })
    }
}
