import MPaxosConsensus
import MPaxosWire

/// Both sides of taking over another replica's state, as the engine's lane meets them: this replica gives, or receives.
final class StateTransfer {
    private let giver: SnapshotGiver
    private let receiver: SnapshotReceiver

    init(giver: SnapshotGiver, receiver: SnapshotReceiver) {
        self.giver = giver
        self.receiver = receiver
    }

    /// Whether it is to be polled though the core is in no need of a state.
    var isActive: Bool { giver.isActive || receiver.isActive }

    func poll(standing: Standing, now: UInt64) {
        giver.poll(standing: standing, now: now)
        receiver.poll(standing: standing, now: now)
    }

    func take(
        _ message: TransferMessage, _ payload: UnsafeRawBufferPointer, from peer: Int, standing: Standing, now: UInt64
    ) {
        switch message {
        case .request(let ticket, let decided, let geometry):
            giver.request(from: peer, ticket: ticket, decided: decided, geometry: geometry, now: now)
        case .ask(let ticket, let offset): giver.ask(from: peer, ticket: ticket, offset: offset, now: now)
        case .offer(let ticket, let offer):
            receiver.offered(offer, ticket: ticket, from: peer, standing: standing, now: now)
        case .chunk(let ticket, let offset, let checksum):
            receiver.came(payload, checksum: checksum, offset: offset, ticket: ticket, from: peer, now: now)
        case .refusal(let ticket, let refusal):
            receiver.refused(refusal, ticket: ticket, from: peer, standing: standing, now: now)
        }
    }
}

/// What a transfer needs to know of the core.
struct Standing {
    /// No peer that answers has the next instance in its log.
    var needsState: Bool
    var decided: UInt64
    var view: UInt64
    var leader: Int?
    var floor: UInt64
    /// What replicas told of their states.
    var digests: DigestComparison
}
