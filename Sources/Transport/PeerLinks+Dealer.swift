import MPaxosInvariants
import MPaxosKeys
import MPaxosMessaging

extension PeerLinks {
    /// This replica's end of the connection to one of lower index.
    package final class Dealer {
        let endpoint: String
        let socket: Socket
        let monitor: Monitor
        /// When to connect anew while no connection stands: libzmq tells of each of its attempts, until it gives up.
        @exclusivity(unchecked) var retryAt: UInt64 = 0
        /// The descriptor of the connection that was made last; the end of one before it says nothing of that.
        @exclusivity(unchecked) var file: Int32 = -1
        var item: Watch.Item?
        var monitorItem: Watch.Item?

        private let keys: KeyRing?
        private let member: Int
        /// What the other side is expected to have; nil without keys.
        private(set) var key: PublicKey?
        /// Handshakes that ended without a word, one after the other.
        var failures = 0
        /// The other side has refused this one, since it was connected to last.
        private var isRefused = false
        /// Microseconds before it is connected to again.
        static let refusedPause: UInt64 = 1_000_000
        /// When to try the other key.
        private var changeAt: UInt64 = .max
        /// Microseconds before that.
        private static let changePause: UInt64 = 50_000

        /// - Parameter member: the index of the replica that listens at `endpoint`.
        package init(
            to endpoint: String, of member: Int, in context: Context, keys: KeyRing?, largestFrame: Int
        ) throws(MessagingError) {
            let socket = try Socket(.dealer, in: context)
            try socket.setImmediate(true)
            try socket.setIPv6(true)
            try socket.setSendHighWaterMark(PeerLinks.highWaterMark)
            try socket.setReceiveHighWaterMark(PeerLinks.highWaterMark)
            try socket.setReconnectInterval(milliseconds: 5, maximum: 40)
            try socket.setConnectTimeout(milliseconds: 1000)
            try socket.setHandshakeInterval(milliseconds: PeerLinks.handshakeTime(hasKeys: keys != nil))
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

        /// Something was heard of the connection. An attempt takes a second at most, and then the handshake.
        func heard(now: UInt64) {
            // The end of the connection that was refused is heard of, too.
            guard !isRefused else { return }
            retryAt = now + UInt64(2000 + PeerLinks.handshakeTime(hasKeys: keys != nil)) * 1000
        }

        /// libzmq has given up, on who may take this side in a moment.
        func wasRefused(now: UInt64) {
            isRefused = true
            retryAt = now + Self.refusedPause
        }

        func isDue(now: UInt64) -> Bool { now >= min(retryAt, changeAt) }

        /// The other side may have another key than the one that was tried last.
        func changeKey(now: UInt64) {
            if changeAt == .max, (keys?.keys(of: member).count ?? 0) > 1 { changeAt = now + Self.changePause }
        }

        /// The handshake is done.
        func stands() {
            failures = 0
            changeAt = .max
        }

        /// Connects anew, to who has the key that is named after the one that was tried last.
        func connectAnew(now: UInt64) {
            isRefused = false
            heard(now: now)
            changeAt = .max
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

    /// Ends the links that stand by keys which the members have no more, and connects anew where they have others.
    func dropWithdrawn(_ keys: KeyRing) {
        for index in links.indices {
            guard let link = links[index] else { continue }
            if let dealer = link.dealer {
                guard dealer.isWithdrawn || link.helloAt == nil else { continue }
                if dealer.isWithdrawn {
                    logger.notice("the key of replica \(settings.members[index].id) was withdrawn: connects anew")
                }
                link.isOpen = false
                link.helloAt = nil
                dealer.connectAnew(now: now)
            } else if let number = link.keyNumber, keys.holder(of: number) != index {
                logger.notice("the key of replica \(settings.members[index].id) was withdrawn: ends the link to it")
                link.isOpen = false
                link.route = .none
                if let file = link.file { port.strangers.end(file) }
                link.keyNumber = nil
            }
        }
    }
}
