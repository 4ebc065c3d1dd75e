import Foundation
import MPaxosFrames
import MPaxosKeys
import MPaxosMessaging
import Synchronization
import Testing

/// What libzmq does with keys, as far as others rest on it.
@Suite struct CurveTests {
    /// Who was asked about.
    private final class Knocks: Sendable {
        private let texts = Mutex<[String]>([])
        func note(_ text: String) { texts.withLock { $0.append(text) } }
        var all: [String] { texts.withLock { $0 } }
    }

    /// A server with a handler that knows one key, by the number 7.
    private final class Server {
        let context: Context
        let pair: KeyPair
        let friend: KeyPair
        let router: Box
        let knocked = Knocks()
        private var handler: ZAPHandler?

        final class Box {
            let socket: Socket
            init(in context: Context) throws { socket = try Socket(.router, in: context) }
        }

        init(hasHandler: Bool = true) throws {
            context = try Context(ioThreads: 1)
            (pair, friend) = (try .generate(), try .generate())
            router = try Box(in: context)
            if hasHandler {
                let key = friend.publicKey
                handler = try ZAPHandler(in: context) { [knocked] caller in
                    knocked.note("\(caller.domain) \(caller.address)")
                    return caller.key == key ? 7 : nil
                }
            }
            try router.socket.setCurveServer(pair, domain: "door")
            try router.socket.bind("tcp://127.0.0.1:*")
        }
    }

    /// A client, and what is heard of its connection.
    private struct Client: ~Copyable {
        let socket: Socket
        let monitor: Monitor

        init(_ pair: KeyPair?, to server: PublicKey?, at endpoint: String) throws {
            let socket = try Socket(.dealer, in: Context(ioThreads: 1))
            if let pair, let server { try socket.setCurveClient(pair, server: server) }
            try socket.setImmediate(true)
            let monitor = try Monitor(of: socket)
            try socket.connect(endpoint)
            self.socket = socket
            self.monitor = monitor
        }

        func event(_ isWanted: (Monitor.Event) -> Bool) -> Bool {
            let deadline = Date(timeIntervalSinceNow: 10)
            while Date() < deadline {
                while let event = monitor.next() { if isWanted(event) { return true } }
                sched_yield()
            }
            return false
        }
    }

    @Test func aMessageBringsTheNumberOfItsKey() throws {
        let server = try Server()
        let client = try Client(server.friend, to: server.pair.publicKey, at: server.router.socket.lastEndpoint)
        #expect(sendEventually([[], [1]], to: client.socket) == true)
        let frame = Frame()
        #expect(receive(frame, from: server.router.socket) == true)
        // The routing id is the socket's own.
        while frame.hasMore, receive(frame, from: server.router.socket) { #expect(frame.keyNumber == 7) }
        #expect(server.knocked.all == ["door 127.0.0.1"])
    }

    @Test func whoHasAnotherKeyIsTold() throws {
        let server = try Server()
        let client = try Client(.generate(), to: server.pair.publicKey, at: server.router.socket.lastEndpoint)
        #expect(client.event { if case .keyRefused = $0 { true } else { false } })
        #expect(send([[1]], to: client.socket) == .full)
        #expect(server.router.socket.receive(Frame()) == false)
    }

    @Test func whoExpectsAnotherServerIsToldNothing() throws {
        let server = try Server()
        let client = try Client(
            server.friend, to: KeyPair.generate().publicKey, at: server.router.socket.lastEndpoint)
        #expect(client.event { if case .handshakeFailed = $0 { true } else { false } })
        #expect(server.knocked.all.isEmpty, "nobody is asked about who does not know the server")
    }

    @Test func whoHasNoKeyAtAllIsToldByTheMechanism() throws {
        let server = try Server()
        let client = try Client(nil, to: nil, at: server.router.socket.lastEndpoint)
        #expect(
            client.event {
                switch $0 {
                case .mechanismsDiffer, .handshakeFailed: true
                default: false
                }
            })
        let context = try Context(ioThreads: 1)
        let open = try Socket(.router, in: context)
        try open.bind("tcp://127.0.0.1:*")
        let other = try Client(server.friend, to: server.pair.publicKey, at: open.lastEndpoint)
        #expect(other.event { if case .mechanismsDiffer = $0 { true } else { false } })
    }

    /// As it would be if a handler had gone before its server.
    @Test func withoutAHandlerNobodyComesIn() throws {
        let server = try Server(hasHandler: false)
        let client = try Client(.generate(), to: server.pair.publicKey, at: server.router.socket.lastEndpoint)
        #expect(
            client.event {
                switch $0 {
                case .keyRefused, .handshakeFailed, .disconnected: true
                default: false
                }
            })
        #expect(server.router.socket.receive(Frame()) == false)
    }

    /// Another process would have other names: who knows the next one can claim it, and end the process.
    @Test func connectionsHaveNamesThatNobodyKnows() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.bind("tcp://127.0.0.1:*")
        let client = try Socket(.dealer, in: context)
        try client.connect(router.lastEndpoint)
        #expect(sendEventually([[1]], to: client) == true)
        let message = receiveMessage(from: router)
        let name = message?.first
        let unseeded: [UInt8] = [0, 0xF4, 0xB0, 0xDC]
        #expect(name.map { Array($0.prefix(4)) } != unseeded)
    }

    /// Who calls himself as another does, or as the socket calls nobody yet, takes nothing from anybody.
    @Test func noClientCanClaimTheNameOfAnother() throws {
        let context = try Context(ioThreads: 1)
        let (pair, friend) = (try KeyPair.generate(), try KeyPair.generate())
        let handler = try ZAPHandler(in: context, naming: "door") { _ in 0 }
        let router = try Socket(.router, in: context)
        try router.setCurveServer(pair, domain: "door")
        try router.bind("tcp://127.0.0.1:*")
        final class Box {
            let socket: Socket
            init(_ socket: consuming Socket) { self.socket = socket }
        }
        var clients: [Box] = []
        var names: Set<[UInt8]> = []
        for number in 0..<60 {
            let socket = try Socket(.dealer, in: context)
            if number % 3 > 0 { try socket.setRoutingID(Array("billing-1".utf8)) }
            try socket.setCurveClient(friend, server: pair.publicKey)
            try socket.connect(router.lastEndpoint)
            #expect(sendEventually([[UInt8(number)]], to: socket) == true)
            clients.append(Box(socket))
            guard let message = receiveMessage(from: router), let name = message.first else {
                Issue.record("client \(number) is not heard")
                continue
            }
            #expect(message.last == [UInt8(number)])
            #expect(name.withUnsafeBytes { ConnectionName.isOne($0) })
            names.insert(name)
            #expect(send([name, [7]], to: router) == .sent)
            let answer = receiveMessage(from: clients[number].socket)
            #expect(answer == [[7]])
        }
        #expect(names.count == clients.count)
        withExtendedLifetime(handler) {}
    }

    /// The largest frame that the limit is for still gets through with what encryption adds.
    @Test func theLargestFrameGetsThrough() throws {
        let size = 1 << 20
        let context = try Context(ioThreads: 1)
        let (pair, friend) = (try KeyPair.generate(), try KeyPair.generate())
        let handler = try ZAPHandler(in: context) { _ in 0 }
        let router = try Socket(.router, in: context)
        try router.setMaxMessageSize(size + Socket.curveOverhead)
        try router.setCurveServer(pair, domain: "door")
        try router.bind("tcp://127.0.0.1:*")
        let client = try Client(friend, to: pair.publicKey, at: router.lastEndpoint)
        #expect(sendEventually([pattern(size)], to: client.socket) == true)
        #expect(receiveMessage(from: router)?.last?.count == size)
        withExtendedLifetime(handler) {}
    }
}
