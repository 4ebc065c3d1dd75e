import Glibc
import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosTopology
import MPaxosZMTP

extension ClientPort {
    // Somewhat too large is answered TOO_LARGE; far too large costs the connection, before memory is spent on it.
    private static func largestMessage(_ options: Topology.ClientOptions) -> Int {
        max(1 << 20, 4 * options.maxRequest)
    }

    /// What the process's descriptors leave to clients: a crowd of them must not take those that pools, links to other
    /// replicas, strangers at the peer port and HTTP need, whenever these come.
    private static func mostConnections(_ bounds: Topology.Limits) -> Int {
        var limit = rlimit()
        let isKnown = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
        invariant(isKnown, "a process has a limit of descriptors")
        let descriptors = Int(clamping: limit.rlim_cur)
        // 256 do for 64 of each of the two.
        let strangers = StrangerWatch.Bounds(budget: bounds.peerInput, seconds: bounds.messageSeconds).connections
        let others = 256 + max(0, bounds.httpConnections - 64) + max(0, strangers - 64)
        return max(1, descriptors - min(others, descriptors / 2))
    }

    /// The port that the options ask for, bound. With `keys` it is one of libzmq's.
    package static func bound(
        to endpoint: String, _ options: Topology.ClientOptions, _ bounds: Topology.Limits, in context: Context,
        keys: KeyRing?, board: StatusBoard
    ) throws(MessagingError) -> ClientPort & Watched {
        switch options.socket {
        case .router where keys == nil:
            let limits = Router.Limits(
                largestMessage: largestMessage(options),
                // What clients that do not read can make us hold; beyond it they lose replies, which a retry recovers.
                // All that one asked for in a turn must fit, since it cannot read meanwhile.
                mostQueued: max(64 << 20, 4 * options.maxRequest),
                mostQueuedTogether: max(256 << 20, 8 * options.maxRequest), mostHeldTogether: bounds.clientInput,
                handshakeTime: 5_000_000, messageSeconds: bounds.messageSeconds,
                silenceSeconds: bounds.silenceSeconds, mostConnections: mostConnections(bounds))
            do throws(SocketError) {
                return RouterPort(try Router(listeningAt: endpoint, limits: limits), board: board)
            } catch {
                throw MessagingError("bind", endpoint: endpoint, code: error.code)
            }
        case .router, .rep, .libzmqRouter:
            let isREP = options.socket == .rep
            try requireFree(endpoint)
            let socket = try Socket(isREP ? .rep : .router, in: context)
            try socket.setMaxMessageSize(largestMessage(options) + Socket.curveOverhead)
            try socket.setSendHighWaterMark(1000)
            try socket.setReceiveHighWaterMark(1000)
            try socket.setHandshakeInterval(milliseconds: 5000)
            let silence = bounds.silenceSeconds
            try socket.setHeartbeat(intervalMilliseconds: max(1, silence / 3) * 1000, timeout: silence * 1000)
            try socket.setTCPKeepAlive(findingDeadAfter: silence)
            try socket.setBacklog(1024)
            try socket.setIPv6(true)
            let door = try keys.map { keys throws(MessagingError) in
                try LibzmqPort.Door(
                    keys, to: socket,
                    .ofHandshakes(
                        budget: bounds.clientInput, seconds: bounds.messageSeconds,
                        descriptors: mostConnections(bounds)),
                    board)
            }
            if let door {
                try door.strangers.bind(socket, to: endpoint)
            } else {
                try socket.bind(endpoint)
            }
            return LibzmqPort(socket, isREP: isREP, outstanding: options.maxOutstanding, door: door)
        }
    }
}
