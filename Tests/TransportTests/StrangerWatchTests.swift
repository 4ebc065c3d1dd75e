import Foundation
import Glibc
import MPaxosCSupport
import MPaxosKeys
import MPaxosMessaging
import Testing

@testable import MPaxosMetrics
@testable import MPaxosTransport

/// Who is cut off at a client port with keys: those who have none, and beyond the bound those who are silent.
@Suite struct StrangerWatchTests {
    /// A port whose handler knows one key.
    private final class Port {
        let friend: KeyPair
        let pair: KeyPair
        let endpoint: String
        private let board = StatusBoard(members: [0])
        private let watch: StrangerWatch
        private let socket: Holder
        private let handler: ZAPHandler
        private let clientContext = try! Context(ioThreads: 1)

        private final class Holder {
            let socket: Socket
            init(in context: Context) throws { socket = try Socket(.router, in: context) }
        }

        init(_ bounds: StrangerWatch.Bounds) throws {
            let context = try Context(ioThreads: 1)
            (pair, friend) = (try .generate(), try .generate())
            let key = friend.publicKey
            handler = try ZAPHandler(in: context) { $0.key == key ? 0 : nil }
            socket = try Holder(in: context)
            try socket.socket.setCurveServer(pair, domain: "clients")
            watch = try StrangerWatch(
                over: socket.socket, bounds: bounds, introduction: .curveHandshake, endsKnown: true,
                cutOff: board.clientConnectionsCutOff)
            try socket.socket.bind("tcp://127.0.0.1:*")
            endpoint = socket.socket.lastEndpoint
            watch.start()
        }

        deinit {
            socket.socket.stopMonitoring()
            watch.join()
        }

        var cutOff: UInt64 { board.clientConnectionsCutOff.load() }

        /// A client with the key, whose handshake is done.
        func friendComes() throws -> Friend { try Friend(friend, to: pair.publicKey, at: endpoint, in: clientContext) }

        /// A TCP connection that says what is given.
        func strangerComes(saying bytes: [UInt8]) -> Int32 {
            let file = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = UInt16(endpoint.split(separator: ":").last!)!.bigEndian
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            _ = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(file, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            _ = send(file, bytes, bytes.count, Int32(MSG_NOSIGNAL))
            return file
        }
    }

    private final class Friend {
        let socket: Socket
        private let monitor: Monitor
        private(set) var isEnded = false

        init(_ pair: KeyPair, to server: PublicKey, at endpoint: String, in context: Context) throws {
            let socket = try Socket(.dealer, in: context)
            try socket.setCurveClient(pair, server: server)
            // One that is cut off does not come back while it is looked at.
            try socket.setReconnectInterval(milliseconds: 600_000)
            let monitor = try Monitor(of: socket)
            try socket.connect(endpoint)
            self.socket = socket
            self.monitor = monitor
            let isIn = until { event in if case .handshakeSucceeded = event { true } else { false } }
            #expect(isIn)
        }

        /// False: not within ten seconds.
        private func until(_ isWanted: (Monitor.Event) -> Bool) -> Bool {
            let deadline = csupport_monotonic_us() + 10_000_000
            while csupport_monotonic_us() < deadline {
                while let event = monitor.next() { if isWanted(event) { return true } }
                sched_yield()
            }
            return false
        }

        func look() {
            while let event = monitor.next() { if case .disconnected = event { isEnded = true } }
        }
    }

    private func eventually(_ condition: () -> Bool) -> Bool {
        let deadline = csupport_monotonic_us() + 20_000_000
        while !condition() {
            guard csupport_monotonic_us() < deadline else { return false }
            sched_yield()
        }
        return true
    }

    private static let greeting: [UInt8] =
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 0] + Array("CURVE".utf8) + [UInt8](repeating: 0, count: 47)

    @Test func strangersAreCutOffAndFriendsStay() throws {
        let port = try Port(.init(bytes: 4096, connections: 12, time: 1_000_000))
        let friends = try (0..<8).map { _ in try port.friendComes() }
        // One that sends too much of what libzmq would keep, one that is slow, and a crowd.
        let loud = port.strangerComes(
            saying: Self.greeting + [0x02, 0, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 0, count: 5000))
        #expect(eventually { port.cutOff == 1 })
        let slow = port.strangerComes(saying: Self.greeting)
        #expect(eventually { port.cutOff == 2 }, "a handshake takes its time, and no more")
        let crowd = (0..<20).map { _ in port.strangerComes(saying: Array(Self.greeting.prefix(20))) }
        #expect(eventually { port.cutOff == 22 })
        // More than the time of strangers has passed for all of them.
        for friend in friends {
            friend.look()
            #expect(!friend.isEnded)
        }
        for file in [loud, slow] + crowd { close(file) }
    }

    @Test func beyondTheBoundOfAllTheSilentGo() throws {
        var bounds = StrangerWatch.Bounds(bytes: 32 << 10, connections: 64, time: 30_000_000)
        bounds.known = 6
        let port = try Port(bounds)
        var friends: [Friend] = []
        for number in 0..<9 {
            friends.append(try port.friendComes())
            #expect(eventually { port.cutOff == UInt64(max(0, number - 5)) })
        }
        #expect(
            eventually {
                for friend in friends { friend.look() }
                return friends.count(where: \.isEnded) == 3
            })
        #expect(!friends[8].isEnded, "who has just come is not the one that was silent for longest")
    }
}
