import MPaxosFrames
import MPaxosKeys
import MPaxosMessaging
import MPaxosZMTP

/// What connections to replicas that know their clients by keys are made with. Used by one thread.
final class CurveDialer {
    private let keys: ClusterKeys
    private let context: Context
    /// Which of a replica's two keys is tried, by endpoint.
    private var places: [String: Int] = [:]
    /// Why the last connection that could not be made could not, as a sentence, as far as libzmq tells.
    private(set) var obstacle: String?

    /// - Throws: of the kind `.system`.
    init(_ keys: ClusterKeys) throws(BenchError) {
        self.keys = keys
        do {
            // They encrypt: one would be the bottleneck before the generator is, on a machine that has the cores.
            context = try Context(ioThreads: max(1, min(4, processorCount() / 4)))
        } catch {
            throw BenchError(.system, error.description)
        }
    }

    func knows(_ endpoint: String) -> Bool { keys.replicas[endpoint]?.isEmpty == false }

    /// Begins a connection; nil when there is none to be had.
    func dial(_ endpoint: String) -> CurveConnection? {
        guard let replica = keys.replicas[endpoint], !replica.isEmpty else { return nil }
        let place = places[endpoint, default: 0] % replica.count
        return try? CurveConnection(to: endpoint, keys.own, replica: replica[place], place: place, in: context)
    }

    /// A connection could not be made: the next one is tried by the replica's other key, if it has two.
    func failed(_ connection: CurveConnection) {
        if let problem = connection.problem { obstacle = problem }
        if connection.hasMet { places[connection.endpoint] = connection.place + 1 }
    }

    func succeeded() { obstacle = nil }

    /// Whether the replica has a key that was not tried since the first of its two.
    func hasAnotherKey(after connection: CurveConnection) -> Bool {
        connection.hasMet && connection.place + 1 < keys.replicas[connection.endpoint, default: []].count
    }
}

/// A connection by CURVE: a DEALER of libzmq in place of a plain socket. What it sends and receives is given and taken
/// as the bytes that a plain socket would have, frames of ZMTP.
final class CurveConnection {
    enum Progress { case pending, up, failed }

    let endpoint: String
    /// Of the replica's key, among the two that it may have.
    let place: Int
    /// Somebody listens at the endpoint.
    private(set) var hasMet = false
    private(set) var problem: String?
    private let own: PublicKey
    private let socket: Socket
    /// While the connection is being made.
    private var watch: MonitorReference?
    private let frame = Frame()

    /// Received bytes that are taken in at a time; links take turns.
    private static let portion = 64 << 10
    /// So long that libzmq never gets to connect again by itself: the generator does, elsewhere.
    private static let reconnectInterval = 3_600_000

    init(
        to endpoint: String, _ own: KeyPair, replica: PublicKey, place: Int, in context: Context
    ) throws(MessagingError) {
        self.endpoint = endpoint
        self.own = own.publicKey
        self.place = place
        socket = try Socket(.dealer, in: context)
        // A socket without a connection then takes nothing: by that it shows.
        try socket.setImmediate(true)
        try socket.setSendHighWaterMark(0)
        try socket.setReceiveHighWaterMark(0)
        try socket.setIPv6(true)
        try socket.setReconnectInterval(milliseconds: Self.reconnectInterval)
        try socket.setMaxMessageSize(LoadLoop.largestFrame + Socket.curveOverhead)
        try socket.setCurveClient(own, server: replica)
        watch = try MonitorReference(of: socket)
        try socket.connect(endpoint)
    }

    // A monitor must not outlive its socket.
    deinit { socket.stopMonitoring() }

    /// Signalled when something has happened to the connection: to be looked at then, and after each send.
    var fileDescriptors: [Int32] { [socket.fileDescriptor] + (watch.map { [$0.monitor.fileDescriptor] } ?? []) }

    /// How far a connection is that is being made.
    func progress() -> Progress {
        if state.isUp {
            socket.stopMonitoring()
            watch = nil
            return .up
        }
        while let event = watch?.monitor.next() {
            switch event {
            case .connected: hasMet = true
            case .keyRefused, .mechanismsDiffer, .handshakeFailed, .connectRetried, .disconnected:
                problem = problem ?? event.handshakeProblem(at: endpoint, own: own)
                return .failed
            case .handshakeSucceeded, .listening, .bindFailed, .accepted, .acceptFailed, .stopped: break
            }
        }
        return .pending
    }

    /// Whether there is a connection, and something to receive.
    var state: (isUp: Bool, isReadable: Bool) {
        let events = socket.pollEvents
        return (events.writable, events.readable)
    }

    /// Sends the frames in `output`, all of them whole. False when the connection is lost.
    func send(_ output: inout ByteQueue) -> Bool {
        while case .frame(let head) = Codec.frame(output.bytes, at: 0, limit: .max) {
            let end = head.bodyOffset + head.bodyCount
            let body = UnsafeRawBufferPointer(rebasing: output.bytes[head.bodyOffset..<end])
            guard socket.send(copying: body, more: head.hasMore) == .sent else { return false }
            output.remove(end)
        }
        return true
    }

    /// Appends frames that have arrived to `input`; false when there were none.
    func receive(into input: inout ByteQueue) -> Bool {
        let before = input.count
        while input.count - before < Self.portion, socket.receive(frame) {
            let size = Codec.size(ofFrame: frame.count)
            _ = Codec.write(UnsafeRawBufferPointer(frame.bytes), more: frame.hasMore, to: input.reserve(size))
            input.commit(size)
        }
        return input.count > before
    }
}
