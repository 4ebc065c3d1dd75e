import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire

/// How a replica makes sure that whoever says HELLO is the replica that it says it is: it calls that one back.
///
/// The topology tells where a replica listens. So the one that was greeted connects there, for a moment, and leaves a
/// challenge: a number that it makes of the connection that HELLO came along, and that nobody else gets to see. A HELLO
/// that brings the challenge back along that connection comes from who listens at that endpoint. The CALL names the
/// ticket of the HELLO, which only the two know, so that the callee tells it from the calls of strangers.
///
/// This keeps out whoever merely reaches the ports. Who can listen at a replica's endpoint, or reads what the network
/// carries, can pass for it: against those help keys, not this.
package final class CallBack {
    private final class Caller {
        let socket: Socket
        let madeAt: UInt64
        var usedAt: UInt64

        /// - Parameter keys: this replica's pair and the callee's key, where replicas have some.
        init(
            to endpoint: String, in context: Context, keys: (own: KeyPair, callee: PublicKey)?, now: UInt64
        ) throws(MessagingError) {
            (madeAt, usedAt) = (now, now)
            let socket = try Socket(.dealer, in: context)
            try socket.setIPv6(true)
            try socket.setSendHighWaterMark(CallBack.mostWaiting)
            try socket.setReceiveHighWaterMark(1)
            // Nothing but what the connection itself needs is expected.
            try socket.setMaxMessageSize(512)
            try socket.setReconnectInterval(milliseconds: 5, maximum: 40)
            try socket.setConnectTimeout(milliseconds: 1000)
            try socket.setHandshakeInterval(milliseconds: PeerLinks.handshakeTime(hasKeys: keys != nil))
            if let keys { try socket.setCurveClient(keys.own, server: keys.callee) }
            try socket.connect(endpoint)
            self.socket = socket
        }
    }

    /// Calls that wait for the connection.
    private static let mostWaiting = 64
    /// Microseconds after which a connection that no call used is closed. A connection takes some round trips.
    private static let idleTime: UInt64 = 10_000_000
    /// Microseconds after which a connection is made anew over which nobody has answered, see `Socket.connectAnew`.
    private static let answerTime: UInt64 = 5_000_000

    private let context: Context
    private let endpoints: [String]
    private let pair: KeyPair?
    private let secret: [UInt64]
    private var callers: [Caller?]
    /// When to look for connections that were not used for a while; `max`: there are none.
    @exclusivity(unchecked) private var nextLook = UInt64.max
    private let frame = Frame()

    /// - Parameters:
    ///   - endpoints: where the members listen for each other, by index.
    ///   - pair: this replica's own, where replicas have keys.
    package init(to endpoints: [String], in context: Context, pair: KeyPair?) {
        self.context = context
        self.pair = pair
        self.endpoints = endpoints
        callers = Array(repeating: nil, count: endpoints.count)
        var random = SystemRandomNumberGenerator()
        secret = (0..<4).map { _ in random.next() }
    }

    /// Whether `proof` came from the replica at index `peer`, which was called for a HELLO along `route`.
    func isProof(_ proof: UInt64, of peer: Int, along route: Route) -> Bool {
        proof == challenge(to: peer, along: route)
    }

    /// Nothing is kept for those who say HELLO, whose number strangers choose: the challenge is a keyed hash.
    private func challenge(to peer: Int, along route: Route) -> UInt64 {
        var hasher = Hasher()
        for word in secret { hasher.combine(word) }
        hasher.combine(peer)
        hasher.combine(route)
        // Zero says that there is no proof.
        return UInt64(truncatingIfNeeded: hasher.finalize()) | 1
    }

    /// Calls the replica at index `peer`. What cannot be sent now is called again at the next HELLO.
    /// - Parameter key: with which it came, and which it has as a server, too; nil where replicas have none.
    func call(_ peer: Int, key: PublicKey?, ticket: UInt64, along route: Route, sender: Int, now: UInt64) {
        if let caller = callers[peer], now >= caller.madeAt + Self.answerTime { callers[peer] = nil }
        if callers[peer] == nil {
            var keys: (own: KeyPair, callee: PublicKey)?
            if let pair, let key { keys = (pair, key) }
            callers[peer] = try? Caller(to: endpoints[peer], in: context, keys: keys, now: now)
        }
        guard let caller = callers[peer] else { return }
        caller.usedAt = now
        nextLook = min(nextLook, now + Self.idleTime)
        let call = Handshake.Call(ticket: ticket, challenge: challenge(to: peer, along: route))
        Handshake.call(call).encode(sender: UInt8(sender)).withUnsafeBytes { frame.rebuild(copying: $0) }
        _ = caller.socket.send(frame, more: false)
    }

    /// The replica at index `peer` has answered.
    func end(_ peer: Int) {
        callers[peer] = nil
    }

    /// Closes the connections that were not used for a while.
    func forget(now: UInt64) {
        guard now >= nextLook else { return }
        nextLook = .max
        for peer in callers.indices {
            guard let caller = callers[peer] else { continue }
            if now >= caller.usedAt + Self.idleTime {
                callers[peer] = nil
            } else {
                nextLook = min(nextLook, caller.usedAt + Self.idleTime)
            }
        }
    }
}
