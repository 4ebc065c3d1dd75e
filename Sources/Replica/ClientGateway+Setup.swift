import Messaging
import Topology

extension ClientGateway {
    /// The bound socket of a gateway.
    static func socket(
        for options: Topology.ClientOptions, binding endpoint: String, in context: Context
    ) throws(MessagingError) -> Socket {
        let socket = try Socket(options.socket == .rep ? .rep : .router, in: context)
        // Somewhat too large is answered TOO_LARGE; far too large costs the connection, before memory is spent on it.
        try socket.setMaxMessageSize(max(1 << 20, 4 * options.maxRequest))
        // What a client that does not read can make us hold; beyond it it loses replies, which a retry recovers.
        try socket.setSendHighWaterMark(1000)
        try socket.setReceiveHighWaterMark(1000)
        try socket.setHandshakeInterval(milliseconds: 5000)
        try socket.setTCPKeepAlive(true)
        try socket.setBacklog(1024)
        try socket.setIPv6(true)
        try socket.bind(endpoint)
        return socket
    }
}

extension ClientGateway.Settings {
    init(topology: Topology, index: Int) {
        let client = topology.client
        self.init(
            replica: topology.replicas[index].id, literalREP: client.socket == .rep, maximumRequest: client.maxRequest,
            maximumOutstanding: client.maxOutstanding, maximumOutstandingBytes: max(64 << 20, 4 * client.maxRequest),
            // Long enough for an election, so that clients see a pause where there could have been an error.
            patience: UInt64(max(1000, 4 * topology.protocol.suspectMilliseconds)) * 1000,
            clientEndpoints: topology.replicas.map { $0.client.description }, index: index,
            epoch: UInt64.random(in: 0...UInt64.max))
    }
}
