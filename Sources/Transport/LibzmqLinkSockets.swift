import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys
import MPaxosLinks
import MPaxosMessaging
import MPaxosMetrics

/// The connections of links, by libzmq: one ROUTER that replicas of higher index connect to, and a DEALER to each of
/// lower index. One more DEALER calls a member back, as long as it is needed.
package final class LibzmqLinkSockets: LinkSockets, Watched {
    /// Messages queued per peer: more than the core ever has in flight, few enough to bound memory.
    static let highWaterMark = 4096

    /// Milliseconds.
    static func handshakeTime(hasKeys: Bool) -> Int { Int(LinkSockets.handshakeTime(hasKeys: hasKeys) / 1000) }

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
            try router.setSendHighWaterMark(LibzmqLinkSockets.highWaterMark)
            try router.setReceiveHighWaterMark(LibzmqLinkSockets.highWaterMark)
            try router.setHandshakeInterval(milliseconds: LibzmqLinkSockets.handshakeTime(hasKeys: keys != nil))
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

    let port: Port
    let context: Context
    /// Where the members listen for each other, by index.
    private let endpoints: [String]
    /// By index, for those of lower index than this replica's. Where they lie: using one counts no references.
    private let dealers: UnsafeMutablePointer<Dealer>
    private let dealerCount: Int
    /// By index.
    private var callers: [Caller?]
    /// Nil: links are in the clear.
    let keys: KeyRing?
    private let identity = Frame()
    @exclusivity(unchecked) private var watch: Watch?
    @exclusivity(unchecked) private var portItem: Watch.Item?

    /// - Parameters:
    ///   - index: this replica's among the members.
    ///   - endpoints: where they listen for each other.
    ///   - largestFrame: in bytes, that a peer may send.
    package init(
        index: Int, port: Port, to endpoints: [String], in context: Context, keys: KeyRing?, largestFrame: Int
    ) throws(MessagingError) {
        self.port = port
        self.context = context
        self.endpoints = endpoints
        self.keys = keys
        dealers = .allocate(capacity: index)
        var made = 0
        do throws(MessagingError) {
            for member in 0..<index {
                let dealer = try Dealer(
                    to: endpoints[member], of: member, in: context, keys: keys, largestFrame: largestFrame)
                (dealers + member).initialize(to: dealer)
                made += 1
            }
        } catch {
            dealers.deinitialize(count: made)
            dealers.deallocate()
            throw error
        }
        dealerCount = index
        callers = Array(repeating: nil, count: endpoints.count)
        super.init(hasKeys: keys != nil)
    }

    deinit {
        dealers.deinitialize(count: dealerCount)
        dealers.deallocate()
    }

    package func register(in watch: Watch) {
        self.watch = watch
        port.strangers.start()
        portItem = watch.add(port.router)
        for member in 0..<dealerCount { dealers[member].register(in: watch) }
    }

    override package func close() {
        port.router.stopMonitoring()
        port.strangers.join()
    }

    private var registered: (watch: Watch, port: Watch.Item) {
        guard let watch, let portItem else { broken("sockets are registered before they are used") }
        return (watch, portItem)
    }

    private func dealer(to member: Int) -> UnsafeMutablePointer<Dealer> {
        invariant(member < dealerCount, "a replica connects to those of lower index")
        return dealers + member
    }

    // MARK: To a member of lower index

    override package func nextEvent(of member: Int) -> Event? { dealer(to: member).pointee.nextEvent(registered.watch) }

    override package func connectAnew(to member: Int) { dealer(to: member).pointee.connectAnew() }

    override package func receive(_ frame: borrowing Frame, from member: Int) -> Reception {
        dealer(to: member).pointee.receive(frame, registered.watch)
    }

    override package func send(_ frame: borrowing Frame, to member: Int) -> Outcome {
        dealer(to: member).pointee.send(frame, registered.watch)
    }

    // MARK: At the port

    override package func receive(_ frame: borrowing Frame) -> Reception {
        let (watch, item) = registered
        guard watch.isReady(item) else { return .nothing }
        guard port.router.receive(identity) else {
            watch.wasEmpty(item)
            return .nothing
        }
        guard identity.hasMore, port.router.receive(frame) else { return .unusable }
        guard !frame.hasMore else {
            port.router.skipRest(of: frame)
            return .unusable
        }
        route = Route(identity: UnsafeRawBufferPointer(identity.bytes))
        return .frame
    }

    override package func send(_ frame: borrowing Frame, along route: Route) -> Outcome {
        let (watch, item) = registered
        watch.wasUsed(item)
        let outcome = route.withIdentity { port.router.send(copying: $0, more: true) }
        return Outcome(outcome == .sent ? port.router.send(frame, more: false) : outcome)
    }

    override package func source(of frame: borrowing Frame) -> Source {
        Source(connection: frame.sourceFile, key: frame.keyNumber)
    }

    override package func trust(_ source: Source) {
        if let file = source.connection { port.strangers.trust(file) }
    }

    override package func end(_ source: Source) {
        if let file = source.connection { port.strangers.end(file) }
    }

    // MARK: Calls

    override package func beginCalls(to member: Int, key: Int?) -> Bool {
        var pairs: (own: KeyPair, callee: PublicKey)?
        if let keys, let key = keys.key(of: key) { pairs = (keys.pair, key) }
        callers[member] = try? Caller(to: endpoints[member], in: context, keys: pairs)
        return callers[member] != nil
    }

    override package func call(_ member: Int, _ frame: borrowing Frame) { callers[member]?.send(frame) }

    override package func endCalls(to member: Int) { callers[member] = nil }

    // MARK: Keys

    override package var keyGeneration: UInt64 { keys?.generation ?? 0 }

    override package func holder(ofKey key: Int?) -> Int? { keys?.holder(of: key) }

    override package func hasOtherKeys(_ member: Int) -> Bool { (keys?.keys(of: member).count ?? 0) > 1 }

    override package func isKeyWithdrawn(of member: Int) -> Bool { dealer(to: member).pointee.isWithdrawn }
}

extension LinkSockets.Outcome {
    init(_ outcome: SendOutcome) {
        self =
            switch outcome {
            case .sent: .sent
            case .full, .terminated: .full
            case .unreachable: .unreachable
            }
    }
}

/// The routing id that our ROUTER gives to a connection: a zero and four bytes. A peer cannot choose one of that form.
extension Route {
    private static let size = 5

    init(identity: UnsafeRawBufferPointer) {
        guard identity.count == Self.size, identity[0] == 0 else {
            self = .none
            return
        }
        self.init(number: 1 << 63 | UInt64(identity.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
    }

    func withIdentity<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        var bytes: UInt64 = UInt64(UInt32(truncatingIfNeeded: number)) << 8
        return withUnsafeBytes(of: &bytes) { body(UnsafeRawBufferPointer(rebasing: $0[..<Self.size])) }
    }
}
