import ArgumentParser
import Replica
import Topology

struct FormatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "format",
        abstract: "Create the two pools of a replica.",
        discussion: """
            Once in the life of a replica. Missing folders are made; the pools' blocks are allocated, not sparse. \
            Refuses, with exit code 3, when either pool exists.
            """)

    @OptionGroup var replica: ReplicaOptions

    func run() throws {
        let (topology, member) = try replica.read()
        try ReplicaPools.format(topology, id: member.id)
    }
}
