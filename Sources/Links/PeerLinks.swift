import Logging
import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPipeline
import MPaxosQueues
import MPaxosWire

/// The stage that talks to the other replicas, over connections that `LinkSockets` make.
///
/// Replicas of higher index connect to this one, and this one to each of lower index. Both directions of a link share
/// the one connection. On a new connection the connecting side says HELLO; the other calls it back where the topology
/// says that it listens (`CallBack`), and answers the HELLO that brings the proof with WELCOME or REFUSED; until then
/// nothing else of that connection is used. A connection becomes a replica's link only by a HELLO that was accepted,
/// never by the route it comes along: so nobody who merely reaches the port can pass for a replica, or cut one off.
///
/// Links lose messages, never silently: a full or absent peer shows in the outcome of a send and is counted; the core
/// sends again what matters.
package final class PeerLinks: Stage {
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

        package init(
            index: Int, cluster: String, replica: UInt16, charter: Charter, fingerprint: UInt64,
            members: [Handshake.Member], acquaintances: Acquaintances, skips: [UInt64]
        ) {
            self.index = index
            self.cluster = cluster
            self.replica = replica
            self.charter = charter
            self.fingerprint = fingerprint
            self.members = members
            self.acquaintances = acquaintances
            self.skips = skips
        }
    }

    /// One peer's end of a link.
    final class Link {
        let index: Int
        /// Whether this replica connects to the peer, which is of lower index; else the peer connects to its port.
        let connects: Bool
        /// Where it connects: when to do so anew.
        var reconnection: Reconnection
        /// At the port: the connection whose HELLO was accepted last.
        var route = Route.none
        /// At the port: how to end that connection, and whose it is; nil without keys.
        var source: LinkSockets.Source?
        let figures: StatusBoard.Peer
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
        /// Where it connects: what tells the peer's CALL over this connection from those of strangers, and what that
        /// call has left; 0 before.
        var ticket: UInt64 = 0
        var proof: UInt64 = 0
        /// At the port: since when, and when last, HELLO came in the peer's name without its proof.
        var unprovenSince: UInt64 = 0
        var unprovenAt: UInt64 = 0
        /// Where it connects: when to say HELLO (again), in microseconds; nil while there is no connection.
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

        init(to index: Int, connects: Bool, hasKeys: Bool, progress: Progress, figures: StatusBoard.Peer) {
            self.index = index
            self.connects = connects
            reconnection = Reconnection(hasKeys: hasKeys)
            self.progress = progress
            self.figures = figures
        }
    }

    /// Microseconds after which HELLO is said again: to a peer that has not answered it, and on a link on which nothing
    /// came for a while, where it finds out whether the other side still takes it for a link, too. Until both sides are
    /// founded they tell each other more often whom they have met.
    private static let helloAgain: UInt64 = 100_000
    private static let foundingInterval: UInt64 = 20_000
    private static let keepAlive: UInt64 = 1_000_000
    /// Microseconds after which a peer that says nothing, and is to be met for the founding, is taken for gone.
    private static let foundingPatience: UInt64 = 250_000

    /// Microseconds before it is looked at whether keys were withdrawn, and for which STATUS shows a refusal that does
    /// not come again.
    private static let keyInterval: UInt64 = 100_000
    static let refusalTime: UInt64 = 10_000_000

    let settings: Settings
    let sockets: LinkSockets
    /// Draws numbers that nobody can guess.
    let random: () -> UInt64
    let callBack: CallBack
    let links: [Link?]
    /// The same, for the hot path: taking one out counts no references.
    private let unretained: [Unmanaged<Link>?]
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

    let frame = Frame()
    private let outgoing = Frame()
    private let shared = Frame()

    /// - Parameters:
    ///   - sockets: of this replica alone. They are closed with the stage.
    ///   - random: draws numbers that nobody can guess. Called while the stage is made, and for each connection.
    package init(
        settings: Settings, sockets: LinkSockets, random: @escaping () -> UInt64, progress: Progress,
        board: StatusBoard, logger: Logger, rings: Rings, engine: Parker, expelled: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.sockets = sockets
        self.random = random
        self.progress = progress
        self.board = board
        self.logger = logger
        self.engine = engine
        self.expelled = expelled
        callBack = CallBack(
            over: sockets, sender: settings.index, memberCount: settings.members.count, secret: (random(), random()))
        arrivals = rings.arrivals
        departures = rings.departures
        acquaintances = settings.acquaintances
        toldFounding = acquaintances.founding
        tellsFounding = acquaintances.tellsFounding
        keyGeneration = sockets.keyGeneration
        board.awaited = acquaintances.awaited
        let links = settings.members.indices.map { index in
            index == settings.index
                ? nil
                : Link(
                    to: index, connects: index < settings.index, hasKeys: sockets.hasKeys, progress: progress,
                    figures: board.peers[index])
        }
        self.links = links
        unretained = links.map { $0.map(Unmanaged.passUnretained) }
    }

    override package func close() {
        sockets.close()
        for case let link? in links { link.isOpen = false }
    }

    override package func poll(budget: Int, now: UInt64) -> Bool {
        self.now = now
        var work = sendDepartures(budget: budget)
        if !tellsFounding { work += lookAtFounding() }
        if sockets.hasKeys, sockets.keyGeneration != keyGeneration {
            keyGeneration = sockets.keyGeneration
            dropWithdrawn()
        }
        callBack.forget(now: now)
        for link in unretained {
            if let link { work += link._withUnsafeGuaranteedRef { poll($0, budget: budget) } }
        }
        work += receiveAtPort(budget: budget)
        if arrivals.publish() { engine.wake() }
        return work > 0
    }

    private func poll(_ link: Link, budget: Int) -> Int {
        forgetRefusal(of: link)
        guard link.connects else { return 0 }
        var work = readEvents(of: link, now: now)
        if link.helloAt == nil, link.reconnection.isDue(now: now) { connectAnew(link) }
        if let helloAt = link.helloAt, now >= helloAt {
            sayHello(over: link)
            link.helloAt = now + helloInterval(on: link)
        }
        work += receive(over: link, budget: budget)
        return work
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
        for link in unretained {
            if let link { deadline = min(deadline, link._withUnsafeGuaranteedRef { Self.nextDeadline(of: $0) }) }
        }
        if !tellsFounding { deadline = min(deadline, now + Self.foundingInterval) }
        if sockets.hasKeys { deadline = min(deadline, now + Self.keyInterval) }
        return min(deadline, callBack.nextLook)
    }

    private static func nextDeadline(of link: Link) -> UInt64 {
        let refusal = link.refusedAt.map { $0 + refusalTime } ?? .max
        guard link.connects else { return refusal }
        return min(refusal, link.helloAt ?? link.reconnection.deadline)
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
        guard let link = unretained[peer] else { broken("a replica sends no frame to itself") }
        link._withUnsafeGuaranteedRef { send(over: $0, isLast: isLast) }
    }

    private func send(over link: Link, isLast: Bool) {
        guard link.isOpen else {
            link.figures.framesLost.add(1)
            return
        }
        let outcome: LinkSockets.Outcome
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

    func send(_ frame: borrowing Frame, over link: Link) -> LinkSockets.Outcome {
        link.connects ? sockets.send(frame, to: link.index) : sockets.send(frame, along: link.route)
    }

    // MARK: Receiving

    /// Room for what one frame can lead to: the frame, and hearsay about every member.
    private var hasRoom: Bool { arrivals.free > Arrival.most }

    /// Receives until there is nothing more, the budget used up, or the ring to the engine full.
    private func receive(over link: Link, budget: Int) -> Int {
        var taken = 0
        while taken < budget, hasRoom {
            let reception = sockets.receive(frame, from: link.index)
            guard reception != .nothing else { break }
            if link.isOpen, link.isFounded, tellsFounding { link.helloAt = now + Self.keepAlive }
            if reception == .frame { take(from: link.index, link) } else { link.figures.framesMalformed.add(1) }
            taken += 1
        }
        return taken
    }

    /// Likewise.
    private func receiveAtPort(budget: Int) -> Int {
        var taken = 0
        while taken < budget, hasRoom {
            let reception = sockets.receive(frame)
            guard reception != .nothing else { break }
            if reception == .frame { takeFromPort(along: sockets.route) } else { board.strangersRefused.add(1) }
            taken += 1
        }
        return taken
    }

    private func takeFromPort(along route: Route) {
        for index in (settings.index + 1)..<max(links.count, settings.index + 1) {
            guard let link = unretained[index] else { continue }
            let isTaken = link._withUnsafeGuaranteedRef { link in
                guard link.isOpen, link.route == route else { return false }
                take(from: index, link)
                return true
            }
            if isTaken { return }
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
