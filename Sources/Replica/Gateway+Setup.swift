import MPaxosPipeline
import MPaxosTopology

extension Gateway.Settings {
    init(topology: Topology, index: Int) {
        let client = topology.client
        self.init(
            replica: topology.replicas[index].id, maximumRequest: client.maxRequest,
            maximumOutstanding: client.maxOutstanding, maximumOutstandingBytes: max(64 << 20, 4 * client.maxRequest),
            // Long enough for an election, so that clients see a pause where there could have been an error.
            patience: UInt64(max(1000, 4 * topology.protocol.suspectMilliseconds)) * 1000,
            clientEndpoints: topology.replicas.map { $0.client.description }, index: index,
            epoch: UInt64.random(in: 0...UInt64.max), secret: { UInt64.random(in: 0...UInt64.max) })
    }
}
