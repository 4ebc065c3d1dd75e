import CZeroMQ
import Foundation
import Invariants
import Keys
import Synchronization

/// Says which keys may come in, for all CURVE servers of a context (ZeroMQ RFC 27, ZAP): libzmq asks it in the middle of
/// each handshake. It has a thread of its own.
///
/// libzmq lets everybody in where it finds no handler. So there must be one before the first server of the context is
/// bound; and whoever serves a connection looks at `Frame.keyNumber`, which is nil where nobody was asked. The end of
/// the handler is that of its context: all of its sockets fail from then on.
package final class ZAPHandler: Sendable {
    /// Who knocks.
    package struct Caller {
        /// As of `Socket.setCurveServer`.
        package let domain: String
        /// Of the other side, as libzmq tells it: an IP address, without a port.
        package let address: String
        package let key: PublicKey

        package init(domain: String, address: String, key: PublicKey) {
            self.domain = domain
            self.address = address
            self.key = key
        }
    }

    private let context: Context
    private let ended: DispatchSemaphore
    private static let endpoint = "inproc://zeromq.zap.01"

    /// Begins to answer.
    /// - Parameter judge: the number of a key that may come in, which is not negative; nil for one that may not. Called
    ///   on the handler's thread.
    package init(
        in context: Context, judge: @escaping @Sendable (Caller) -> Int?
    ) throws(MessagingError) {
        self.context = context
        let ended = DispatchSemaphore(value: 0)
        self.ended = ended
        let socket = try Socket(.rep, in: context)
        try socket.bind(Self.endpoint)
        let owned = Mutex<Socket?>(socket)
        let thread = Thread {
            Self.run(owned.withLock { $0.take() }, judge)
            ended.signal()
        }
        thread.name = "zap"
        thread.stackSize = 1 << 20
        thread.start()
    }

    deinit {
        context.shutdown()
        ended.wait()
    }

    private static func run(_ socket: consuming Socket?, _ judge: (Caller) -> Int?) {
        guard let socket else { broken("the handler's socket is taken once") }
        var poller = Poller(capacity: 1)
        _ = poller.add(socket)
        let frame = Frame()
        while true {
            _ = poller.wait(timeoutMilliseconds: -1)
            if poller.isTerminated { return }
            while socket.receive(frame) { answer(frame, over: socket, judge) }
        }
    }

    /// Version, number, domain, address, routing id, mechanism, and what the mechanism brings: here the key.
    private static func answer(
        _ frame: borrowing Frame, over socket: borrowing Socket, _ judge: (Caller) -> Int?
    ) {
        var parts = [Array(frame.bytes)]
        while frame.hasMore, parts.count < 7, socket.receive(frame) { parts.append(Array(frame.bytes)) }
        socket.skipRest(of: frame)
        let number = parts.count > 1 ? parts[1] : []
        var user: Int?
        if parts.count == 7, parts[0] == Array("1.0".utf8), parts[5] == Array("CURVE".utf8),
            let key = PublicKey(bytes: parts[6])
        {
            user = judge(
                Caller(
                    domain: String(decoding: parts[2], as: UTF8.self),
                    address: String(decoding: parts[3], as: UTF8.self), key: key))
        }
        let reply: [[UInt8]] = [
            Array("1.0".utf8), number, Array((user == nil ? "400" : "200").utf8),
            Array((user == nil ? "unknown key" : "OK").utf8), user.map { Array("\($0)".utf8) } ?? [], [],
        ]
        for (place, part) in reply.enumerated() {
            _ = part.withUnsafeBytes { socket.send(copying: $0, more: place < reply.count - 1) }
        }
    }
}
