import Foundation
import MPaxosClient
import MPaxosFrames
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire
import Synchronization

/// A replica that speaks MPX/1 and answers by script: a ROUTER on a thread of its own. What it answers is the test's;
/// that it knows nothing of consensus is the point.
final class FakeReplica: Sendable {
    struct Request: Sendable, Equatable {
        let header: RequestHeader
        let body: [UInt8]
    }

    /// Nil: silence.
    struct Answer: Sendable {
        var status: StatusCode
        var body: [UInt8] = []
        /// In place of the request's.
        var session: UInt64?
        var position: UInt64 = 0

        static func ok(_ body: [UInt8] = [], position: UInt64 = 1) -> Answer {
            Answer(status: .ok, body: body, position: position)
        }
        static func opened(_ session: UInt64) -> Answer { Answer(status: .ok, session: session, position: 1) }
        static func busy(milliseconds: UInt32) -> Answer { Answer(status: .busy, body: bytes(milliseconds)) }
        static func noLeader(milliseconds: UInt32) -> Answer { Answer(status: .noLeader, body: bytes(milliseconds)) }
        static func redirect(to endpoint: String) -> Answer { Answer(status: .redirect, body: [UInt8](endpoint.utf8)) }

        static func bytes(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { [UInt8]($0) } }
    }

    typealias Script = @Sendable (_ request: Request, _ index: Int) -> Answer?

    let endpoint: String
    private let context: Context
    private let handler: ZAPHandler?
    private let seen = Mutex<[Request]>([])

    /// Everything received so far, in order.
    var requests: [Request] { seen.withLock { $0 } }

    /// - Parameters:
    ///   - door: with it clients need a key.
    ///   - script: called on the replica's thread with each request and its index, 0 for the first.
    init(
        id: UInt16 = 0, at place: String = "tcp://127.0.0.1:*", door: Door? = nil, _ script: @escaping Script
    ) throws {
        let context = try Context(ioThreads: 1)
        self.context = context
        let router = try Socket(.router, in: context)
        handler = try door.map { door in try ZAPHandler(in: context) { door.lets($0.key) ? 1 : nil } }
        if let door {
            try router.setCurveServer(door.pair, domain: "clients")
        }
        try Self.bind(router, at: place)
        endpoint = router.lastEndpoint
        let server = Server(router)
        Thread.detachNewThread { [self] in
            server.serve { request in
                let index = seen.withLock { seen in
                    seen.append(request)
                    return seen.count - 1
                }
                guard let answer = script(request, index) else { return nil }
                var header = ReplyHeader(answer.status, to: request.header, replica: id, position: answer.position)
                if let session = answer.session { header.session = session }
                return ClientReply(header: header, body: answer.body)
            }
        }
    }

    /// A port that was given up is free a moment later.
    private static func bind(_ router: borrowing Socket, at place: String) throws {
        let end = ContinuousClock.now + .seconds(10)
        while true {
            do {
                return try router.bind(place)
            } catch {
                guard .now < end else { throw error }
                usleep(1000)
            }
        }
    }

    /// Ends the thread; connections break.
    func stop() { context.shutdown() }

    private final class Server: @unchecked Sendable {
        // Unchecked: made on one thread, then used by the other alone.
        private let router: Socket

        init(_ router: consuming Socket) { self.router = router }

        func serve(_ answer: (Request) -> ClientReply?) {
            var poller = Poller(capacity: 1)
            _ = poller.add(router)
            let frame = Frame()
            while !poller.isTerminated {
                _ = poller.wait(timeoutMilliseconds: -1)
                while router.receive(frame) {
                    var frames: [[UInt8]] = [[UInt8](frame.bytes)]
                    while frame.hasMore, router.receive(frame) { frames.append([UInt8](frame.bytes)) }
                    // Identity, delimiter, header, body; anything else a test would notice as a missing request.
                    guard frames.count == 4, frames[1].isEmpty,
                        let header = frames[2].withUnsafeBytes({ RequestHeader(decoding: $0) }),
                        let reply = answer(Request(header: header, body: frames[3]))
                    else { continue }
                    var encoded = [UInt8](repeating: 0, count: clientHeaderSize)
                    encoded.withUnsafeMutableBytes { reply.header.encode(into: $0.baseAddress!) }
                    send([frames[0], [], encoded, reply.body])
                }
            }
        }

        private func send(_ frames: [[UInt8]]) {
            for (index, part) in frames.enumerated() {
                _ = part.withUnsafeBytes { router.send(copying: $0, more: index + 1 < frames.count) }
            }
        }
    }
}

/// Who a replica is, and whom it lets in.
final class Door: Sendable {
    let pair: KeyPair
    private let guests: Mutex<Set<PublicKey>>

    init(_ pair: KeyPair, _ guests: KeyPair...) {
        self.pair = pair
        self.guests = Mutex(Set(guests.map(\.publicKey)))
    }

    func lets(_ key: PublicKey) -> Bool { guests.withLock { $0.contains(key) } }
    func admit(_ guest: KeyPair) { guests.withLock { _ = $0.insert(guest.publicKey) } }
}

/// No second attempts for want of an answer: on a busy machine a test that counts requests would count those.
let patient = ClientOptions(timeout: .seconds(60), attempt: .seconds(60))

/// An endpoint where nobody listens.
func deadEndpoint() -> String { "ipc:///tmp/mpaxos-nobody-\(UUID().uuidString)" }
