import Logging
import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosQueues
import MPaxosWire

/// The stage that talks to the other replicas: one DEALER/ROUTER pair for each link.
///
/// This replica binds one ROUTER; to it connect the replicas of higher index. To each replica of lower index it
/// connects a DEALER of its own. Both directions of a link share the one TCP connection. On a new connection the
/// connecting side says HELLO; the other calls it back where the topology says that it listens (`CallBack`), and
/// answers the HELLO that brings the proof with WELCOME or REFUSED; until then nothing else of that connection is used.
/// A connection becomes a replica's link only by a HELLO that was accepted, never by the routing id it claims: so
/// nobody who merely reaches the port can pass for a replica, or cut one off.
///
/// Links lose messages, never silently: a full or absent peer shows in the outcome of a send and is counted; the core
/// sends again what matters.
package final class PeerLinks: Stage, Watched {
    package struct Settings {
        var index: Int
        var cluster: String
        var replica: UInt16
        var charter: Charter
        /// Of the charter and of the state pool's layout.
        var fingerprint: UInt64
        /// Members by ascending id; what is known of them is in `acquaintances`.
        var members: [Handshake.Member]
        /// As recovered from the acceptor pool.
        var acquaintances: Acquaintances
        /// Positions of commands that this replica skips, or has skipped.
        var skips: [UInt64]
        /// Nil: links are in the clear.
        var keys: KeyRing?

        package init(
            index: Int, cluster: String, replica: UInt16, charter: Charter, fingerprint: UInt64,
            members: [Handshake.Member], acquaintances: Acquaintances, skips: [UInt64], keys: KeyRing?
        ) {
            self.index = index
            self.cluster = cluster
            self.replica = replica
            self.charter = charter
            self.fingerprint = fingerprint
            self.members = members
            self.acquaintances = acquaintances
            self.skips = skips
            self.keys = keys
        }
    }

    /// One peer's end of a link.
    final class Link {
        /// The DEALER to a replica of lower index; nil where the peer connects to our ROUTER.
        let dealer: Dealer?
        /// The connection at our ROUTER whose HELLO was accepted last.
        var route = Route.none
        /// ROUTER: of the key and the descriptor of that connection; nil without keys.
        var keyNumber: Int?
        var file: Int32?
        let figures: StatusBoard.Peer
        private let index: Int
        private let progress: Progress
        /// Both sides have seen that they belong together.
        var isOpen = false {
            didSet {
                progress.set(connected: isOpen, index)
                figures.connected.store(isOpen ? 1 : 0)
            }
        }
        /// The peer has said that it is founded.
        var isFounded = false
        /// DEALER: what tells the peer's CALL over this connection from those of strangers, and what that call has
        /// left; 0 before.
        var ticket: UInt64 = 0
        var proof: UInt64 = 0
        /// ROUTER: since when, and when last, HELLO came in the peer's name without its proof.
        var unprovenSince: UInt64 = 0
        var unprovenAt: UInt64 = 0
        /// DEALER: when to say HELLO (again), in microseconds; nil while there is no connection.
        var helloAt: UInt64?
        /// What the peer was refused for, or refused us for, so that the same complaint is logged once and not at every
        /// attempt.
        var complaint: String?
        var nextComplaint: UInt64 = 0
        /// When it said HELLO or WELCOME last.
        var introducedAt: UInt64 = 0
        /// From when on a refusal for its life may be put on record again.
        var nextRefusalRecord: UInt64 = 0
        /// When it was refused last; nil: STATUS shows no refusal.
        var refusedAt: UInt64?

        init(to index: Int, dealer: Dealer?, progress: Progress, figures: StatusBoard.Peer) {
            self.index = index
            self.dealer = dealer
            self.progress = progress
            self.figures = figures
        }
    }

    /// Messages queued per peer: more than the core ever has in flight, few enough to bound memory.
    static let highWaterMark = 4096

    /// Milliseconds for the handshake of a connection: with keys it takes three round trips in place of one.
    static func handshakeTime(hasKeys: Bool) -> Int { hasKeys ? 5000 : 1000 }

    /// Microseconds after which HELLO is said again: to a peer that has not answered it, and on a link on which nothing
    /// came for a while, where it finds out whether the other side still takes it for a link, too. Until both sides are
    /// founded they tell each other more often whom they have met.
    private static let helloAgain: UInt64 = 100_000
    private static let foundingInterval: UInt64 = 20_000
    private static let keepAlive: UInt64 = 1_000_000
    /// Microseconds after which a peer that says nothing, and is to be met for the founding, is taken for gone.
    private static let foundingPatience: UInt64 = 250_000

    /// The ROUTER that replicas of higher index connect to, and the watch over who else does.
    package final class Port {
        let router: Socket
        let strangers: StrangerWatch

        package init(
            binding endpoint: String, in context: Context, keys: KeyRing?, largestFrame: Int,
            bounds: StrangerWatch.Bounds, board: StatusBoard
        ) throws(MessagingError) {
            let router = try Socket(.router, in: context)
            try router.setRouterMandatory(true)
            try router.setIPv6(true)
            try router.setSendHighWaterMark(PeerLinks.highWaterMark)
            try router.setReceiveHighWaterMark(PeerLinks.highWaterMark)
            try router.setHandshakeInterval(milliseconds: PeerLinks.handshakeTime(hasKeys: keys != nil))
            try router.setMaxMessageSize(largestFrame + Socket.curveOverhead)
            if let keys { try router.setCurveServer(keys.pair, domain: KeyRing.peers) }
            strangers = try StrangerWatch(
                over: router, bounds: bounds, introduction: .word, endsKnown: keys != nil,
                cutOff: board.connectionsCutOff)
            try requireFree(endpoint)
            try strangers.bind(router, to: endpoint)
            self.router = router
        }
    }

    let settings: Settings
    let port: Port
    let callBack: CallBack
    let links: [Link?]
    let progress: Progress
    let board: StatusBoard
    let logger: Logger
    let arrivals: SPSCRing<Arrival>
    private let departures: SPSCRing<Departure>
    private let engine: Parker
    /// Called with the reason when this replica can never be one of the cluster again. It goes on for some moments.
    let expelled: @Sendable (String) -> Void
    /// Whom this replica has met, in this process or before.
    var acquaintances: Acquaintances
    /// How far the engine knows the founding to be.
    private var toldFounding: Acquaintances.Founding
    /// That of `acquaintances`, for each turn: to ask them makes a copy.
    private var tellsFounding: Bool
    /// Microseconds: of this turn, and from when on the next complaint about a stranger may be logged.
    @exclusivity(unchecked) var now: UInt64 = 0
    /// Of the keys, as it was looked at last.
    @exclusivity(unchecked) private var keyGeneration: UInt64 = 0
    var nextStrangerComplaint: UInt64 = 0
    @exclusivity(unchecked) var watch: Watch?
    @exclusivity(unchecked) var routerItem: Watch.Item?

    let identity = Frame()
    let frame = Frame()
    private let outgoing = Frame()
    private let shared = Frame()

    package init(
        settings: Settings, port: Port, dealers: [Dealer?], callBack: CallBack, progress: Progress, board: StatusBoard,
        logger: Logger, rings: Rings, engine: Parker, expelled: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.port = port
        self.callBack = callBack
        self.progress = progress
        self.board = board
        self.logger = logger
        self.engine = engine
        self.expelled = expelled
        arrivals = rings.arrivals
        departures = rings.departures
        acquaintances = settings.acquaintances
        toldFounding = acquaintances.founding
        tellsFounding = acquaintances.tellsFounding
        keyGeneration = settings.keys?.generation ?? 0
        board.awaited = acquaintances.awaited
        links = settings.members.indices.map { index in
            index == settings.index
                ? nil : Link(to: index, dealer: dealers[index], progress: progress, figures: board.peers[index])
        }
    }

    package func register(in watch: Watch) {
        self.watch = watch
        port.strangers.start()
        routerItem = watch.add(port.router)
        for case let link? in links {
            guard let dealer = link.dealer else { continue }
            dealer.item = watch.add(dealer.socket)
            dealer.monitorItem = dealer.monitor.add(to: watch)
        }
    }

    override package func close() {
        port.router.stopMonitoring()
        port.strangers.join()
        for case let link? in links { link.isOpen = false }
    }

    override package func poll(budget: Int, now: UInt64) -> Bool {
        guard let watch, let routerItem else { broken("a stage is registered before it is polled") }
        self.now = now
        var work = sendDepartures(budget: budget)
        if !tellsFounding { work += lookAtFounding() }
        if let keys = settings.keys, keys.generation != keyGeneration {
            keyGeneration = keys.generation
            dropWithdrawn(keys)
        }
        callBack.forget(now: now)
        for index in 0..<links.count {
            guard let link = links[index] else { continue }
            forgetRefusal(of: link)
            guard let dealer = link.dealer, let item = dealer.item else { continue }
            if let monitorItem = dealer.monitorItem, watch.isReady(monitorItem) {
                work += readEvents(of: dealer, link, index, now: now)
                watch.wasEmpty(monitorItem)
            }
            if link.helloAt == nil, dealer.isDue(now: now) { dealer.connectAnew(now: now) }
            if let helloAt = link.helloAt, now >= helloAt {
                sayHello(over: link)
                link.helloAt = now + helloInterval(on: link)
            }
            guard watch.isReady(item) else { continue }
            work += receive(budget: budget, item) {
                guard dealer.socket.receive(frame) else { return false }
                if link.isOpen, link.isFounded, tellsFounding { link.helloAt = now + Self.keepAlive }
                takeFromDealer(dealer, index, link)
                return true
            }
        }
        if watch.isReady(routerItem) {
            work += receive(budget: budget, routerItem) {
                guard port.router.receive(identity) else { return false }
                takeFromRouter()
                return true
            }
        }
        if arrivals.publish() { engine.wake() }
        return work > 0
    }

    private func helloInterval(on link: Link) -> UInt64 {
        guard link.isOpen else { return Self.helloAgain }
        return link.isFounded && tellsFounding ? Self.keepAlive : Self.foundingInterval
    }

    /// Takes note of what the engine has put on record, and tells it when the cluster is founded.
    private func lookAtFounding() -> Int {
        for index in 0..<links.count where index != settings.index {
            if let link = links[index], now >= link.introducedAt + Self.foundingPatience { acquaintances.lose(index) }
            acquaintances.recorded(progress.recordedIncarnation(of: index), of: index)
        }
        acquaintances.recorded(progress.founding)
        tellsFounding = acquaintances.tellsFounding
        board.awaited = acquaintances.awaited
        guard acquaintances.founding > toldFounding, hasRoom else { return 0 }
        toldFounding = acquaintances.founding
        announce(toldFounding == .founded ? .founded : .whole, settings.index)
        return 1
    }

    override package var nextDeadline: UInt64 {
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
            dealer.socket.skipRest(of: frame)
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
        guard let link = links[peer] else { broken("a replica sends no frame to itself") }
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

    func send(_ frame: borrowing Frame, over link: Link) -> SendOutcome {
        if let dealer = link.dealer {
            if let item = dealer.item { watch?.wasUsed(item) }
            return dealer.socket.send(frame, more: false)
        }
        return send(frame, along: link.route)
    }

    func send(_ frame: borrowing Frame, along route: Route) -> SendOutcome {
        if let routerItem { watch?.wasUsed(routerItem) }
        let outcome = route.withBytes { port.router.send(copying: $0, more: true) }
        return outcome == .sent ? port.router.send(frame, more: false) : outcome
    }

    // MARK: Receiving

    /// Room for what one frame can lead to: the frame, and hearsay about every member.
    private var hasRoom: Bool { arrivals.free > 16 }

    private func takeFromRouter() {
        guard identity.hasMore, port.router.receive(frame) else {
            board.strangersRefused.add(1)
            return
        }
        guard !frame.hasMore else {
            board.strangersRefused.add(1)
            port.router.skipRest(of: frame)
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
                    Arrival(kind: .frame, peer: UInt8(index), incarnation: 0, life: .none, frame: frame.take()))
                invariant(pushed, "a ring with room takes an arrival")
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
}
