import MPaxosCZeroMQ
import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys

/// CURVE, the mechanism by which libzmq encrypts and authenticates connections (ZeroMQ RFC 26). To be set before `bind`
/// and `connect`: it holds for what is bound and connected later.
extension Socket {
    /// Bytes by which an encrypted frame is larger than its content: what `setMaxMessageSize` has to allow besides.
    package static let curveOverhead = 64

    /// ZMQ_ZAP_ENFORCE_DOMAIN, which libzmq 4.3 takes, and its header has only among its drafts.
    private static let enforceDomain: Int32 = 93

    /// Lets in who has a key that the context's `ZAPHandler` knows in `domain`.
    package borrowing func setCurveServer(_ pair: KeyPair, domain: String) throws(MessagingError) {
        try set(ZMQ_CURVE_SERVER, to: 1, named: "the side of CURVE")
        try set(ZMQ_CURVE_SECRETKEY, toBytes: pair.secret, named: "the secret key")
        try set(ZMQ_ZAP_DOMAIN, toBytes: Array(domain.utf8), named: "the domain of authentication")
        // Nobody comes in where nobody is asked. Some builds of libzmq do not know that; there the handler is what
        // counts.
        try? set(Self.enforceDomain, to: 1, named: "that the domain counts")
    }

    /// Connects as who has `pair`, to who has the secret half of `server` and to nobody else.
    package borrowing func setCurveClient(_ pair: KeyPair, server: PublicKey) throws(MessagingError) {
        try set(ZMQ_CURVE_SERVERKEY, toBytes: server.bytes, named: "the server's key")
        try set(ZMQ_CURVE_PUBLICKEY, toBytes: pair.publicKey.bytes, named: "the public key")
        try set(ZMQ_CURVE_SECRETKEY, toBytes: pair.secret, named: "the secret key")
    }
}

extension Monitor.Event {
    /// Why no connection to `endpoint` came about with the key `own`, as a sentence; nil where nothing is wrong with
    /// keys.
    package func handshakeProblem(at endpoint: String, own: PublicKey) -> String? {
        switch self {
        case .keyRefused:
            "\(endpoint) does not let in the key \(own): whoever keeps the cluster's clients.toml can enter it there"
        case .mechanismsDiffer: "\(endpoint) speaks without keys, and the topology says that clients have some"
        case .handshakeFailed:
            "\(endpoint) closes the connection in the handshake: it may have another key than the topology says, or none"
        case .listening, .bindFailed, .accepted, .acceptFailed, .connected, .connectRetried, .handshakeSucceeded,
            .disconnected, .stopped:
            nil
        }
    }
}

extension Frame {
    /// The number that the `ZAPHandler` gave to the key of the connection that the frame was received over; nil where
    /// the connection has no key.
    package var keyNumber: Int? {
        guard let text = zmq_msg_gets(message, "User-Id") else { return nil }
        var number = 0
        var at = text
        while at.pointee != 0 {
            let digit = Int(at.pointee) - Int(UInt8(ascii: "0"))
            guard (0...9).contains(digit), number < 1 << 40 else { return nil }
            number = number * 10 + digit
            at += 1
        }
        return at == text ? nil : number
    }
}
