import ArgumentParser
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology

struct FormatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "format",
        abstract: "Create the two pools of a replica.",
        discussion: """
            Once in the life of a replica. Missing folders are made; the pools' blocks are allocated, not sparse. They \
            keep the members, max_request, sessions and state_size, which cannot change any more. Refuses, with exit \
            code 3, when either pool exists.
            """)

    @OptionGroup var replica: ReplicaOptions

    func run() throws {
        let (topology, member) = try replica.read()
        try ReplicaPools.format(topology, id: member.id, for: KeyValueService.self)
    }
}
