import MPaxosConsensus
import MPaxosWire

/// Both sides of taking over another replica's state, as the engine's lane meets them: this replica gives, or receives.
package final class StateTransfer {
    private let giver: SnapshotGiver
    private let receiver: SnapshotReceiver

    package init(giver: SnapshotGiver, receiver: SnapshotReceiver) {
        self.giver = giver
        self.receiver = receiver
    }

    /// Whether it is to be polled though the core is in no need of a state.
    package var isActive: Bool { giver.isActive || receiver.isActive }

    package func poll(standing: Standing, now: UInt64) {
        giver.poll(standing: standing, now: now)
        receiver.poll(standing: standing, now: now)
    }

    package func take(
        _ message: TransferMessage, _ payload: UnsafeRawBufferPointer, from peer: Int, standing: Standing, now: UInt64
    ) {
        switch message {
        case .request(let ticket, let decided, let geometry):
            giver.request(
                from: peer, ticket: ticket, decided: decided, geometry: geometry, standing: standing, now: now)
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
package struct Standing {
    /// No peer that answers has the next instance in its log.
    var needsState: Bool
    var decided: UInt64
    var view: UInt64
    var leader: Int?
    var floor: UInt64
    /// What replicas told of their states.
    var digests: DigestComparison
    /// What is committed, and whether it is in dispute.
    var executed: UInt64
    var isInDispute: Bool

    package init(
        needsState: Bool, decided: UInt64, view: UInt64, leader: Int?, floor: UInt64, digests: DigestComparison,
        executed: UInt64, isInDispute: Bool
    ) {
        self.needsState = needsState
        self.decided = decided
        self.view = view
        self.leader = leader
        self.floor = floor
        self.digests = digests
        self.executed = executed
        self.isInDispute = isInDispute
    }
}
