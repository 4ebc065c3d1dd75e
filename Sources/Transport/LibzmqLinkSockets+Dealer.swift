import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys
import MPaxosLinks
import MPaxosMessaging

extension LibzmqLinkSockets {
    /// This replica's end of the connection to one of lower index.
    struct Dealer: ~Copyable {
        let socket: Socket
        private let endpoint: String
        private let monitor: Monitor
        private let keys: KeyRing?
        private let member: Int
        /// What the other side is expected to have; nil without keys.
        private var key: PublicKey?
        /// The descriptor of the connection that was made last; the end of one before it says nothing of that.
        private var file: Int32 = -1
        private var item: Watch.Item?
        private var monitorItem: Watch.Item?

        /// - Parameter member: the index of the replica that listens at `endpoint`.
        init(
            to endpoint: String, of member: Int, in context: Context, keys: KeyRing?, largestFrame: Int
        ) throws(MessagingError) {
            let socket = try Socket(.dealer, in: context)
            try socket.setImmediate(true)
            try socket.setIPv6(true)
            try socket.setSendHighWaterMark(LibzmqLinkSockets.highWaterMark)
            try socket.setReceiveHighWaterMark(LibzmqLinkSockets.highWaterMark)
            try socket.setReconnectInterval(milliseconds: 5, maximum: 40)
            try socket.setConnectTimeout(milliseconds: 1000)
            try socket.setHandshakeInterval(milliseconds: LibzmqLinkSockets.handshakeTime(hasKeys: keys != nil))
            try socket.setMaxMessageSize(largestFrame + Socket.curveOverhead)
            // A host that vanished sends no farewell: without this the connection would seem to stand for minutes.
            try socket.setHeartbeat(intervalMilliseconds: 1000, timeout: 3000)
            let key = keys?.keys(of: member).first
            if let keys, let key { try socket.setCurveClient(keys.pair, server: key) }
            let monitor = try Monitor(of: socket)
            try socket.connect(endpoint)
            self.endpoint = endpoint
            self.socket = socket
            self.monitor = monitor
            self.keys = keys
            self.member = member
            self.key = key
        }

        mutating func register(in watch: Watch) {
            item = watch.add(socket)
            monitorItem = monitor.add(to: watch)
        }

        mutating func nextEvent(_ watch: Watch) -> Event? {
            guard let monitorItem, watch.isReady(monitorItem) else { return nil }
            guard let event = monitor.next() else {
                watch.wasEmpty(monitorItem)
                return nil
            }
            switch event {
            case .handshakeSucceeded: return .connected
            case .disconnected(_, let file) where file == self.file: return .lost
            case .handshakeFailed: return .handshakeFailed
            case .mechanismsDiffer: return .mechanismsDiffer
            case .keyRefused: return .keyRefused
            case .connected(_, let file): self.file = file
            case .listening, .bindFailed, .accepted, .acceptFailed, .connectRetried, .disconnected, .stopped: break
            }
            return .attempted
        }

        func receive(_ frame: borrowing Frame, _ watch: Watch) -> Reception {
            guard let item, watch.isReady(item) else { return .nothing }
            guard socket.receive(frame) else {
                watch.wasEmpty(item)
                return .nothing
            }
            guard !frame.hasMore else {
                socket.skipRest(of: frame)
                return .unusable
            }
            return .frame
        }

        func send(_ frame: borrowing Frame, _ watch: Watch) -> Outcome {
            if let item { watch.wasUsed(item) }
            return Outcome(socket.send(frame, more: false))
        }

        /// Connects anew, to who has the key that is named after the one that was tried last.
        mutating func connectAnew() {
            if let keys {
                let named = keys.keys(of: member)
                let place = key.flatMap(named.firstIndex) ?? -1
                let next = named[(place + 1) % named.count]
                // What was set once can be set again.
                try? socket.setCurveClient(keys.pair, server: next)
                key = next
            }
            socket.connectAnew(to: endpoint)
        }

        var isWithdrawn: Bool {
            guard let keys, let key else { return false }
            return !keys.keys(of: member).contains(key)
        }
    }

    /// A connection to the port of a member that is called back.
    final class Caller {
        /// Calls that wait for the connection.
        private static let mostWaiting = 64

        private let socket: Socket

        /// - Parameter keys: this replica's pair and the callee's key, where replicas have some.
        init(
            to endpoint: String, in context: Context, keys: (own: KeyPair, callee: PublicKey)?
        ) throws(MessagingError) {
            let socket = try Socket(.dealer, in: context)
            try socket.setIPv6(true)
            try socket.setSendHighWaterMark(Self.mostWaiting)
            try socket.setReceiveHighWaterMark(1)
            // Nothing but what the connection itself needs is expected.
            try socket.setMaxMessageSize(512)
            try socket.setReconnectInterval(milliseconds: 5, maximum: 40)
            try socket.setConnectTimeout(milliseconds: 1000)
            try socket.setHandshakeInterval(milliseconds: LibzmqLinkSockets.handshakeTime(hasKeys: keys != nil))
            if let keys { try socket.setCurveClient(keys.own, server: keys.callee) }
            try socket.connect(endpoint)
            self.socket = socket
        }

        func send(_ frame: borrowing Frame) { _ = socket.send(frame, more: false) }
    }
}
