import Foundation
import MPaxosCZeroMQ
import MPaxosFrames
import MPaxosInvariants
import MPaxosKeys
import Synchronization

/// Says which keys may come in, for all CURVE servers of a context (ZeroMQ RFC 27, ZAP): libzmq asks it in the middle
/// of each handshake. It has a thread of its own.
///
/// libzmq lets everybody in where it finds no handler, and then a connection has whatever number it claims. So there
/// must be a handler before the first server of the context is bound, and the end of the handler is that of its
/// context: all of its sockets fail from then on.
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
    /// - Parameters:
    ///   - named: the domain in which connections get names of the handler's (`ConnectionName`), whatever they call
    ///     themselves.
    ///   - judge: the number of a key that may come in, which is not negative; nil for one that may not. Called on the
    ///     handler's thread.
    package init(
        in context: Context, naming named: String? = nil, judge: @escaping @Sendable (Caller) -> Int?
    ) throws(MessagingError) {
        let ended = DispatchSemaphore(value: 0)
        let socket = try Socket(.router, in: context)
        try socket.bind(Self.endpoint)
        let owned = Mutex<Socket?>(socket)
        let thread = Thread {
            guard let socket = owned.withLock({ $0.take() }) else { broken("the handler's socket is taken once") }
            var loop = ZAPLoop(socket, named: named, judge)
            loop.run()
            ended.signal()
        }
        thread.name = "zap"
        thread.stackSize = 1 << 20
        // Only now is there something that `deinit` has to end.
        self.context = context
        self.ended = ended
        thread.start()
    }

    deinit {
        context.shutdown()
        ended.wait()
    }
}

/// What a `ZAPHandler` calls a connection, which ROUTER and REP then know it by: nobody else can claim the name of
/// another.
package enum ConnectionName {
    private static let mark: UInt8 = 1
    private static let size = 9

    static func new() -> [UInt8] {
        [mark] + withUnsafeBytes(of: UInt64.random(in: 0...(.max))) { Array($0) }
    }

    /// Whether `name`, the first frame of a message, is one of these.
    package static func isOne(_ name: UnsafeRawBufferPointer) -> Bool { name.count == size && name[0] == mark }
}

/// The handler's thread: requests in, answers out, some of them a little later.
private struct ZAPLoop: ~Copyable {
    private struct Answer {
        let due: ContinuousClock.Instant
        let parts: [[UInt8]]
    }

    /// A name counts only when it comes after what the client calls itself. libzmq reads that right after it has asked
    /// here, on another thread: by then it has.
    private static let namingPause = Duration.milliseconds(5)

    private let socket: Socket
    private let named: String?
    private let judge: (ZAPHandler.Caller) -> Int?
    private var waiting: [Answer] = []
    private let frame = Frame()

    init(_ socket: consuming Socket, named: String?, _ judge: @escaping (ZAPHandler.Caller) -> Int?) {
        self.socket = socket
        self.named = named
        self.judge = judge
    }

    mutating func run() {
        var poller = Poller(capacity: 1)
        _ = poller.add(socket)
        while true {
            _ = poller.wait(timeoutMilliseconds: waiting.isEmpty ? -1 : 1)
            if poller.isTerminated { return }
            while socket.receive(frame) { take() }
            let now = ContinuousClock.now
            let due = waiting.prefix { $0.due <= now }
            for answer in due { send(answer.parts) }
            waiting.removeFirst(due.count)
        }
    }

    /// Who asks, an empty frame, version, number, domain, address, routing id, mechanism, and what the mechanism
    /// brings: here the key.
    private mutating func take() {
        var parts = [Array(frame.bytes)]
        while frame.hasMore, parts.count < 9, socket.receive(frame) { parts.append(Array(frame.bytes)) }
        socket.skipRest(of: frame)
        guard parts.count > 3 else { return }
        var user: Int?
        var name: [UInt8] = []
        if parts.count == 9, parts[2] == Array("1.0".utf8), parts[7] == Array("CURVE".utf8),
            let key = PublicKey(bytes: parts[8])
        {
            let domain = String(decoding: parts[4], as: UTF8.self)
            user = judge(
                ZAPHandler.Caller(domain: domain, address: String(decoding: parts[5], as: UTF8.self), key: key))
            if user != nil, domain == named { name = ConnectionName.new() }
        }
        let answer: [[UInt8]] = [
            parts[0], [], Array("1.0".utf8), parts[3], Array((user == nil ? "400" : "200").utf8),
            Array((user == nil ? "unknown key" : "OK").utf8), user.map { Array("\($0)".utf8) } ?? [],
            name.isEmpty ? [] : Self.metadata("Identity", name),
        ]
        if name.isEmpty { return send(answer) }
        waiting.append(Answer(due: .now + Self.namingPause, parts: answer))
    }

    private func send(_ parts: [[UInt8]]) {
        for (place, part) in parts.enumerated() {
            _ = part.withUnsafeBytes { socket.send(copying: $0, more: place < parts.count - 1) }
        }
    }

    /// A property of a connection (ZeroMQ RFC 23, "metadata").
    private static func metadata(_ name: String, _ value: [UInt8]) -> [UInt8] {
        [UInt8(name.utf8.count)] + Array(name.utf8)
            + withUnsafeBytes(of: UInt32(value.count).bigEndian) { Array($0) } + value
    }
}
