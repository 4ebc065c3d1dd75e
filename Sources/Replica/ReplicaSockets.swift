import MPaxosConsensus
import MPaxosLinks
import MPaxosMessaging
import MPaxosPipeline
import MPaxosQueues
import MPaxosStateMachines
import MPaxosTopology
import MPaxosTransport
import MPaxosWire

/// The sockets of one life of a replica: bound and connected, and nothing received yet.
struct ReplicaSockets {
    /// None without keys. Their end is that of the contexts.
    let handlers: [ZAPHandler]
    let clients: ClientPort & Watched
    let peers: LibzmqLinkSockets

    /// Bytes: a batch of one request of the largest `max_request`, 16 MiB, and more than any `batch_bytes`.
    private static let largestBatchElsewhere = 17 << 20

    /// - Parameter largestBatch: bytes that this replica's log has room for.
    init<Machine: StateMachine>(of node: ReplicaLife<Machine>.Surroundings, largestBatch: Int) throws(MessagingError) {
        let (topology, member, keys) = (node.topology, node.member, node.keys)
        // Also where this replica's log is smaller than that of others: a batch that it has no room for is no reason to
        // lose the link.
        let largestFrame = PeerHeader.size + max(largestBatch, Self.largestBatchElsewhere)
        let context = try Context(ioThreads: topology.pipeline.ioThreads)
        // Clients with keys have threads of libzmq's of their own: a handshake costs more than a request, whoever
        // comes, and the links between replicas must not wait for those of strangers.
        let clientContext =
            topology.clientsHaveKeys ? try Context(ioThreads: topology.pipeline.ioThreads) : context
        // Before there is a port: libzmq lets everybody in where it finds no handler.
        var handlers: [ZAPHandler] = []
        if let keys {
            for context in clientContext === context ? [context] : [context, clientContext] {
                handlers.append(try ZAPHandler(in: context, naming: KeyRing.clients) { keys.admit($0) })
            }
        }
        self.handlers = handlers
        clients = try ClientPort.bound(
            to: member.clientBind.description, topology.client, topology.limits, in: clientContext,
            keys: topology.clientsHaveKeys ? keys : nil, board: node.board)
        let port = try LibzmqLinkSockets.Port(
            binding: member.peerBind.description, in: context, keys: keys, largestFrame: largestFrame,
            bounds: .init(budget: topology.limits.peerInput, seconds: topology.limits.messageSeconds),
            board: node.board)
        peers = try LibzmqLinkSockets(
            index: node.index, port: port, to: topology.replicas.map(\.peer.description), in: context, keys: keys,
            largestFrame: largestFrame)
    }

    /// The stage that talks to the other replicas.
    /// - Parameter skips: positions of commands that this replica skips, or has skipped.
    func links<Machine: StateMachine>(
        of node: ReplicaLife<Machine>.Surroundings, charter: Charter, skips: [UInt64], pools: RecoveredPools,
        stages: ReplicaStages<Machine>, engine: Parker
    ) -> PeerLinks {
        let (topology, member, alarm) = (node.topology, node.member, node.alarm)
        return PeerLinks(
            settings: .init(
                index: node.index, cluster: topology.name, replica: member.id, charter: charter,
                fingerprint: charter.fingerprint(layout: pools.state.geometry.fingerprint),
                members: topology.replicas.map {
                    Handshake.Member(
                        id: $0.id, incarnation: 0, life: .none,
                        peerEndpoint: $0.peer.description, clientEndpoint: $0.client.description)
                }, acquaintances: pools.acquaintances(of: node.ids, index: node.index), skips: skips),
            sockets: peers, random: { UInt64.random(in: 1...UInt64.max) },
            progress: stages.progress, board: node.board, logger: node.logger, rings: stages.rings,
            engine: engine,
            expelled: {
                alarm.raise(
                    .init(
                        text: "\(member.acceptorPool) and \(member.statePool) cannot be used any more: \($0)",
                        isExpelled: true))
            })
    }
}
