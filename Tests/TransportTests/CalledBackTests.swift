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

/// The side that connects: it proves to the replica that it connects to, and to nobody else, who it is.
@Suite struct CalledBackTests {
    /// The links of replica 2 of three, a socket where replica 0 listens, and one that reaches the port of replica 2.
    private final class Rig {
        let board = StatusBoard(members: [0, 1, 2])
        private let sockets: LibzmqLinkSockets
        private let links: PeerLinks
        private let rings = Rings(outstanding: 16)
        private let progress = Progress.allocate()
        private let parker = Parker.allocate()!
        private let watch = Watch.allocate(capacity: 8)
        private let callee: Socket
        private let caller: Socket
        private let frame = Frame()
        private var now: UInt64 = 1_000_000
        private let handler: ZAPHandler?

        /// - Parameter holder: whose key the socket has that reaches the port; nil: nobody has keys.
        init(holder: Int? = nil) throws {
            let context = try Context(ioThreads: 1)
            let board = self.board
            let keys = holder == nil ? nil : try KeyedTopology()
            let ring = try keys?.ring(of: 2, board: board, log: ErrorLog())
            handler = try ring.map { ring in try ZAPHandler(in: context) { ring.admit($0) } }
            callee = try Socket(.router, in: context)
            if let keys { try callee.setCurveServer(keys.replicas[0], domain: KeyRing.peers) }
            try callee.bind("tcp://127.0.0.1:*")
            let endpoint = callee.lastEndpoint
            let members = [0, 1, 2].map {
                Handshake.Member(
                    id: $0, incarnation: UInt64($0) + 10, life: .none,
                    peerEndpoint: $0 == 0 ? endpoint : "inproc://none", clientEndpoint: "")
            }
            let port = try LibzmqLinkSockets.Port(
                binding: keys == nil ? "inproc://port" : "tcp://127.0.0.1:*", in: context, keys: ring,
                largestFrame: 1 << 20, bounds: .init(budget: 64 << 20, seconds: 30), board: board)
            sockets = try LibzmqLinkSockets(
                index: 2, port: port, to: members.map(\.peerEndpoint), in: context, keys: ring, largestFrame: 1 << 20)
            links = PeerLinks(
                settings: .init(
                    index: 2, cluster: "c", replica: 2, charter: charter, fingerprint: 1, members: members,
                    acquaintances: Acquaintances(
                        index: 2, ancestors: [],
                        records: members.map {
                            .init(incarnation: $0.incarnation, life: $0.id == 2 ? Life(bootCount: 1, nonce: 1) : .none)
                        },
                        founding: .founded), skips: []),
                sockets: sockets, random: { .random(in: 1...(.max)) }, progress: progress, board: board,
                logger: Logger(label: "links", factory: { _ in ErrorLog() }), rings: rings, engine: parker,
                expelled: { Issue.record("expelled: \($0)") })
            caller = try Socket(.dealer, in: context)
            if let keys, let holder {
                try caller.setCurveClient(keys.replicas[holder], server: keys.replicas[2].publicKey)
            }
            try caller.connect(port.router.lastEndpoint)
            sockets.register(in: watch)
        }

        deinit {
            links.close()
            watch.deallocate()
            parker.deallocate()
            rings.deallocate()
            progress.deallocate()
        }

        func turn(until condition: () throws -> Bool) rethrows {
            let deadline = csupport_monotonic_us() + 10_000_000
            while try !condition(), csupport_monotonic_us() < deadline {
                watch.look(timeoutMilliseconds: 1)
                now += 1_000
                _ = links.poll(budget: 64, now: now)
            }
        }

        /// The next HELLO that comes to replica 0.
        func nextHello() throws -> Handshake.Hello? {
            var hello: Handshake.Hello?
            try turn {
                guard callee.receive(frame), frame.hasMore, callee.receive(frame) else { return false }
                let bytes = UnsafeRawBufferPointer(frame.bytes)
                let payload = UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...])
                if case .hello(let found) = try Handshake(header: PeerHeader(decoding: bytes), payload: payload) {
                    hello = found
                }
                return hello != nil
            }
            return hello
        }

        func call(_ call: Handshake.Call, as sender: UInt8) {
            Handshake.call(call).encode(sender: sender).withUnsafeBytes { _ = caller.send(copying: $0, more: false) }
        }
    }

    @Test(arguments: [nil, 0]) func theChallengeOfWhoKnowsTheTicketIsRepeated(holder: Int?) throws {
        let rig = try Rig(holder: holder)
        let first = try #require(try rig.nextHello())
        #expect(first.ticket != 0 && first.proof == 0)
        rig.call(.init(ticket: first.ticket, challenge: 77), as: 0)
        var proof: UInt64 = 0
        for _ in 0..<3 where proof == 0 { proof = try #require(try rig.nextHello()).proof }
        #expect(proof == 77)
    }

    /// Another ticket, the name of another replica that this one connects to, its own, and one that is no member.
    @Test func strangersAreNotListenedTo() throws {
        let rig = try Rig()
        let hello = try #require(try rig.nextHello())
        rig.call(.init(ticket: hello.ticket &+ 1, challenge: 77), as: 0)
        rig.call(.init(ticket: 0, challenge: 77), as: 0)
        for sender: UInt8 in [1, 2, 8, 255] { rig.call(.init(ticket: hello.ticket, challenge: 77), as: sender) }
        rig.turn { rig.board.strangersRefused.load() == 6 }
        #expect(rig.board.strangersRefused.load() == 6)
        #expect(try rig.nextHello()?.proof == 0)
    }

    /// A replica with a key of its own that has heard the ticket of another's connection.
    @Test func aCallCountsWithTheKeyOfItsSenderAlone() throws {
        let rig = try Rig(holder: 1)
        let hello = try #require(try rig.nextHello())
        rig.call(.init(ticket: hello.ticket, challenge: 77), as: 0)
        rig.turn { rig.board.strangersRefused.load() == 1 }
        #expect(rig.board.strangersRefused.load() == 1)
        #expect(try rig.nextHello()?.proof == 0)
    }

    @Test func eachReplicaHasATicketOfItsOwn() throws {
        let tickets = try (0..<4).map { _ in try Rig().nextHello()?.ticket }
        #expect(Set(tickets).count == 4 && !tickets.contains(nil))
    }
}
