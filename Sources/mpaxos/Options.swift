import ArgumentParser
import Logging
import Topology

/// The topology that a command is about.
struct TopologyOptions: ParsableArguments {
    @Option(name: .customLong("topology"), help: ArgumentHelp("The topology file of the cluster.", valueName: "file"))
    var file: String

    /// - Throws: `TopologyError`, which ends the program with code 2.
    func read() throws -> Topology { try Topology(contentsOf: Arguments.text(of: file)) }
}

/// One replica of a topology.
struct ReplicaOptions: ParsableArguments {
    @OptionGroup var topology: TopologyOptions

    @Option(help: ArgumentHelp("The id of the replica.", valueName: "n"))
    var id: UInt16

    func read() throws -> (topology: Topology, member: Topology.Member) {
        let topology = try topology.read()
        guard let index = topology.index(of: id) else {
            let known = topology.replicas.map { "\($0.id)" }.joined(separator: ", ")
            throw Failure(.usage, "\(topology.file): there is no replica with id \(id), expected one of \(known)")
        }
        return (topology, topology.replicas[index])
    }
}

/// How much a replica says on standard error.
struct LogOptions: ParsableArguments {
    private static let names = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")

    @Option(
        name: .customLong("log-level"),
        help: ArgumentHelp("Least severity that is logged: \(names). (default: info)", valueName: "level"),
        transform: { name in
            guard let level = Logger.Level(rawValue: name) else {
                throw ValidationError("--log-level is \(name), expected one of \(names)")
            }
            return level
        })
    var level = Logger.Level.info

    /// - Parameter label: what the lines name as their source.
    func makeLogger(_ label: String) -> Logger {
        var logger = Logger(label: label) { StandardErrorLog(label: $0) }
        logger.logLevel = level
        return logger
    }
}

/// How long a command waits for the cluster.
struct TimeoutOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Seconds to wait for the cluster's answer.", valueName: "seconds"))
    var timeout: Double = 10

    func validate() throws {
        guard timeout > 0, timeout <= 86_400 else {
            throw ValidationError("--timeout is \(timeout), expected more than 0 and at most 86400 seconds")
        }
    }
}
