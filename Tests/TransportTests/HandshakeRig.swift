import Foundation
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosFrames
import MPaxosKeys
import MPaxosMessaging
import MPaxosQueues
import MPaxosWire
import Testing

@testable import MPaxosLinks
@testable import MPaxosMetrics
@testable import MPaxosPipeline
@testable import MPaxosTransport

/// The links of replica 0 of three, the ports of the others, and two sockets that pass for replica 2. With keys each
/// has its own: the second socket that of replica 2 as well, as a process on a copy of it has, or another's.
final class HandshakeRig {
    let board = StatusBoard(members: [0, 1, 2])
    let log = ErrorLog()
    let own = Life(bootCount: 3, nonce: 33)
    let hello: Handshake.Hello
    private let sockets: LibzmqLinkSockets
    private let links: PeerLinks
    private let rings = Rings(outstanding: 16)
    let progress = Progress.allocate()
    private let parker = Parker.allocate()!
    private let watch = Watch.allocate(capacity: 8)
    private var peer: Socket?
    private let other: Socket
    /// Where replicas 1 and 2 listen, and the challenges that were left there, by ticket.
    private let ports: [Port]
    private var challenges: [UInt64: UInt64] = [:]
    private var tickets: UInt64 = 0
    private let frame = Frame()
    private let keys: KeyedTopology?
    let ring: KeyRing?
    private let handler: ZAPHandler?

    final class Port {
        let socket: Socket

        init(_ endpoint: String, in context: Context, _ pair: KeyPair?) throws {
            socket = try Socket(.router, in: context)
            if let pair { try socket.setCurveServer(pair, domain: KeyRing.peers) }
            try socket.bind(endpoint)
        }
    }

    /// - Parameters:
    ///   - skips: positions of commands that replica 0 does not execute.
    ///   - keys: whether replicas have keys.
    ///   - holder: whose key the second socket has.
    init(isFounded: Bool = true, skips: [UInt64] = [], keys hasKeys: Bool = false, holder: Int = 2) throws {
        let context = try Context(ioThreads: 1)
        let keys = hasKeys ? try KeyedTopology() : nil
        self.keys = keys
        let log = self.log
        let board = self.board
        let ring = try keys?.ring(of: 0, board: board, log: log)
        self.ring = ring
        handler = try ring.map { ring in try ZAPHandler(in: context) { ring.admit($0) } }
        // Nothing is encrypted within a process.
        ports = try [1, 2].map {
            try Port(hasKeys ? "tcp://127.0.0.1:*" : "inproc://p\($0)", in: context, keys?.replicas[$0])
        }
        let endpoints = ["inproc://p0"] + ports.map { $0.socket.lastEndpoint }
        let members = [0, 1, 2].map {
            Handshake.Member(
                id: $0, incarnation: isFounded ? UInt64($0) + 10 : 0, life: .none, peerEndpoint: endpoints[Int($0)],
                clientEndpoint: "c\($0)")
        }
        let fingerprint = charter.fingerprint(layout: 1)
        hello = Handshake.Hello(
            cluster: "c", replica: 2, incarnation: 12, life: Life(bootCount: 5, nonce: 55),
            founding: isFounded ? .founded : .gathering, skipping: Skipping(position: 5, named: []),
            charter: charter, fingerprint: fingerprint, members: members)
        let port = try LibzmqLinkSockets.Port(
            binding: hasKeys ? "tcp://127.0.0.1:*" : "inproc://handshake", in: context, keys: ring,
            largestFrame: 1 << 20, bounds: .init(budget: 64 << 20, seconds: 30), board: board)
        let endpoint = port.router.lastEndpoint
        sockets = try LibzmqLinkSockets(
            index: 0, port: port, to: endpoints, in: context, keys: ring, largestFrame: 1 << 20)
        links = PeerLinks(
            settings: .init(
                index: 0, cluster: "c", replica: 0, charter: charter, fingerprint: fingerprint, members: members,
                acquaintances: Acquaintances(
                    index: 0, ancestors: [32, 31],
                    records: [.init(incarnation: 10, life: own)]
                        + members.dropFirst().map { .init(incarnation: $0.incarnation, life: .none) },
                    founding: isFounded ? .founded : .gathering), skips: skips),
            sockets: sockets, random: { .random(in: 1...(.max)) }, progress: progress, board: board,
            logger: Logger(label: "links", factory: { _ in log }), rings: rings, engine: parker,
            expelled: { _ in Issue.record("who reaches the port cannot stop a replica") })
        other = try Socket(.dealer, in: context)
        let server = keys?.replicas[0].publicKey
        if let keys, let server { try other.setCurveClient(keys.replicas[holder], server: server) }
        try other.connect(endpoint)
        let peer = try Socket(.dealer, in: context)
        if let keys, let server { try peer.setCurveClient(keys.replicas[2], server: server) }
        try peer.connect(endpoint)
        self.peer = consume peer
        sockets.register(in: watch)
    }

    deinit {
        links.close()
        watch.deallocate()
        parker.deallocate()
        rings.deallocate()
        progress.deallocate()
    }

    /// Time of the links: a millisecond a turn, however long that takes.
    private(set) var now: UInt64 = 1_000_000

    func turn() {
        watch.look(timeoutMilliseconds: 1)
        now += 1_000
        _ = links.poll(budget: 64, now: now)
        while let arrival = rings.arrivals.pop() {
            if arrival.kind == .founded { foundings += 1 }
            if arrival.kind == .whole { progress.founding = .whole }
        }
        takeCalls()
    }

    /// HELLO with the proof that the socket gets which answers the call at the sender's port.
    func proven(_ hello: Handshake.Hello, byOther: Bool = false) throws -> [UInt8] {
        var hello = hello
        tickets += 1
        hello.ticket = tickets
        send(Handshake.hello(hello).encode(sender: UInt8(hello.replica)), byOther: byOther) {
            challenges[tickets] != nil
        }
        hello.proof = try #require(challenges[tickets])
        return Handshake.hello(hello).encode(sender: UInt8(hello.replica))
    }

    /// Takes the calls that have come to the ports of the others.
    private func takeCalls() {
        for port in ports {
            while port.socket.receive(frame) {
                guard frame.hasMore, port.socket.receive(frame) else { continue }
                let bytes = UnsafeRawBufferPointer(frame.bytes)
                guard let header = try? PeerHeader(decoding: bytes), header.sender == 0,
                    case .call(let call)? = try? Handshake(
                        header: header, payload: UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...]))
                else {
                    Issue.record("a call is expected there")
                    continue
                }
                challenges[call.ticket] = call.challenge
                calls += 1
            }
        }
    }

    /// Calls that came to the ports of the others.
    private(set) var calls = 0

    /// How often the engine was told that the cluster is founded.
    private(set) var foundings = 0

    /// Sends a frame, and waits until a condition holds.
    func send(_ bytes: [UInt8], byOther: Bool = false, until condition: () -> Bool) {
        let outcome = bytes.withUnsafeBytes {
            byOther ? other.send(copying: $0, more: false) : peer?.send(copying: $0, more: false)
        }
        #expect(outcome == .sent)
        let deadline = csupport_monotonic_us() + 10_000_000
        while !condition(), csupport_monotonic_us() < deadline { turn() }
    }

    /// What is answered to a frame; nil when nothing is for ten seconds.
    func answer(to bytes: [UInt8], byOther: Bool = false) throws -> (header: [UInt8], handshake: Handshake)? {
        var isThere = false
        send(bytes, byOther: byOther) {
            isThere = isThere || (byOther ? other.receive(frame) : peer?.receive(frame) == true)
            return isThere
        }
        guard isThere else { return nil }
        var bytes = Array(frame.bytes)
        let head = Array(bytes.prefix(8))
        // In the peer's version, whichever that is: read as one of this.
        guard head[4] == peerProtocolVersion else {
            bytes.removeFirst(PeerHeader.size + 3)
            return (head, .refused(.init(.version, String(decoding: bytes, as: UTF8.self))))
        }
        return try bytes.withUnsafeBytes { raw in
            (
                head,
                try Handshake(
                    header: PeerHeader(decoding: raw),
                    payload: UnsafeRawBufferPointer(rebasing: raw[PeerHeader.size...]))
            )
        }
    }

    /// Whether the second socket has got something.
    var otherHasAnswer: Bool { other.receive(frame) }

    /// The process of the first socket ends.
    func disconnect() { peer = nil }

    /// The key of a replica is withdrawn, and another named in its place.
    func withdrawKey(of id: Int) throws {
        guard let keys, let ring else { return }
        keys.publicKeys[id] = [try KeyPair.generate().publicKey]
        try keys.write()
        try ring.load(try keys.topology())
    }

    var isConnected: Bool { board.peers[2].connected.load() == 1 }
}
