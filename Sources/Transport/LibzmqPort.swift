import MPaxosFrames
import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosWire

/// Clients over a socket of libzmq: its ROUTER (`socket = "libzmq-router"`, and where clients have keys), or a literal
/// REP (`"rep"`), which holds one request at a time and keeps the envelope itself.
final class LibzmqPort: ClientPort, Watched {
    /// Where clients come in with keys: who has which, and the watch over those who have none yet.
    final class Door {
        let keys: KeyRing
        let strangers: StrangerWatch

        /// - Parameter socket: not bound yet.
        init(
            _ keys: KeyRing, to socket: borrowing Socket, _ bounds: StrangerWatch.Bounds, _ board: StatusBoard
        ) throws(MessagingError) {
            self.keys = keys
            try socket.setCurveServer(keys.pair, domain: KeyRing.clients)
            strangers = try StrangerWatch(
                over: socket, bounds: bounds, introduction: .curveHandshake, endsKnown: true,
                cutOff: board.clientConnectionsCutOff)
        }
    }

    private let socket: Socket
    private let isREP: Bool
    private let door: Door?
    private let routing = Frame()
    private let headerFrame = Frame()
    private let bodyFrame = Frame()
    /// REP: a request was received and not yet answered.
    private var holdsRequest = false
    private var watch: Watch?
    private var item: Watch.Item?

    /// Outstanding requests by connection; a REP has one at a time.
    private let shares: UnsafeMutablePointer<Shares>

    init(_ socket: consuming Socket, isREP: Bool, outstanding: Int, door: Door? = nil) {
        self.socket = socket
        self.door = door
        self.isREP = isREP
        shares = .allocate(capacity: 1)
        shares.initialize(to: Shares(capacity: isREP ? 1 : outstanding))
    }

    deinit {
        shares.deinitialize(count: 1)
        shares.deallocate()
    }

    package func register(in watch: Watch) {
        self.watch = watch
        item = watch.add(socket)
        door?.strangers.start()
    }

    override package func close() {
        guard let door else { return }
        socket.stopMonitoring()
        door.strangers.join()
    }

    override package func hold(_ isHeld: Bool) {
        guard let watch, let item else { broken("a port is registered before it is held") }
        watch.hold(item, isHeld || holdsRequest)
    }

    override package func isReady(now: UInt64) -> Bool {
        guard let watch, let item else { broken("a port is registered before it is used") }
        return !holdsRequest && watch.isReady(item)
    }

    override package func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
        guard !holdsRequest else { return .nothing }
        envelope.pointee.clear()
        (header, body) = (Self.nothing, Self.nothing)
        guard isREP ? socket.receive(headerFrame) : socket.receive(routing) else {
            if let watch, let item { watch.wasEmpty(item) }
            return .nothing
        }
        if isREP {
            holdsRequest = true
            let frames = receiveContent()
            judge(headerFrame)
            // A REP has to answer.
            if permission == .none { sendAway(headerFrame) }
            return .request(frames: frames)
        }
        guard envelope.pointee.append(UnsafeRawBufferPointer(routing.bytes)) else { return .unanswerable }
        let isNamed = door == nil || ConnectionName.isOne(UnsafeRawBufferPointer(routing.bytes))
        var isFirst = true
        while routing.hasMore, socket.receive(routing) {
            if isFirst {
                judge(routing)
                // Its connection was made when its key was good; or it has a name that another may have, too.
                if permission == .none || !isNamed {
                    sendAway(routing)
                    socket.skipRest(of: routing)
                    return .unwelcome
                }
            }
            isFirst = false
            let isDelimiter = routing.bytes.isEmpty
            guard envelope.pointee.append(UnsafeRawBufferPointer(routing.bytes)) else { break }
            if isDelimiter {
                guard routing.hasMore, socket.receive(headerFrame) else { return .probe }
                return .request(frames: receiveContent())
            }
        }
        socket.skipRest(of: routing)
        return .unanswerable
    }

    /// What the client may do that a frame came from, by its key.
    private func judge(_ frame: borrowing Frame) {
        if let door { permission = door.keys.permission(of: frame.keyNumber) }
    }

    private func sendAway(_ frame: borrowing Frame) {
        if let door, let file = frame.sourceFile { door.strangers.end(file) }
    }

    /// The number of frames behind the envelope, the first being in `headerFrame`; the second is read into `bodyFrame`.
    private func receiveContent() -> Int {
        header = UnsafeRawBufferPointer(headerFrame.bytes)
        guard headerFrame.hasMore, socket.receive(bodyFrame) else { return 1 }
        // With more frames than there should be the body is not looked at.
        if bodyFrame.hasMore { return 2 + socket.skipRest(of: bodyFrame) }
        body = UnsafeRawBufferPointer(bodyFrame.bytes)
        return 2
    }

    override package func outstanding(of envelope: UnsafeRawBufferPointer) -> Int {
        isREP ? 0 : shares.pointee.count(of: Self.name(in: envelope))
    }

    override package func admitted(_ envelope: UnsafeRawBufferPointer) {
        if !isREP { shares.pointee.add(Self.name(in: envelope)) }
    }

    override package func answered(_ envelope: UnsafeRawBufferPointer) {
        if !isREP { shares.pointee.remove(Self.name(in: envelope)) }
    }

    /// What libzmq's ROUTER calls the connection.
    private static func name(in envelope: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var frames = Envelope.Frames(envelope)
        guard let name = frames.next() else { broken("an envelope begins with its connection's name") }
        return name
    }

    override package func reply(
        to envelope: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer
    ) -> Bool {
        if let watch, let item { watch.wasUsed(item) }
        holdsRequest = false
        for frame in Envelope.Frames(envelope) {
            guard socket.send(copying: frame, more: true) == .sent else { return false }
        }
        guard socket.send(copying: header, more: true) == .sent else { return false }
        return socket.send(copying: body, more: false) == .sent
    }
}
