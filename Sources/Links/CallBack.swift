import MPaxosFrames
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
final class CallBack {
    /// A connection to a member's port.
    private struct Caller {
        let madeAt: UInt64
        var usedAt: UInt64
    }

    /// Microseconds after which a connection that no call used is closed. A connection takes some round trips.
    private static let idleTime: UInt64 = 10_000_000
    /// Microseconds after which a connection is made anew over which nobody has answered: the sockets may have given
    /// up.
    private static let answerTime: UInt64 = 5_000_000

    private let sockets: LinkSockets
    private let sender: Int
    private let hash: KeyedHash
    /// By index.
    private var callers: [Caller?]
    /// When to look for connections that were not used for a while; `max`: there are none.
    @exclusivity(unchecked) private(set) var nextLook = UInt64.max
    private let frame = Frame()

    /// - Parameters:
    ///   - sender: the index of this replica.
    ///   - secret: of this process, known to nobody else.
    init(over sockets: LinkSockets, sender: Int, memberCount: Int, secret: (UInt64, UInt64)) {
        self.sockets = sockets
        self.sender = sender
        hash = KeyedHash(key: secret)
        callers = Array(repeating: nil, count: memberCount)
    }

    /// Whether `proof` came from the replica at index `peer`, which was called for a HELLO along `route`.
    func isProof(_ proof: UInt64, of peer: Int, along route: Route) -> Bool {
        proof == challenge(to: peer, along: route)
    }

    /// Nothing is kept for those who say HELLO, whose number strangers choose: the challenge is a keyed hash.
    private func challenge(to peer: Int, along route: Route) -> UInt64 {
        // Zero says that there is no proof.
        hash.of(UInt64(peer), route.number) | 1
    }

    /// Calls the replica at index `peer`. What cannot be sent now is called again at the next HELLO.
    /// - Parameter key: with which it came, and which it has at its port, too; nil where replicas have none.
    func call(_ peer: Int, key: Int?, ticket: UInt64, along route: Route, now: UInt64) {
        if let caller = callers[peer], now >= caller.madeAt + Self.answerTime { end(peer) }
        if callers[peer] == nil {
            guard sockets.beginCalls(to: peer, key: key) else { return }
            callers[peer] = Caller(madeAt: now, usedAt: now)
        }
        callers[peer]?.usedAt = now
        nextLook = min(nextLook, now + Self.idleTime)
        let call = Handshake.Call(ticket: ticket, challenge: challenge(to: peer, along: route))
        Handshake.call(call).encode(sender: UInt8(sender)).withUnsafeBytes { frame.rebuild(copying: $0) }
        sockets.call(peer, frame)
    }

    /// The replica at index `peer` has answered, or is not called any more.
    func end(_ peer: Int) {
        guard callers[peer] != nil else { return }
        callers[peer] = nil
        sockets.endCalls(to: peer)
    }

    /// Closes the connections that were not used for a while.
    func forget(now: UInt64) {
        guard now >= nextLook else { return }
        nextLook = .max
        for peer in callers.indices {
            guard let caller = callers[peer] else { continue }
            if now >= caller.usedAt + Self.idleTime {
                end(peer)
            } else {
                nextLook = min(nextLook, caller.usedAt + Self.idleTime)
            }
        }
    }
}
