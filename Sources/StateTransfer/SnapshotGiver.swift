import Logging
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosWire

/// Gives a snapshot of this replica's state to another one that no log helps any more. The engine's lane.
///
/// The executor pauses to make a copy, a piece at a time, while the engine goes on to vote; then it executes again, and
/// the chunks come from the copy, as the receiver asks for them. What is executed meanwhile stays in the log as long as
/// the log has room, as always.
package final class SnapshotGiver {
    private enum Phase {
        case idle
        case making
        case giving(StateSnapshot)
    }

    private let port: any TransferPort
    /// By index, for logs.
    private let memberIDs: [UInt16]
    private let board: StatusBoard
    private let order: SnapshotOrder
    private let geometry: UInt64
    private let logger: Logger

    private var phase = Phase.idle
    private var peer = 0
    private var ticket: UInt64 = 0
    private var offer = TransferMessage.Offer(executed: 0, view: 0, size: 0, position: 0, checksum: 0)
    /// When the receiver counts as gone, unless it asks before.
    private var deadline: UInt64 = 0
    private var hasWarned = false
    /// What was asked for furthest, and since when nothing beyond it.
    private var reached: UInt64 = 0
    private var reachedAt: UInt64 = 0
    /// When the next snapshot may be ordered.
    private var restsUntil: UInt64 = 0

    /// Microseconds without a word of the receiver after which its snapshot goes, and of asking for the same.
    static let patience: UInt64 = 5_000_000
    static let longestStall: UInt64 = 60_000_000
    /// Between two snapshots the executor executes: for so long at least, and for nine times as long as that took.
    static let rest: UInt64 = 1_000_000
    /// Microseconds in which the executor should have copied a piece: some times what it waits for others to tell of
    /// its state. One that has not may be stuck for good.
    private static let longestPiece: UInt64 = 10_000_000

    /// How much of the snapshot in the making was seen to be copied, and when that changed last.
    private var seen: UInt64 = 0
    private var advancedAt: UInt64 = 0

    package init(
        port: any TransferPort, memberIDs: [UInt16], order: SnapshotOrder, geometry: UInt64, board: StatusBoard,
        logger: Logger
    ) {
        self.port = port
        self.memberIDs = memberIDs
        self.board = board
        self.order = order
        self.geometry = geometry
        self.logger = logger
    }

    var isActive: Bool {
        if case .idle = phase { false } else { true }
    }

    private var receiver: String { "replica \(memberIDs[peer])" }

    // MARK: Requests

    func request(
        from: Int, ticket: UInt64, decided: UInt64, geometry: UInt64, standing: Standing, now: UInt64
    ) {
        func refuse(_ refusal: TransferMessage.Refusal) { port.send(.refusal(ticket: ticket, refusal), to: from) }
        guard geometry == self.geometry else { return refuse(.otherGeometry) }
        guard !standing.isInDispute else { return refuse(.inDispute) }
        guard standing.executed > decided else { return refuse(.notFurther) }
        guard !isActive || peer == from else { return refuse(.busy) }
        let isRepeated = isActive && ticket == self.ticket
        if case .giving = phase, isRepeated {
            deadline = now + Self.patience
            port.send(.offer(ticket: ticket, offer), to: from)
            return
        }
        if case .making = phase {
            // One in the making will do also for who began anew meanwhile.
        } else {
            // Who asks for one after the other is not to keep the executor from its work.
            guard now >= restsUntil else { return refuse(.notYet) }
            phase = .making
            (seen, advancedAt) = (order.progress, now)
            order.place()
            logger.info(
                "replica \(memberIDs[from]) asks for a snapshot of the state: no log reaches back to where it stands"
            )
        }
        (peer, self.ticket) = (from, ticket)
        if order.progress != seen { (seen, advancedAt) = (order.progress, now) }
        // Another one is to be asked, until this one has made it after all.
        refuse(now < advancedAt + Self.longestPiece ? .notYet : .failed)
    }

    func ask(from: Int, ticket: UInt64, offset: UInt64, now: UInt64) {
        guard case .giving(let snapshot) = phase, from == peer, ticket == self.ticket, offset <= UInt64(snapshot.size)
        else {
            port.send(.refusal(ticket: ticket, .unknownTicket), to: from)
            return
        }
        deadline = now + Self.patience
        if offset > reached { (reached, reachedAt) = (offset, now) }
        let offset = Int(offset)
        let count = min(TransferMessage.chunkSize, snapshot.size - offset)
        if count == 0 {
            logger.info("gave \(receiver) the state after instance \(snapshot.executed), \(snapshot.size) bytes")
            board.statesGiven.add(1)
            phase = .idle
        } else if !port.sendChunk(
            count, at: offset, ticket: ticket, to: peer, fill: { snapshot.read(at: offset, into: $0) })
        {
            logger.error("cannot read the snapshot of the state that \(receiver) takes; it will have to ask again")
            port.send(.refusal(ticket: ticket, .failed), to: peer)
            phase = .idle
        }
    }

    // MARK: Turns

    func poll(standing: Standing, now: UInt64) {
        switch phase {
        case .idle: break
        case .making:
            guard let result = order.collect() else { return }
            restsUntil = now + max(Self.rest, 9 * (now - min(now, order.pausedSince)))
            switch result {
            case .success where standing.isInDispute:
                port.send(.refusal(ticket: ticket, .inDispute), to: peer)
                phase = .idle
            case .success(let snapshot): give(snapshot, view: standing.view, now: now)
            case .failure(let error):
                logger.error("cannot give \(receiver) the state: \(error)")
                port.send(.refusal(ticket: ticket, error.kind == .noSpace ? .noRoom : .failed), to: peer)
                phase = .idle
            }
        case .giving(let snapshot):
            if standing.floor > snapshot.executed + 1, !hasWarned {
                hasWarned = true
                logger.warning(
                    "the log begins at \(standing.floor) now, behind the snapshot that \(receiver) takes, which has all up to \(snapshot.executed): if no other log reaches back, it will need another snapshot; with a larger log_size this does not happen"
                )
            }
            if now >= deadline || now >= reachedAt + Self.longestStall {
                logger.warning("\(receiver) asks for nothing any more: its snapshot of the state is given up")
                phase = .idle
            }
        }
    }

    private func give(_ snapshot: StateSnapshot, view: UInt64, now: UInt64) {
        // The snapshot was executed before now: nothing in it was decided in a view above the one promised now.
        offer = TransferMessage.Offer(
            executed: snapshot.executed, view: view, size: UInt64(snapshot.size), position: snapshot.position,
            checksum: snapshot.checksum)
        logger.info(
            "gives \(receiver) the state after instance \(snapshot.executed), \(snapshot.size) bytes; executing paused for \((now - order.pausedSince) / 1000) ms to copy it"
        )
        phase = .giving(snapshot)
        deadline = now + Self.patience
        (reached, reachedAt) = (0, now)
        hasWarned = false
        port.send(.offer(ticket: ticket, offer), to: peer)
    }
}
