import Foundation
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// What a router does with well-behaved clients, and with bytes that are none of a client's.
@Suite struct RouterTests {
    static let sizes = [0, 1, 254, 255, 256, 257, 65535, 65536, (128 << 10) - 9, 128 << 10, (128 << 10) + 1, 2 << 20]

    /// A PING command: time to live, context.
    static func ping(_ context: [UInt8]) -> [UInt8] { command("PING", [0, 10] + context) }

    static func command(_ name: String, _ rest: [UInt8], flags: UInt8 = 4) -> [UInt8] {
        let body = [UInt8(name.utf8.count)] + Array(name.utf8) + rest
        return [flags, UInt8(body.count)] + body
    }

    /// A frame with a head of nine bytes, whatever its length.
    static func longFrame(_ content: [UInt8], flags: UInt8 = 2) -> [UInt8] {
        [flags] + (0..<8).reversed().map { UInt8(truncatingIfNeeded: content.count >> (8 * $0)) } + content
    }

    // MARK: libzmq

    @Test(arguments: RouterRig.endpoints, [Socket.Kind.dealer, .req])
    func clientsOfLibzmqGetTheirEchoes(endpoint: String, kind: Socket.Kind) throws {
        let rig = try RouterRig(endpoint)
        let context = try Context(ioThreads: 1)
        var places = [rig.endpoint]
        if endpoint.contains("*"), RouterRig.hasIPv6 { places.append("tcp://[::1]:\(rig.router.port)") }
        let clients = try places.map { try ZMQClient(kind, $0, in: context) }
        for round in 0..<3 {
            for (index, client) in clients.enumerated() {
                let content = [pattern(32, seed: round), pattern(300, seed: index)]
                let message = kind == .req ? content : [[]] + content
                try #require(rig.run { client.send(message) })
                try #require(rig.waits(for: client) == message)
            }
        }
        let arrivals = rig.takeArrivals()
        #expect(arrivals.count == 3 * clients.count)
        // A REQ puts the delimiter before its message.
        #expect(arrivals.allSatisfy { $0.frames.count == 3 && $0.frames[0] == [] && $0.frames[1].count == 32 })
        #expect(Set(arrivals.map(\.peer)).count == clients.count)
        #expect(rig.router.violations == 0 && rig.router.audit() == [])
    }

    @Test(arguments: ["tcp://127.0.0.1:0", "ipc://@"])
    func messagesOfAllSizes(endpoint: String) throws {
        let rig = try RouterRig(endpoint)
        let context = try Context(ioThreads: 1)
        let client = try ZMQClient(.dealer, rig.endpoint, in: context)
        let messages =
            Self.sizes.map { [[], pattern($0, seed: $0)] } + [Self.sizes.map { pattern($0) }]
            + [Self.sizes.reversed().map { pattern($0, seed: 1) }]
        for message in messages {
            #expect(rig.run { client.send(message) })
            let echo = rig.waits(for: client)
            #expect(echo == message, "\(message.map(\.count)) came back as \((echo ?? []).map(\.count))")
            #expect(rig.takeArrivals().map(\.frames) == [message])
        }
        #expect(rig.router.audit() == [])
    }

    @Test func manyAtOnceStayInOrder() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0")
        rig.keepsArrivals = false
        let context = try Context(ioThreads: 1)
        let clients = try (0..<3).map { _ in try ZMQClient(.dealer, rig.endpoint, in: context) }
        func message(_ number: Int, of client: Int) -> [[UInt8]] {
            [[], pattern(8, seed: number), pattern(number % 700, seed: client)]
        }
        let total = 4000
        for number in 0..<total {
            for (index, client) in clients.enumerated() { #expect(client.send(message(number, of: index))) }
        }
        var next = clients.map { _ in 0 }
        let isDone = rig.run {
            for (index, client) in clients.enumerated() {
                while let echo = client.receive() {
                    if echo != message(next[index], of: index) {
                        Issue.record("message \(next[index]) of \(index)")
                        return true
                    }
                    next[index] += 1
                }
            }
            return next.allSatisfy { $0 == total }
        }
        #expect(isDone && rig.refused == 0 && rig.router.audit() == [])
    }

    /// A client that connects again, as libzmq does by itself, is another peer.
    @Test func aRouterThatComesBackIsFoundAgain() throws {
        let context = try Context(ioThreads: 1)
        let path = "ipc://\(freshPath())"
        var rig: RouterRig? = try RouterRig(path)
        let client = try ZMQClient(.dealer, path, in: context)
        for round in 0..<3 {
            #expect(client.send([[], pattern(9, seed: round)]))
            #expect(rig!.waits(for: client) == [[], pattern(9, seed: round)])
            rig = nil
            #expect(!FileManager.default.fileExists(atPath: String(path.dropFirst(6))))
            rig = try RouterRig(path)
            // What is sent before libzmq has noticed would be lost.
            #expect(rig!.run { rig!.router.standing.contains { $0.connection.state == .up } })
        }
    }

    // MARK: Pieces

    /// A handshake and two messages, with commands before, between and in them; and the first message.
    static let stream: (bytes: [UInt8], first: [[UInt8]], second: [[UInt8]]) = {
        let first = [[], pattern(3), pattern(300), pattern(40)]
        let second = [[], pattern(256, seed: 9)]
        let identity = [8] + Array("Identity".utf8) + [0, 0, 0, 2, 65, 66]
        let ready = command("READY", [11] + Array("Socket-Type".utf8) + [0, 0, 0, 3] + Array("REQ".utf8) + identity)
        return (
            Codec.greeting + ready + ping([1]) + makeFrame(first[0], more: true) + ping([2, 3])
                + makeFrame(first[1], more: true) + command("SUBSCRIBE", pattern(50)) + ping([])
                + makeFrame(first[2], more: true) + longFrame(first[3]) + makeFrame(second[0], more: true)
                + makeFrame(second[1]) + ping(pattern(16)), first, second
        )
    }()

    /// All that the client of `stream` is sent, with the echoes of both messages.
    private func isAnswered(_ client: RawClient) -> Bool {
        let pongs = [[1], [2, 3], [], pattern(16)]
        var frames: [(isCommand: Bool, hasMore: Bool, content: [UInt8])] = []
        while let frame = client.nextFrame() { frames.append(frame) }
        return frames.filter(\.isCommand).map(\.content) == pongs.map { [4] + Array("PONG".utf8) + $0 }
            && frames.filter { !$0.isCommand }.map(\.content) == Self.stream.first + Self.stream.second
    }

    private static let answerSize =
        Codec.greetingSize + Codec.ready("ROUTER").count + 4 * 7 + 1 + 2 + 16
        + (stream.first + stream.second).reduce(0) { $0 + Codec.size(ofFrame: $1.count) }

    @Test(arguments: ["tcp://127.0.0.1:0", "ipc://@"])
    func byteByByte(endpoint: String) throws {
        let rig = try RouterRig(endpoint)
        let client = try rig.connect()
        let end = Self.stream.bytes.count - Self.ping(pattern(16)).count
        for (index, byte) in Self.stream.bytes.enumerated() {
            if index == end - 1 { #expect(rig.arrivals.map(\.frames) == [Self.stream.first]) }
            client.send([byte])
            try #require(rig.wakes())
        }
        #expect(rig.run { client.unread >= Self.answerSize })
        #expect(client.hasHandshake && isAnswered(client))
        #expect(rig.takeArrivals().map(\.frames) == [Self.stream.first, Self.stream.second])
        #expect(rig.router.violations == 0 && rig.router.audit() == [])
    }

    @Test func cutInTwoAnywhere() throws {
        let rig = try RouterRig()
        for cut in 0...Self.stream.bytes.count {
            let client = try rig.connect()
            client.send(Array(Self.stream.bytes[..<cut]))
            rig.settle()
            client.send(Array(Self.stream.bytes[cut...]))
            #expect(rig.run { client.unread >= Self.answerSize || client.isClosed })
            #expect(client.hasHandshake && isAnswered(client), "cut at \(cut)")
            rig.close(client)
            #expect(rig.run { rig.router.connectionCount == 0 })
        }
        let arrivals = rig.takeArrivals().map(\.frames)
        #expect(arrivals.count == 2 * (Self.stream.bytes.count + 1))
        #expect(arrivals.allSatisfy { $0 == Self.stream.first || $0 == Self.stream.second })
        #expect(rig.router.violations == 0 && rig.router.audit() == [])
    }

    /// Several messages in what is received at once, the last of them in part: then the connection's own queue takes
    /// over.
    @Test func piecesOfManyMessages() throws {
        let rig = try RouterRig()
        let client = try rig.open()
        let messages = (0..<60).map { number in [[], pattern(number * 97 % 500, seed: number), pattern(20_000)] }
        let bytes = messages.flatMap { message in
            message.enumerated().flatMap { makeFrame($1, more: $0 + 1 < message.count) }
        }
        var sent = 0
        var draws = Draws(seed: 0x5EED)
        var echoes: [[[UInt8]]] = []
        while sent < bytes.count {
            let piece = min(bytes.count - sent, 1 + draws.below(60_000))
            client.send(Array(bytes[sent..<(sent + piece)]))
            sent += piece
            #expect(rig.run { client.unsent == 0 })
        }
        let isDone = rig.run {
            while let echo = client.nextMessage() { echoes.append(echo) }
            return echoes.count == messages.count
        }
        #expect(isDone && echoes == messages)
        #expect(rig.takeArrivals().map(\.frames) == messages)
    }

    // MARK: Commands

    @Test(arguments: [[], [7], pattern(16)])
    func aPingIsAnswered(context: [UInt8]) throws {
        let rig = try RouterRig()
        let client = try rig.open()
        let pong = [4] + Array("PONG".utf8) + context
        // With a short head, a long one, and between the frames of a message.
        client.send(Self.ping(context) + Self.longFrame(Array(Self.ping(context)[2...]), flags: 6))
        client.send(makeFrame([1], more: true) + Self.ping(context) + makeFrame([2]))
        #expect(rig.run { client.unread == 3 * (2 + pong.count) + 6 })
        for _ in 0..<3 {
            let frame = try #require(client.nextFrame())
            #expect(frame.isCommand && !frame.hasMore && frame.content == pong)
        }
        #expect(client.nextMessage() == [[1], [2]])
    }

    @Test func otherCommandsAreTakenOut() throws {
        let rig = try RouterRig()
        let client = try rig.open()
        let commands = [
            Self.command("PONG", [1]), Self.command("SUBSCRIBE", []), Self.command("ERROR", [3, 65, 66, 67]),
            Self.command("", []), [4, 0], Self.longFrame(pattern(512), flags: 6), Codec.ready("DEALER"),
        ]
        for command in commands {
            client.send(command + makeFrame([1], more: true) + command + command + makeFrame([2]) + command)
            #expect(rig.run { client.nextMessage() == [[1], [2]] })
            #expect(rig.echoes(client, [[3]]))
        }
        #expect(rig.takeArrivals().map(\.frames) == commands.flatMap { _ in [[[1], [2]], [[3]]] })
        #expect(rig.router.violations == 0)
    }

    // MARK: Refusals

    @Test(arguments: ["REQ", "DEALER", "ROUTER"])
    func typesThatTalkToARouter(type: String) throws {
        let rig = try RouterRig()
        let client = try rig.open(type)
        #expect(rig.echoes(client, [[], [1, 2, 3]]))
    }

    /// As libzmq does.
    @Test func aReadyThatTellsNoType() throws {
        let rig = try RouterRig()
        let client = try rig.connect()
        client.send(Self.greeted + Self.command("READY", []))
        #expect(rig.run { client.hasHandshake })
        #expect(rig.echoes(client, [[], [1]]))
    }

    static let greeted = Codec.greeting
    static let hostile: [(name: String, bytes: [UInt8])] = [
        ("HTTP", Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8)),
        ("TLS", [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]),
        ("zeros", [UInt8](repeating: 0, count: 64)),
        ("a wrong signature", [0xFF] + [UInt8](repeating: 0, count: 9)),
        ("ZMTP 1", [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 0]),
        ("PUB of ZMTP 2", [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 1, 1]),
        ("a command of ZMTP 2", OldClientTests.greeting(3) + [0, 0] + ping([])),
        ("no identity in ZMTP 2", OldClientTests.greeting(3) + [1, 0]),
        ("PLAIN", Array(Codec.greeting[..<12]) + Array("PLAIN".utf8) + [UInt8](repeating: 0, count: 47)),
        ("NULLS", Array(Codec.greeting[..<12]) + Array("NULLS".utf8) + [UInt8](repeating: 0, count: 47)),
        ("PUB", greeted + Codec.ready("PUB")), ("PULL", greeted + Codec.ready("PULL")),
        ("REP", greeted + Codec.ready("REP")),
        ("READY of 513 bytes", greeted + [6, 0, 0, 0, 0, 0, 0, 2, 1]),
        ("READY of 4 MiB", greeted + [6, 0, 0, 0, 0, 0, 0x40, 0, 0]),
        ("a long frame before READY", greeted + [2, 0, 0, 0, 0, 0, 0, 2, 1]),
        ("a command of 513 bytes", greeted + Codec.ready("REQ") + [6, 0, 0, 0, 0, 0, 0, 2, 1]),
        (
            "a long command within a message",
            greeted + Codec.ready("REQ") + makeFrame([1], more: true) + [6, 0, 0, 0, 0, 0, 0x40, 0, 0]
        ),
        ("type in small letters", greeted + Codec.ready("dealer")),
        ("half a property", greeted + command("READY", [11] + Array("Socket-Type".utf8) + [0, 0, 0, 9, 65])),
        ("PING before READY", greeted + ping([])),
        ("ERROR before READY", greeted + command("ERROR", [0])),
        ("a message before READY", greeted + makeFrame([])),
        ("a frame before READY", greeted + makeFrame([1], more: true)),
        ("READY with more to come", greeted + [5] + Array(Codec.ready("REQ")[1...])),
        ("a reserved flag", greeted + Codec.ready("REQ") + [8, 0]),
        ("a reserved flag behind a frame", greeted + Codec.ready("REQ") + makeFrame([1], more: true) + [0x80, 0]),
        ("a command with more to come", greeted + Codec.ready("REQ") + command("PING", [0, 0], flags: 5)),
        ("a length of 2^64 - 1", greeted + Codec.ready("REQ") + [2] + [UInt8](repeating: 0xFF, count: 8)),
        ("a length of 2^63", greeted + Codec.ready("REQ") + [2, 0x80] + [UInt8](repeating: 0, count: 7)),
        ("a command of 2^40", greeted + Codec.ready("REQ") + [6, 0, 0, 1, 0, 0, 0, 0, 0]),
    ]

    @Test(arguments: RouterTests.hostile.indices)
    func whatIsNoClientIsDropped(index: Int) throws {
        let (name, bytes) = Self.hostile[index]
        for cut in [bytes.count, bytes.count - 1, 1] {
            let rig = try RouterRig()
            let other = try rig.open()
            let client = try rig.connect()
            client.send(Array(bytes[..<cut]))
            rig.settle()
            client.send(Array(bytes[cut...]))
            #expect(rig.run { client.isClosed }, "\(name), cut at \(cut)")
            #expect(rig.router.violations == 1 && rig.router.connectionCount == 1 && rig.arrivals.isEmpty)
            #expect(rig.echoes(other, [[], [5]]) && rig.router.audit() == [])
        }
    }

    /// What came before is still answered.
    @Test func messagesBeforeABreachCount() throws {
        let rig = try RouterRig()
        let client = try rig.open()
        client.send(makeFrame([1]) + makeFrame([2]) + [0xFF, 0] + makeFrame([3]))
        #expect(rig.run { client.isClosed })
        #expect(rig.takeArrivals().map(\.frames) == [[[1]], [[2]]])
        #expect(rig.router.violations == 1)
    }
}
