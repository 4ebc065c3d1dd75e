import ArgumentParser
import Glibc
import MPaxosKeys
import MPaxosPersistentMemory
import MPaxosReplica
import MPaxosTopology

/// The one executable: replicas, and what one does with them from a shell.
struct MPaxos: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mpaxos",
        abstract: "A replicated state machine in persistent memory: Multi-Paxos over ZeroMQ.",
        discussion: """
            Exit codes: 0 done; 1 the thing asked is not so (absent key, damage found); 2 usage or topology error; 3 \
            refused for safety; 4 the cluster does not answer. A replica that finds itself broken ends by a signal. \
            What to do about each: docs/operations.md.
            """,
        version: Release.version,
        subcommands: [
            FormatCommand.self, RunCommand.self, ClusterCommand.self, StatusCommand.self, KVCommand.self,
            BenchCommand.self, DumpCommand.self, DigestCommand.self, KeysCommand.self,
            SimulateCommand.self,
        ])
}

@main enum Main {
    static func main() {
        // Theirs are for a thread that is not made yet; the other commands end as the system has it.
        if ["run", "cluster"].contains(Arguments.all.first) { Signals.block() }
        Output.prepare()
        do {
            var command = try MPaxos.parseAsRoot(Arguments.all)
            try command.run()
            try Output.finish()
        } catch {
            finish(with: error)
        }
    }

    /// Says what went wrong, and exits with the code that the command line promises for it.
    private static func finish(with error: any Error) -> Never {
        switch error {
        case let failure as Failure: end(failure.code, failure.message)
        case let topology as TopologyError: end(.usage, topology.description)
        case let replica as ReplicaError: end(replica.kind == .configuration ? .usage : .refused, replica.description)
        case let pool as PoolError: end(.refused, pool.description)
        case let key as KeyFileError: end(.refused, key.description)
        default: break
        }
        let code = MPaxos.exitCode(for: error)
        let message = MPaxos.fullMessage(for: error)
        if code == .success {
            do {
                if !message.isEmpty { try Output.line(message) }
                try Output.finish()
            } catch {
                finish(with: error)
            }
            exit(0)
        }
        // ArgumentParser's own code for a usage error is 64.
        end(code == .validationFailure ? .usage : .notSo, message)
    }

    /// - Parameter message: begins with what it is about, often a file: no prefix.
    private static func end(_ code: Failure.Code, _ message: String) -> Never {
        // What was printed before it went wrong.
        fflush(nil)
        if !message.isEmpty { sayBriefly("\(message)\n") }
        exit(code.rawValue)
    }
}
