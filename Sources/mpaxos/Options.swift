import ArgumentParser
import Glibc
import Logging
import MPaxosClient
import MPaxosKeys
import MPaxosTopology

/// The topology that a command is about.
struct TopologyOptions: ParsableArguments {
    @Option(name: .customLong("topology"), help: ArgumentHelp("The topology file of the cluster.", valueName: "file"))
    var file: String

    /// - Throws: `TopologyError`, which ends the program with code 2.
    func read() throws -> Topology { try Topology(contentsOf: Arguments.text(of: file)) }
}

/// Who a command is to a cluster whose clients have keys.
struct KeyOptions: ParsableArguments {
    private static let variable = "MPAXOS_KEY"

    @Option(
        name: .customLong("key"),
        help: ArgumentHelp(
            "The file of the key pair to ask with, where clients of the cluster have keys. (default: $\(variable), or operator.key in the folder of the host's keys)",
            valueName: "file"))
    var file: String?

    /// The keys for `topology`; nil where its clients have none.
    func read(for topology: Topology) throws -> ClusterKeys? {
        guard topology.clientsHaveKeys else { return nil }
        guard let path = try path(for: topology) else {
            throw Failure(
                .usage,
                "clients of \(topology.name) need a key: name the file of one with --key or in \(Self.variable), or have it at \(topology.operatorKeyFile); `mpaxos keys new` makes one"
            )
        }
        do throws(KeyFileError) {
            return ClusterKeys(own: try KeyFile.read(path), topology: topology)
        } catch {
            throw Failure(.refused, error.description)
        }
    }

    private func path(for topology: Topology) throws -> String? {
        if let file { return try Arguments.text(of: file) }
        if let value = getenv(Self.variable), value.pointee != 0 { return String(cString: value) }
        // One that is there and cannot be read is refused with a sentence.
        return access(topology.operatorKeyFile, F_OK) == 0 ? topology.operatorKeyFile : nil
    }
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
