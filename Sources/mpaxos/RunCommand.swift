import ArgumentParser
import Glibc
import Replica
import StateMachines
import Topology

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a replica in the foreground.",
        discussion: """
            Prints one line, "replica N ready: view V, leader L", once it knows a leader and has caught up. SIGTERM or \
            SIGINT stops it cleanly, with exit code 0. Exit code 3, with what to do, when a pool is missing, damaged, of \
            another replica or cluster, in use, or formatted for other members, another max_request, sessions or \
            state_size than the topology has, or for another service.
            """)

    @OptionGroup var replica: ReplicaOptions
    @OptionGroup var log: LogOptions

    @Flag(help: .hidden)
    var stopWhenInputEnds = false

    func run() throws {
        let (topology, member) = try replica.read()
        Signals.blockTermination()
        let node = try ReplicaNode<KeyValueService>(
            topology: topology, id: member.id, logger: log.makeLogger("replica \(member.id)"))
        Signals.onTermination { node.stop() }
        if stopWhenInputEnds { Signals.terminateWhenInputEnds() }
        try node.run { view, leader in
            writeWhole(Array("replica \(member.id) ready: view \(view), leader \(leader)\n".utf8), to: STDOUT_FILENO)
        }
    }
}
