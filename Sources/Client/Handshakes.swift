import MPaxosKeys
import MPaxosMessaging

/// The CURVE handshakes of one link: by which key the replica is known now, why no connection stands, and when to
/// connect anew where libzmq would not, or not by the other key.
///
/// A key that was refused may be let in a moment later, by a file that is read again; and a replica may change its own
/// key. So nothing is ever given up here.
final class Handshakes {
    private let endpoint: String
    private let own: KeyPair
    /// Of the replica: tried in turn.
    private let keys: [PublicKey]
    private var place = 0
    private var watch: MonitorReference?
    /// A connection was made since libzmq last began to make one.
    private var hasMet = false
    private var connectAt: ContinuousClock.Instant?

    /// Why no connection stands, as a sentence, as far as libzmq tells.
    private(set) var obstacle: String?

    /// Pause before libzmq is made to try again after it has given up.
    private static let pause = Duration.seconds(1)
    /// The same before the replica's other key is tried.
    private static let otherKeyPause = Duration.milliseconds(50)

    /// For `socket`, which is not connected yet.
    /// - Throws: where libzmq refuses; nil where the replica has no key.
    init?(of socket: borrowing Socket, to endpoint: String, _ clusterKeys: ClusterKeys) throws(MessagingError) {
        guard let keys = clusterKeys.replicas[endpoint], !keys.isEmpty else { return nil }
        self.endpoint = endpoint
        self.own = clusterKeys.own
        self.keys = keys
        try socket.setCurveClient(own, server: keys[0])
        watch = try MonitorReference(of: socket)
    }

    func addMonitor(to poller: inout Poller) {
        if let watch { _ = watch.monitor.add(to: &poller) }
    }

    /// Takes in what happened since the last look. While it is not called, what happens gathers in memory.
    func look() {
        while let event = watch?.monitor.next() { note(event) }
    }

    private func note(_ event: Monitor.Event) {
        if let problem = event.handshakeProblem(at: endpoint, own: own.publicKey) { obstacle = problem }
        switch event {
        case .connected:
            hasMet = true
        case .handshakeSucceeded:
            stands()
        case .keyRefused, .mechanismsDiffer:
            retry(after: Self.pause)
        case .handshakeFailed:
            if keys.count > 1, connectAt == nil {
                place = (place + 1) % keys.count
                retry(after: Self.otherKeyPause)
            }
        case .connectRetried:
            // Nobody was there this time: what was found before may be so no more.
            if !hasMet { obstacle = nil }
            hasMet = false
        case .listening, .bindFailed, .accepted, .acceptFailed, .disconnected, .stopped: break
        }
    }

    private func retry(after pause: Duration) {
        if connectAt == nil { connectAt = .now + pause }
    }

    /// Connects anew when it is time to; to be called now and then while no connection stands.
    func connectIfDue(_ socket: borrowing Socket) {
        if watch == nil {
            // Nobody has seen what happened meanwhile: libzmq may be at it, or have given up.
            watch = try? MonitorReference(of: socket)
            retry(after: Self.pause)
        }
        look()
        guard let due = connectAt, due <= .now else { return }
        connectAt = nil
        hasMet = false
        // The options were taken before.
        try? socket.setCurveClient(own, server: keys[place])
        socket.connectAnew(to: endpoint)
    }

    /// Something was sent: a connection stands.
    func stands() {
        obstacle = nil
        connectAt = nil
    }

    /// For who does not look for a while: nothing gathers from now on.
    func stopLooking(at socket: borrowing Socket) {
        look()
        socket.stopMonitoring()
        watch = nil
    }
}
