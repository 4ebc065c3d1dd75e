import MPaxosPipeline
import MPaxosStateMachines
import MPaxosTopology

extension ReplicaStages.Options {
    /// What the topology says of the replica at `index`.
    init(topology: Topology, index: Int) {
        let (client, options) = (topology.client, topology.protocol)
        self.init(
            index: index, memberIDs: topology.replicas.map(\.id),
            clientEndpoints: topology.replicas.map { $0.client.description }, window: options.window,
            heartbeat: UInt64(options.heartbeatMilliseconds) * 1000,
            suspect: UInt64(options.suspectMilliseconds) * 1000,
            batchDelay: UInt64(options.batchDelayMicroseconds), batchBytes: options.batchBytes,
            maxRequest: client.maxRequest, maxOutstandingBytes: max(64 << 20, 4 * client.maxRequest),
            maxOutstanding: client.maxOutstanding,
            // Long enough for an election, so that clients see a pause where there could have been an error.
            patience: UInt64(max(1000, 4 * options.suspectMilliseconds)) * 1000)
    }
}
