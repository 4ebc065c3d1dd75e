import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire

/// A DEALER to one replica's client endpoint, and MPX/1 framing on it. Belongs to one thread at a time.
final class Link {
    let endpoint: String
    let socket: Socket
    private let frame = Frame()
    /// With keys only: without them nobody asks who is there.
    private let handshakes: Handshakes?
    /// Since when it was found without a connection, or was connected anew; nil while there is one.
    private var downSince: ContinuousClock.Instant?
    /// How long libzmq is left to connect by itself.
    private static let reconnectTime = Duration.seconds(5)

    /// Requests that libzmq keeps per connection: far more than replicas admit from one client.
    static let queueLength = 65_536

    /// - Parameter keys: with them the endpoint must have one.
    init(to endpoint: String, keys: ClusterKeys?, in context: Context) throws(ClientError) {
        self.endpoint = endpoint
        let isKnown: Bool
        do throws(MessagingError) {
            let socket = try Socket(.dealer, in: context)
            // Nothing is queued for a replica that is away: a retry goes elsewhere, and no flood meets the replica when
            // it is back.
            try socket.setImmediate(true)
            try socket.setIPv6(true)
            try socket.setReconnectInterval(milliseconds: 20, maximum: 500)
            try socket.setSendHighWaterMark(Link.queueLength)
            try socket.setReceiveHighWaterMark(Link.queueLength)
            if let keys {
                handshakes = try Handshakes(of: socket, to: endpoint, keys)
                isKnown = handshakes != nil
            } else {
                handshakes = nil
                isKnown = true
            }
            if isKnown { try socket.connect(endpoint) }
            self.socket = socket
        } catch {
            throw .setUp(error)
        }
        guard isKnown else {
            throw .setUp("the key of the replica at \(endpoint) is not known: the topology has none for it")
        }
    }

    deinit {
        // A monitor must not outlive its socket.
        if handshakes != nil { socket.stopMonitoring() }
    }

    var hasKeys: Bool { handshakes != nil }
    /// Why no connection stands, as far as libzmq tells.
    var obstacle: String? { handshakes?.obstacle }

    /// Takes in what happened to the connection.
    func look() { handshakes?.look() }

    /// For who does not look for a while.
    func stopLooking() { handshakes?.stopLooking(at: socket) }

    func add(to poller: inout Poller) -> Int {
        let item = poller.add(socket)
        handshakes?.addMonitor(to: &poller)
        return item
    }

    /// Queues a request. False: not connected, or the connection is congested.
    func send(_ header: RequestHeader, _ body: [UInt8]) -> Bool {
        guard socket.send(copying: UnsafeRawBufferPointer(start: nil, count: 0), more: true) == .sent else {
            connectAnew()
            return false
        }
        downSince = nil
        handshakes?.stands()
        let headerSent = withUnsafeTemporaryAllocation(byteCount: clientHeaderSize, alignment: 8) { bytes in
            header.encode(into: bytes.baseAddress!)
            return socket.send(copying: UnsafeRawBufferPointer(bytes), more: true) == .sent
        }
        // Refused after the first frame: the connection broke, the message is lost, a retry will follow.
        return headerSent && body.withUnsafeBytes { socket.send(copying: $0, more: false) == .sent }
    }

    private func connectAnew() {
        handshakes?.connectIfDue(socket)
        let now = ContinuousClock.now
        guard let since = downSince else {
            downSince = now
            return
        }
        guard now - since >= Self.reconnectTime else { return }
        downSince = now
        socket.connectAnew(to: endpoint)
    }

    /// The next reply that has arrived, or nil. Messages that are no MPX/1 replies are passed over.
    func receive() -> ClientReply? {
        while socket.receive(frame) {
            guard frame.count == 0, frame.hasMore, socket.receive(frame), frame.hasMore,
                let header = ReplyHeader(decoding: UnsafeRawBufferPointer(frame.bytes)), socket.receive(frame),
                !frame.hasMore
            else {
                socket.skipRest(of: frame)
                continue
            }
            return ClientReply(header: header, body: [UInt8](frame.bytes))
        }
        return nil
    }
}

/// Numbers for requests whose sequence is free: their own range, so that they never meet a session's sequences.
enum FreeNumber {
    static let firstBit: UInt64 = 1 << 63
    static func contains(_ sequence: UInt64) -> Bool { sequence & firstBit != 0 }
}

extension Duration {
    var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        invariant(seconds >= 0 && seconds < 1 << 32, "a timeout is between 0 and some years")
        return UInt64(seconds) * 1_000_000_000 + UInt64(max(attoseconds, 0)) / 1_000_000_000
    }
}
