import Logging
import Messaging
import Queues
import Wire

/// The stage that talks to the other replicas: one DEALER/ROUTER pair for each link.
///
/// This replica binds one ROUTER; to it connect the replicas of higher index. To each replica of lower index it connects
/// a DEALER of its own. Both directions of a link share the one TCP connection. On a new connection the connecting side
/// says HELLO, the other WELCOME or REFUSED; until then nothing else of that connection is used. A connection becomes a
/// replica's link only by a HELLO that was accepted, never by the routing id it claims: so nobody who merely reaches the
/// port can cut a replica off.
///
/// Links lose messages, never silently: a full or absent peer shows in the outcome of a send and is counted; the core
/// sends again what matters.
final class PeerLinks: Stage {
    struct Settings {
        var index: Int
        var cluster: String
        var replica: UInt16
        var incarnation: UInt64
        /// Members by ascending id; `incarnation` as recovered from the acceptor pool, 0 for a replica never met.
        var members: [Handshake.Member]
    }

    /// One peer's end of a link.
    private final class Link {
        /// The DEALER to a replica of lower index; nil where the peer connects to our ROUTER.
        let dealer: Dealer?
        /// The connection at our ROUTER whose HELLO was accepted last.
        var route = Route.none
        let figures: StatusBoard.Peer
        /// Both sides have seen that they belong together.
        var isOpen = false {
            didSet { figures.connected.store(isOpen ? 1 : 0) }
        }
        /// DEALER: when to say HELLO (again), in microseconds; nil while there is no connection.
        var helloAt: UInt64?
        /// What the peer was refused for, or refused us for, so that the same complaint is logged once and not at every attempt.
        var complaint: String?

        init(dealer: Dealer?, figures: StatusBoard.Peer) {
            self.dealer = dealer
            self.figures = figures
        }
    }

    final class Dealer {
        let socket: Socket
        let monitor: Monitor
        fileprivate var item: Watch.Item?
        fileprivate var monitorItem: Watch.Item?

        init(to endpoint: String, in context: Context, largestFrame: Int) throws(MessagingError) {
            let socket = try Socket(.dealer, in: context)
            try socket.setImmediate(true)
            try socket.setSendHighWaterMark(PeerLinks.highWaterMark)
            try socket.setReceiveHighWaterMark(PeerLinks.highWaterMark)
            try socket.setReconnectInterval(milliseconds: 5, maximum: 40)
            try socket.setConnectTimeout(milliseconds: 1000)
            try socket.setHandshakeInterval(milliseconds: 1000)
            try socket.setMaxMessageSize(largestFrame)
            // A host that vanished sends no farewell: without this the connection would seem to stand for minutes.
            try socket.setHeartbeat(intervalMilliseconds: 1000, timeout: 3000)
            let monitor = try Monitor(of: socket)
            try socket.connect(endpoint)
            self.socket = socket
            self.monitor = monitor
        }
    }

    /// Messages queued per peer: more than the core ever has in flight, few enough to bound memory.
    static let highWaterMark = 4096

    /// Microseconds after which HELLO is said again: to a peer that has not answered it, and on a link on which nothing came for
    /// a while, where it finds out whether the other side still takes it for a link, too.
    private static let helloAgain: UInt64 = 100_000
    private static let keepAlive: UInt64 = 1_000_000

    static func router(
        binding endpoint: String, in context: Context, largestFrame: Int
    ) throws(MessagingError) -> Socket {
        let router = try Socket(.router, in: context)
        try router.setRouterMandatory(true)
        try router.setSendHighWaterMark(highWaterMark)
        try router.setReceiveHighWaterMark(highWaterMark)
        try router.setHandshakeInterval(milliseconds: 1000)
        try router.setMaxMessageSize(largestFrame)
        try router.bind(endpoint)
        return router
    }

    private let settings: Settings
    private let router: Socket
    private let links: [Link?]
    private let board: StatusBoard
    private let logger: Logger
    private let arrivals: SPSCRing<Arrival>
    private let departures: SPSCRing<Departure>
    private let engine: Parker
    /// Incarnations by index, own included; 0 for a replica never met.
    private var known: [UInt64]
    private var strangerComplaint = ""
    private var watch: Watch?
    private var routerItem: Watch.Item?

    private let identity = Frame()
    private let frame = Frame()
    private let outgoing = Frame()
    private let shared = Frame()

    init(
        settings: Settings, router: consuming Socket, dealers: [Dealer?], board: StatusBoard, logger: Logger,
        rings: Rings, engine: Parker
    ) {
        self.settings = settings
        self.router = router
        self.board = board
        self.logger = logger
        self.engine = engine
        arrivals = rings.arrivals
        departures = rings.departures
        known = settings.members.map(\.incarnation)
        known[settings.index] = settings.incarnation
        links = settings.members.indices.map { index in
            index == settings.index
                ? nil : Link(dealer: dealers[index], figures: board.peers[index])
        }
    }

    override func register(in watch: Watch) {
        self.watch = watch
        routerItem = watch.add(router)
        for case let link? in links {
            guard let dealer = link.dealer else { continue }
            dealer.item = watch.add(dealer.socket)
            dealer.monitorItem = dealer.monitor.add(to: watch)
        }
    }

    override func poll(budget: Int, now: UInt64) -> Bool {
        guard let watch, let routerItem else { preconditionFailure("polled before it was registered") }
        var work = sendDepartures(budget: budget)
        for index in 0..<links.count {
            guard let link = links[index], let dealer = link.dealer, let item = dealer.item else { continue }
            if let monitorItem = dealer.monitorItem, watch.isReady(monitorItem) {
                work += readEvents(of: dealer, link, index, now: now)
                watch.wasEmpty(monitorItem)
            }
            if let helloAt = link.helloAt, now >= helloAt {
                reply(.hello(ownHello)) { _ = send($0, over: link) }
                link.helloAt = now + (link.isOpen ? Self.keepAlive : Self.helloAgain)
            }
            guard watch.isReady(item) else { continue }
            if link.isOpen { link.helloAt = now + Self.keepAlive }
            work += receive(budget: budget, item) {
                guard dealer.socket.receive(frame) else { return false }
                takeFromDealer(dealer, index, link)
                return true
            }
        }
        if watch.isReady(routerItem) {
            work += receive(budget: budget, routerItem) {
                guard router.receive(identity) else { return false }
                takeFromRouter()
                return true
            }
        }
        if arrivals.publish() { engine.wake() }
        return work > 0
    }

    override var nextDeadline: UInt64 {
        var deadline = UInt64.max
        for case let link? in links { deadline = min(deadline, link.helloAt ?? .max) }
        return deadline
    }

    /// Receives until the socket is empty, the budget used up, or the ring to the engine full.
    private func receive(budget: Int, _ item: Watch.Item, _ next: () -> Bool) -> Int {
        var taken = 0
        while taken < budget, hasRoom {
            guard next() else {
                watch?.wasEmpty(item)
                break
            }
            taken += 1
        }
        return taken
    }

    private func takeFromDealer(_ dealer: Dealer, _ index: Int, _ link: Link) {
        if frame.hasMore {
            link.figures.framesMalformed.add(1)
            dropRest(of: dealer.socket)
        } else {
            take(from: index, link)
        }
    }

    // MARK: Sending

    private func sendDepartures(budget: Int) -> Int {
        var work = 0
        while work < budget, let departure = departures.pop() {
            work += 1
            outgoing.adopt(departure.frame)
            var peers = departure.peers
            while peers != 0 {
                let peer = peers.trailingZeroBitCount
                peers &= peers - 1
                send(to: peer, isLast: peers == 0)
            }
            outgoing.clear()
        }
        return work
    }

    private func send(to peer: Int, isLast: Bool) {
        guard let link = links[peer] else { preconditionFailure("a frame for this replica itself") }
        guard link.isOpen else {
            link.figures.framesLost.add(1)
            return
        }
        let outcome: SendOutcome
        if isLast {
            outcome = send(outgoing, over: link)
        } else {
            shared.share(from: outgoing)
            outcome = send(shared, over: link)
        }
        if outcome == .sent {
            link.figures.framesSent.add(1)
        } else {
            link.figures.framesLost.add(1)
            if outcome == .unreachable { link.isOpen = false }
        }
    }

    private func send(_ frame: borrowing Frame, over link: Link) -> SendOutcome {
        if let dealer = link.dealer {
            if let item = dealer.item { watch?.wasUsed(item) }
            return dealer.socket.send(frame, more: false)
        }
        return send(frame, along: link.route)
    }

    private func send(_ frame: borrowing Frame, along route: Route) -> SendOutcome {
        if let routerItem { watch?.wasUsed(routerItem) }
        let outcome = route.withBytes { router.send(copying: $0, more: true) }
        return outcome == .sent ? router.send(frame, more: false) : outcome
    }

    // MARK: Receiving

    /// Room for what one frame can lead to: the frame, and hearsay about every member.
    private var hasRoom: Bool { arrivals.free > 16 }

    private func dropRest(of socket: borrowing Socket) {
        while frame.hasMore, socket.receive(frame) {}
    }

    private func takeFromRouter() {
        guard identity.hasMore, router.receive(frame) else {
            board.strangersRefused.add(1)
            return
        }
        guard !frame.hasMore else {
            board.strangersRefused.add(1)
            dropRest(of: router)
            return
        }
        let route = Route(UnsafeRawBufferPointer(identity.bytes))
        for index in (settings.index + 1)..<max(links.count, settings.index + 1) {
            if let link = links[index], link.isOpen, link.route == route {
                take(from: index, link)
                return
            }
        }
        newcomer(route)
    }

    /// `frame` came over the link of replica `index`.
    private func take(from index: Int, _ link: Link) {
        let bytes = UnsafeRawBufferPointer(frame.bytes)
        do throws(PeerFrameError) {
            let header = try PeerHeader(decoding: bytes)
            if header.kind >= Handshake.firstKind {
                let payload = UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...])
                greet(try Handshake(header: header, payload: payload), index, link)
            } else if link.isOpen, Int(header.sender) == index {
                let pushed = arrivals.push(
                    Arrival(kind: .frame, peer: UInt8(index), incarnation: 0, frame: frame.take()))
                precondition(pushed, "the ring of arrivals had room")
                link.figures.framesReceived.add(1)
            } else {
                // Before the handshake: a frame that overtook it. What matters is sent again.
                link.figures.framesMalformed.add(1)
            }
        } catch {
            link.figures.framesMalformed.add(1)
            complain("dropped a malformed frame (\(error)) from replica \(settings.members[index].id)", about: link)
        }
    }

    /// `frame` came from a connection that is no link yet. HELLO from a replica that belongs here makes it one; any other HELLO
    /// gets to know why not; all else is dropped.
    private func newcomer(_ route: Route) {
        let bytes = UnsafeRawBufferPointer(frame.bytes)
        do throws(PeerFrameError) {
            let header = try PeerHeader(decoding: bytes)
            guard header.kind >= Handshake.firstKind else { return board.strangersRefused.add(1) }
            let payload = UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...])
            guard case .hello(let hello) = try Handshake(header: header, payload: payload) else {
                return board.strangersRefused.add(1)
            }
            judge(hello, along: route)
        } catch .version(let version) {
            board.strangersRefused.add(1)
            let refusal = Handshake.Refusal(
                .version,
                "replica \(settings.replica) speaks version \(peerProtocolVersion) of the peer protocol, the peer version \(version): run the same release on all replicas"
            )
            logger.error("refused a peer: \(refusal.reason)")
            reply(.refused(refusal), version: version) { _ = send($0, along: route) }
        } catch {
            board.strangersRefused.add(1)
        }
    }

    private func judge(_ hello: Handshake.Hello, along route: Route) {
        let index = settings.members.firstIndex { $0.id == hello.replica } ?? -1
        guard hello.cluster == settings.cluster, index > settings.index, let link = links[index] else {
            board.strangersRefused.add(1)
            let refusal = Handshake.Refusal(
                .replica,
                "replica \(hello.replica) of cluster \"\(hello.cluster)\" is none that connects to replica \(settings.replica) of cluster \"\(settings.cluster)\": compare the topology files"
            )
            if strangerComplaint != refusal.reason { logger.error("refused a peer: \(refusal.reason)") }
            strangerComplaint = refusal.reason
            reply(.refused(refusal)) { _ = send($0, along: route) }
            return
        }
        if let refusal = objection(to: hello, from: index) {
            // The link that stands, if there is one, is another connection's: it goes on.
            complain("refused replica \(hello.replica): \(refusal.reason)", about: link)
            reply(.refused(refusal)) { _ = send($0, along: route) }
            return
        }
        var outcome = SendOutcome.full
        reply(.welcome(ownHello)) { outcome = send($0, along: route) }
        guard outcome == .sent else { return }
        let isNews = !link.isOpen || link.route != route
        link.route = route
        if isNews { open(link, index, hello) }
    }

    // MARK: Handshake

    private func readEvents(of dealer: Dealer, _ link: Link, _ index: Int, now: UInt64) -> Int {
        var count = 0
        while let event = dealer.monitor.next() {
            count += 1
            switch event {
            case .handshakeSucceeded:
                link.isOpen = false
                link.helloAt = now
            case .disconnected:
                if link.isOpen { logger.info("lost the link to replica \(settings.members[index].id)") }
                link.isOpen = false
                link.helloAt = nil
            case .handshakeFailed(let endpoint, _):
                complain("whoever listens at \(endpoint) does not speak ZeroMQ", about: link)
            default: break
            }
        }
        return count
    }

    private func greet(_ handshake: Handshake, _ index: Int, _ link: Link) {
        switch handshake {
        case .hello(let hello) where link.dealer == nil: judge(hello, along: link.route)
        case .welcome(let hello) where link.dealer != nil:
            if let refusal = objection(to: hello, from: index) {
                link.isOpen = false
                complain("will not talk to replica \(settings.members[index].id): \(refusal.reason)", about: link)
            } else if !link.isOpen {
                open(link, index, hello)
            }
        case .refused(let refusal):
            link.isOpen = false
            complain("replica \(settings.members[index].id) refuses this replica: \(refusal.reason)", about: link)
        default:
            link.figures.framesMalformed.add(1)
        }
    }

    private func objection(to hello: Handshake.Hello, from index: Int) -> Handshake.Refusal? {
        let member = settings.members[index]
        if hello.cluster != settings.cluster {
            return .init(
                .cluster,
                "it belongs to cluster \"\(hello.cluster)\", this is \"\(settings.cluster)\": an endpoint in a topology file points to the wrong cluster"
            )
        }
        if hello.replica != member.id {
            return .init(
                .replica,
                "it says it is replica \(hello.replica), replica \(member.id) was expected: compare the topology files")
        }
        if hello.members.map(\.id) != settings.members.map(\.id) {
            return .init(
                .members,
                "its topology has the replicas \(hello.members.map(\.id)), this one's has \(settings.members.map(\.id)): use the same file on every host"
            )
        }
        if known[index] != 0 && known[index] != hello.incarnation {
            return .init(
                .incarnation,
                "replica \(member.id) has other pools than before (incarnation \(Self.hex(hello.incarnation)), known is \(Self.hex(known[index]))): a replica that lost its pools has forgotten its promises and may not vote; bring the old pools back"
            )
        }
        for (other, theirs) in zip(0..., hello.members.map(\.incarnation)) where theirs != 0 && other != index {
            if known[other] != 0 && known[other] != theirs {
                return .init(
                    .incarnation,
                    "it knows replica \(settings.members[other].id) by incarnation \(Self.hex(theirs)), this replica by \(Self.hex(known[other])): one of them met pools that were formatted anew; bring the old pools back"
                )
            }
        }
        return nil
    }

    private func open(_ link: Link, _ index: Int, _ hello: Handshake.Hello) {
        for (other, theirs) in zip(0..., hello.members) {
            if theirs.peerEndpoint != settings.members[other].peerEndpoint
                || theirs.clientEndpoint != settings.members[other].clientEndpoint
            {
                logger.warning(
                    "replica \(hello.replica) has other endpoints for replica \(theirs.id) in its topology: \(theirs.peerEndpoint), \(theirs.clientEndpoint)"
                )
            }
            if theirs.incarnation != 0 && known[other] == 0 {
                known[other] = theirs.incarnation
                announce(.hearsay, other, theirs.incarnation)
            }
        }
        known[index] = hello.incarnation
        link.isOpen = true
        link.complaint = nil
        logger.info("linked to replica \(hello.replica)")
        announce(.connected, index, hello.incarnation)
    }

    private func announce(_ kind: Arrival.Kind, _ index: Int, _ incarnation: UInt64) {
        let pushed = arrivals.push(
            Arrival(kind: kind, peer: UInt8(index), incarnation: incarnation, frame: RawFrame()))
        precondition(pushed, "the ring of arrivals had room")
    }

    private func complain(_ text: String, about link: Link) {
        guard link.complaint != text else { return }
        link.complaint = text
        logger.error("\(text)")
    }

    private var ownHello: Handshake.Hello {
        var members = settings.members
        for index in 0..<members.count { members[index].incarnation = known[index] }
        return Handshake.Hello(
            cluster: settings.cluster, replica: settings.replica, incarnation: settings.incarnation, members: members)
    }

    private func reply(
        _ handshake: Handshake, version: UInt8 = peerProtocolVersion, send: (borrowing Frame) -> Void
    ) {
        let frame = Frame()
        handshake.encode(sender: UInt8(settings.index), version: version).withUnsafeBytes { frame.rebuild(copying: $0) }
        send(frame)
    }

    private static func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}

/// The routing id that our ROUTER gave to a connection: a zero and four bytes. A peer cannot choose one of that form.
struct Route: Equatable {
    static let none = Route(value: 0)
    private static let size = 5
    private let value: UInt64

    private init(value: UInt64) { self.value = value }

    init(_ identity: UnsafeRawBufferPointer) {
        guard identity.count == Self.size, identity[0] == 0 else {
            self = .none
            return
        }
        value = 1 << 63 | UInt64(identity.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
    }

    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        var bytes: UInt64 = UInt64(UInt32(truncatingIfNeeded: value)) << 8
        return withUnsafeBytes(of: &bytes) { body(UnsafeRawBufferPointer(rebasing: $0[..<Self.size])) }
    }
}
