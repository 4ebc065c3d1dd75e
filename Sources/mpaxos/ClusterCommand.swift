import ArgumentParser
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology

struct ClusterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster",
        abstract: "Run all replicas of a topology on this host, as child processes.",
        discussion: """
            Prints one line when the cluster serves, and forwards the logs of the replicas with a prefix. Restarts \
            none: a replica that ends stays down, and the others go on. Ctrl-C stops all.
            """)

    @OptionGroup var topology: TopologyOptions

    @Flag(
        help: """
            Create the pools of replicas that have none. Pools that exist are kept, so that a cluster started again \
            goes on with the state it had.
            """)
    var format = false

    @OptionGroup var log: LogOptions

    func run() throws {
        let topology = try topology.read()
        if format { try createMissingPools(of: topology) }
        let supervisor = try ClusterSupervisor(topology: topology, logLevel: log.level.rawValue)
        // Also when its terminal has gone.
        Signals.onRequest { _ in supervisor.requestStop() }
        try supervisor.run()
    }

    private func createMissingPools(of topology: Topology) throws {
        for member in topology.replicas where !ReplicaPools.exist(for: member) {
            try ReplicaPools.format(topology, id: member.id, for: KeyValueService.self)
        }
    }
}
