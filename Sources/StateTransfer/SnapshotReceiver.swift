import Logging
import MPaxosConsensus
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosWire

/// Takes the state of another replica when no log reaches back to where this one stands. The engine's lane; slow work
/// on the file is done at the desk meanwhile, so that this replica promises and acknowledges as long as it can.
///
/// An empty pool is prepared, a giver asked for its snapshot, chunks fetched in order, the whole verified; then the
/// node stops its stages, puts the new pool in place and opens anew. Each step has a deadline, after which another
/// giver is asked, with a pool that is empty again.
package final class SnapshotReceiver {
    private enum Phase {
        case idle
        /// Until `deadline`, after all givers failed, or the file system. What was prepared already is kept.
        case resting(IncomingSnapshot?)
        /// At the desk.
        case preparing
        case requesting(IncomingSnapshot)
        case receiving(IncomingSnapshot)
        /// At the desk.
        case finishing(IncomingSnapshot)
        /// Whole, and kept until `deadline` for the word of a third replica.
        case comparing(IncomingSnapshot)
        /// The node is about to stop the lanes.
        case installing
    }

    private let port: any TransferPort
    /// By index, for logs.
    private let memberIDs: [UInt16]
    private let board: StatusBoard
    private let desk: TransferDesk
    private let geometry: UInt64
    private let logger: Logger
    /// Microseconds that the core must be in need before a transfer begins: until then some other log may help.
    private let reluctance: UInt64
    private var random: Random

    private var phase = Phase.idle
    /// 0: it is not in need, as far as it knows.
    private var needsSince: UInt64 = 0
    private var giver = 0
    /// Bit i: replica i was asked since the last rest.
    private var tried: UInt16 = 0
    private var ticket: UInt64 = 0
    private var view: View = 0
    private var deadline: UInt64 = 0
    /// When to say again what may have been lost.
    private var again: UInt64 = 0
    /// How long chunks are waited for before they are asked for again; doubled each time, so that a slow link is not
    /// filled with the same.
    private var pause: UInt64 = 0
    private var nextAsk = 0
    /// Where chunks were found lost last.
    private var wentBack = -1
    private var tenths = 0
    private var began: UInt64 = 0

    private static let chunksUnderWay = 4
    /// Microseconds of silence after which a giver is given up; after which it is asked again; and of rest when nothing
    /// helped.
    private static let patience: UInt64 = 6_000_000
    private static let repetition: UInt64 = 500_000
    private static let longestRepetition: UInt64 = 2_000_000
    private static let rest: UInt64 = 1_000_000
    private static let longRest: UInt64 = 10_000_000
    /// Microseconds that a giver may take to make its snapshot.
    private static let longestMaking: UInt64 = 600_000_000
    /// Microseconds that a snapshot is kept for the word of a third replica: of an instance that each tells of when it
    /// comes there, and else of one that it has told of by now if it was as quiet there as the giver.
    private static let longestComparison: UInt64 = 3_000_000
    private static let shortComparison: UInt64 = 300_000

    /// - Parameter seed: of which givers and tickets are drawn.
    package init(
        port: any TransferPort, memberIDs: [UInt16], desk: TransferDesk, geometry: UInt64, reluctance: UInt64,
        seed: UInt64, board: StatusBoard, logger: Logger
    ) {
        self.port = port
        self.memberIDs = memberIDs
        self.board = board
        random = Random(seed: seed)
        self.desk = desk
        self.geometry = geometry
        self.reluctance = reluctance
        self.logger = logger
    }

    /// Also while it waits whether the need lasts.
    var isActive: Bool {
        if case .idle = phase { needsSince != 0 } else { true }
    }

    private var giverName: String { "replica \(memberIDs[giver])" }

    // MARK: Turns

    func poll(standing: Standing, now: UInt64) {
        switch phase {
        case .idle:
            guard standing.needsState else {
                needsSince = 0
                return
            }
            if needsSince == 0 { needsSince = now }
            if now >= needsSince + reluctance { prepare() }
        case .resting(let prepared):
            guard now >= deadline else { return }
            guard standing.needsState else { return abandon(prepared) }
            if let prepared { choose(prepared, standing, now: now) } else { prepare() }
        case .preparing:
            switch desk.takeOutcome() {
            case .prepared(let snapshot): standing.needsState ? choose(snapshot, standing, now: now) : abandon(snapshot)
            case .failed(let error):
                logger.error("cannot take another replica's state: \(error); it is tried again in 10 s")
                rest(Self.longRest, keeping: nil, now: now)
            case .finished: broken("a snapshot is prepared before it is finished")
            case nil: break
            }
        case .requesting(let snapshot), .receiving(let snapshot):
            guard standing.needsState else {
                logger.info("the log of a peer reaches back again: no snapshot is needed")
                return abandon(snapshot)
            }
            watch(snapshot, standing, now: now)
        case .finishing(let snapshot):
            switch desk.takeOutcome() {
            case .finished:
                phase = .comparing(snapshot)
                let isToldByAll = snapshot.executed % DigestComparison.ordinaryInterval == 0
                deadline = now + (isToldByAll ? Self.longestComparison : Self.shortComparison)
                compare(snapshot, standing, now: now)
            case .failed(let error):
                logger.error(
                    "the snapshot that came from \(giverName) is of no use, it goes, and another one is asked for: \(error)"
                )
                desk.order(.discard(snapshot))
                prepare()
            case .prepared: broken("a snapshot is finished once it was prepared")
            case nil: break
            }
        case .comparing(let snapshot): compare(snapshot, standing, now: now)
        case .installing: break
        }
    }

    private func prepare() {
        needsSince = 0
        phase = .preparing
        desk.order(.prepare)
    }

    private func rest(_ time: UInt64, keeping prepared: IncomingSnapshot?, now: UInt64) {
        phase = .resting(prepared)
        deadline = now + time
        tried = 0
    }

    private func abandon(_ snapshot: IncomingSnapshot?) {
        if let snapshot { desk.order(.discard(snapshot)) }
        phase = .idle
        tried = 0
    }

    /// Asks one that was not asked yet; rather a follower than the leader, whose clients would notice that it pauses.
    private func choose(_ snapshot: IncomingSnapshot, _ standing: Standing, now: UInt64) {
        let candidates = memberIDs.indices.filter {
            $0 != port.index && port.isConnected($0) && tried & 1 << UInt16($0) == 0
        }
        guard
            let chosen = candidates.filter({ $0 != standing.leader }).randomElement(using: &random) ?? candidates.first
        else {
            // Who refused says the same in a moment; but a link may stand by then.
            rest(tried == 0 ? Self.rest : Self.longRest, keeping: snapshot, now: now)
            return
        }
        giver = chosen
        tried |= 1 << UInt16(chosen)
        ticket = UInt64.random(in: 1...UInt64.max, using: &random)
        logger.info("asks \(giverName) for its state")
        phase = .requesting(snapshot)
        began = now
        deadline = now + Self.patience
        request(standing, now: now)
    }

    private func request(_ standing: Standing, now: UInt64) {
        again = now + Self.repetition
        port.send(.request(ticket: ticket, decided: standing.decided, geometry: geometry), to: giver)
    }

    /// Looks after the giver: what may be lost is said again, who is silent given up.
    private func watch(_ snapshot: IncomingSnapshot, _ standing: Standing, now: UInt64) {
        if now >= deadline || !port.isConnected(giver) {
            fail(snapshot, now >= deadline ? "it is silent" : "the link to it is lost", standing, now: now)
        } else if now >= again {
            if case .requesting = phase {
                request(standing, now: now)
            } else {
                // One alone, as the others may be on their way.
                pause = min(2 * pause, Self.longestRepetition)
                again = now + pause
                port.send(.ask(ticket: ticket, offset: UInt64(snapshot.received)), to: giver)
            }
        }
    }

    private func fail(_ snapshot: IncomingSnapshot, _ why: String, _ standing: Standing, now: UInt64) {
        logger.warning("does not get the state of \(giverName): \(why)")
        if snapshot.size == 0 {
            choose(snapshot, standing, now: now)
        } else {
            // What was written into it may lie where the next snapshot has nothing.
            desk.order(.discard(snapshot))
            prepare()
        }
    }

    // MARK: Messages

    func offered(_ offer: TransferMessage.Offer, ticket: UInt64, from: Int, standing: Standing, now: UInt64) {
        guard case .requesting(let snapshot) = phase, from == giver, ticket == self.ticket else { return }
        // Its view is to be promised: from afar the giver's messages take this replica there first, in steps.
        guard offer.executed > standing.decided, offer.executed < plausibleLimit, offer.view > 0,
            offer.view <= standing.view + mostViewsAtOnce, let size = Int(exactly: offer.size),
            snapshot.expect(size: size, checksum: offer.checksum, executed: offer.executed)
        else {
            board.peers[from].framesImplausible.add(1)
            fail(snapshot, "its offer makes no sense: \(offer)", standing, now: now)
            return
        }
        logger.info(
            "takes the state of \(giverName) after instance \(offer.executed), position \(offer.position): \(size) bytes"
        )
        view = offer.view
        began = now
        deadline = now + Self.patience
        (nextAsk, wentBack, tenths, pause) = (0, -1, 0, Self.repetition)
        phase = .receiving(snapshot)
        ask(for: snapshot, now: now)
    }

    func came(
        _ bytes: UnsafeRawBufferPointer, checksum: UInt32, offset: UInt64, ticket: UInt64, from: Int, now: UInt64
    ) {
        guard case .receiving(let snapshot) = phase, from == giver, ticket == self.ticket else { return }
        guard offset == UInt64(snapshot.received), bytes.count <= snapshot.size - snapshot.received else {
            // What was asked for twice, or comes behind some that were lost: then all from there on is asked for again,
            // once.
            if offset > UInt64(snapshot.received), wentBack != snapshot.received {
                wentBack = snapshot.received
                nextAsk = snapshot.received
                ask(for: snapshot, now: now)
            }
            return
        }
        guard checksum == Checksum.of(bytes.baseAddress!, bytes.count) else {
            board.peers[from].framesMalformed.add(1)
            return
        }
        snapshot.append(bytes)
        deadline = now + Self.patience
        if snapshot.isWhole {
            port.send(.ask(ticket: ticket, offset: UInt64(snapshot.size)), to: giver)
            logger.info(
                "has the state of \(giverName): \(snapshot.size) bytes in \((now - began) / 1000) ms; verifies it")
            phase = .finishing(snapshot)
            desk.order(.finish(snapshot))
            return
        }
        ask(for: snapshot, now: now)
        let done = snapshot.received * 10 / snapshot.size
        if done > tenths {
            tenths = done
            logger.info("\(done * 10)% of the state of \(giverName): \(snapshot.received) of \(snapshot.size) bytes")
        }
    }

    /// Keeps some chunks under way.
    private func ask(for snapshot: IncomingSnapshot, now: UInt64) {
        again = now + pause
        let end = min(snapshot.size, snapshot.received + Self.chunksUnderWay * TransferMessage.chunkSize)
        while nextAsk < end {
            // The last one is small, and would overtake those before it on the way: it is asked for when they are here.
            if snapshot.size - nextAsk < TransferMessage.chunkSize, nextAsk > snapshot.received { break }
            port.send(.ask(ticket: ticket, offset: UInt64(nextAsk)), to: giver)
            nextAsk += TransferMessage.chunkSize
        }
    }

    func refused(
        _ refusal: TransferMessage.Refusal, ticket: UInt64, from: Int, standing: Standing, now: UInt64
    ) {
        guard from == giver, ticket == self.ticket else { return }
        switch phase {
        case .requesting where refusal == .notYet && now < began + Self.longestMaking: deadline = now + Self.patience
        case .requesting(let snapshot), .receiving(let snapshot): fail(snapshot, refusal.reason, standing, now: now)
        default: break
        }
    }

    /// The giver may have gone wrong by itself: where a third replica is there its word is waited for.
    private func compare(_ snapshot: IncomingSnapshot, _ standing: Standing, now: UInt64) {
        let opinion = snapshot.digest.map { digest in
            standing.digests.opinion(of: .init(executed: snapshot.executed, value: digest), from: giver)
        }
        switch opinion {
        case .contradicted(let other):
            logger.error(
                "the snapshot that came from \(giverName) has all up to instance \(snapshot.executed), and replica \(memberIDs[other]) told another digest than that one of it, or of an instance before: it goes, and another one is asked for"
            )
            desk.order(.discard(snapshot))
            prepare()
        case .confirmed: install(snapshot, standing)
        case .unknown, nil:
            let isThirdThere = memberIDs.indices.contains {
                $0 != giver && $0 != port.index && port.isConnected($0)
            }
            if isThirdThere, now < deadline { return }
            logger.notice(
                "no third replica told of its state after instance \(snapshot.executed): the snapshot that came from \(giverName) is compared with none, but with its own digest"
            )
            install(snapshot, standing)
        }
    }

    private func install(_ snapshot: IncomingSnapshot, _ standing: Standing) {
        guard standing.needsState, snapshot.executed > standing.decided else {
            logger.info("has caught up by itself meanwhile: the snapshot is not needed")
            return abandon(snapshot)
        }
        logger.info("the state of \(giverName) is verified; stops to put it in place")
        phase = .installing
        desk.order(.install(snapshot, view: view))
    }
}
