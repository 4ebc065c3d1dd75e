import Foundation
import MPaxosFrames
import MPaxosMessaging
import Testing

@Suite struct SocketTests {
    @Test func dealerAndRouterExchangeMessages() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.setRouterMandatory(true)
        try router.bind("tcp://127.0.0.1:*")
        #expect(router.lastEndpoint.hasPrefix("tcp://127.0.0.1:"))
        let dealer = try Socket(.dealer, in: context)
        try dealer.setRoutingID([1, 2])
        try dealer.connect(router.lastEndpoint)
        let question = [[], pattern(32), pattern(1000)]
        #expect(send(question, to: dealer) == .sent)
        #expect(receiveMessage(from: router) == [[1, 2]] + question)
        #expect(send([[1, 2], [], [9]], to: router) == .sent)
        #expect(receiveMessage(from: dealer) == [[], [9]])
        #expect(dealer.receive(Frame()) == false)
    }

    /// The links' way: content goes through a ring as a raw value, and leaves from the frame that adopts it.
    @Test(arguments: [3, 1000])
    func sendsWhatAFrameAdopted(size: Int) throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.bind("inproc://adopted-\(size)")
        let dealer = try Socket(.dealer, in: context)
        try dealer.connect("inproc://adopted-\(size)")
        #expect(send([[7]], to: dealer) == .sent)
        let frame = Frame()
        #expect(receive(frame, from: router) && frame.hasMore)
        let name = frame.take()
        #expect(router.receive(frame) && !frame.hasMore)
        let outgoing = Frame()
        outgoing.adopt(name)
        #expect(router.send(outgoing, more: true) == .sent)
        #expect(outgoing.count == 0)
        outgoing.adopt(makeFrame(pattern(size)).take())
        #expect(router.send(outgoing, more: false) == .sent)
        #expect(outgoing.count == 0)
        #expect(receiveMessage(from: dealer) == [pattern(size)])
    }

    @Test func mandatoryRouterReportsUnknownPeers() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.setRouterMandatory(true)
        try router.bind("tcp://127.0.0.1:*")
        #expect(send([[99], [1]], to: router) == .unreachable)
        let frame = Frame(size: 40)
        #expect(router.send(frame, more: true) == .unreachable)
        #expect(frame.count == 40)  // still ours
        // What was refused leaves nothing behind: the next message is whole.
        let dealer = try Socket(.dealer, in: context)
        try dealer.setRoutingID([5])
        try dealer.connect(router.lastEndpoint)
        #expect(send([[1]], to: dealer) == .sent)
        #expect(receiveMessage(from: router) == [[5], [1]])
        #expect(send([[5], [2], [3]], to: router) == .sent)
        #expect(receiveMessage(from: dealer) == [[2], [3]])
    }

    /// Once its first frame was accepted, a message is accepted to its end, however full the queue: what arrives is
    /// whole messages, exactly those reported as sent.
    @Test func fullQueuesRefuseWholeMessages() throws {
        let context = try Context(ioThreads: 1)
        let dealer = try Socket(.dealer, in: context)
        try dealer.setSendHighWaterMark(3)
        try dealer.setTCPBuffers(send: 4096, receive: 4096)
        let router = try Socket(.router, in: context)
        try router.setReceiveHighWaterMark(3)
        try router.setTCPBuffers(send: 4096, receive: 4096)
        try router.bind("tcp://127.0.0.1:*")
        try dealer.connect(router.lastEndpoint)
        var accepted = 0
        var refusedFirst = 0
        var refusedLater = 0
        // Until the queues have been full for a while: the I/O thread still moves messages into the kernel at first.
        let body = pattern(2000)
        while refusedFirst < 100_000 && accepted < 100_000 {
            let number = UInt8(truncatingIfNeeded: accepted)
            let first = body.withUnsafeBytes { dealer.send(copying: $0, more: true) }
            if first == .full {
                refusedFirst += 1
                continue
            }
            #expect(first == .sent)
            for part in 0..<3 {
                let outcome = [number, UInt8(part)].withUnsafeBytes { dealer.send(copying: $0, more: part < 2) }
                if outcome != .sent { refusedLater += 1 }
            }
            accepted += 1
        }
        #expect(refusedFirst == 100_000 && refusedLater == 0 && accepted >= 3)
        for index in 0..<accepted {
            let number = UInt8(truncatingIfNeeded: index)
            let message = receiveMessage(from: router)
            #expect(message?.dropFirst() == [body, [number, 0], [number, 1], [number, 2]])
            if message == nil { break }
        }
        #expect(router.receive(Frame()) == false)
    }

    @Test func immediateDealerQueuesNothingWithoutAConnection() throws {
        let context = try Context(ioThreads: 1)
        let path = "/tmp/mpaxos-messaging-\(UUID().uuidString)"
        defer { unlink(path) }
        let endpoint = "ipc://\(path)"
        let dealer = try Socket(.dealer, in: context)
        try dealer.setImmediate(true)
        try dealer.setReconnectInterval(milliseconds: 10)
        try dealer.connect(endpoint)
        #expect(send([[1], [2]], to: dealer) == .full)
        let router = try Socket(.router, in: context)
        try router.bind(endpoint)
        #expect(sendEventually([[3], [4]], to: dealer) == true)
        #expect(receiveMessage(from: router)?.dropFirst() == [[3], [4]])
    }

    @Test func requestAndReplyTakeTurns() throws {
        let context = try Context(ioThreads: 1)
        let rep = try Socket(.rep, in: context)
        try rep.bind("tcp://127.0.0.1:*")
        let req = try Socket(.req, in: context)
        try req.connect(rep.lastEndpoint)
        for number in 0..<10 as Range<UInt8> {
            #expect(send([[number], [1]], to: req) == .sent)
            #expect(receiveMessage(from: rep) == [[number], [1]])
            #expect(send([[number, number]], to: rep) == .sent)
            #expect(receiveMessage(from: req) == [[number, number]])
        }
    }

    @Test func oversizedMessagesEndTheConnectionOnly() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.setMaxMessageSize(1000)
        try router.bind("tcp://127.0.0.1:*")
        let hostile = try Socket(.dealer, in: context)
        try hostile.setRoutingID([66])
        try hostile.connect(router.lastEndpoint)
        #expect(send([pattern(1001)], to: hostile) == .sent)
        let honest = try Socket(.dealer, in: context)
        try honest.setRoutingID([1])
        try honest.connect(router.lastEndpoint)
        #expect(send([pattern(1000)], to: honest) == .sent)
        #expect(receiveMessage(from: router) == [[1], pattern(1000)])
    }

    @Test func optionsAreAccepted() throws {
        let context = try Context(ioThreads: 2)
        let socket = try Socket(.dealer, in: context)
        try socket.setConnectTimeout(milliseconds: 1000)
        try socket.setBacklog(1000)
        try socket.setHandshakeInterval(milliseconds: 5000)
        try socket.setIPv6(false)
        try socket.setHeartbeat(intervalMilliseconds: 1000, timeout: 3000)
        try socket.setTCPKeepAlive(true)
        #expect(socket.fileDescriptor >= 0)
        // A refused value is an error, not ignored.
        #expect(throws: MessagingError.self) { try socket.setRouterMandatory(true) }
    }
}

@Suite struct MessagingErrorTests {
    @Test func bindSaysWhereAndWhatToDo() throws {
        let context = try Context(ioThreads: 1)
        let first = try Socket(.router, in: context)
        try first.bind("tcp://127.0.0.1:*")
        let endpoint = first.lastEndpoint
        let second = try Socket(.router, in: context)
        let error = #expect(throws: MessagingError.self) { try second.bind(endpoint) }
        #expect(error?.code == EADDRINUSE && error?.endpoint == endpoint)
        let text = "\(try #require(error))"
        #expect(text.contains("bind \(endpoint)") && text.contains("in use") && text.contains("choose another port"))
    }

    @Test(arguments: ["tcp://127.0.0.1", "tcp:/127.0.0.1:1", "nonsense", "udp://127.0.0.1:1", "tcp://203.0.113.1:5"])
    func badEndpointsAreNamed(endpoint: String) throws {
        let context = try Context(ioThreads: 1)
        let socket = try Socket(.router, in: context)
        let error = #expect(throws: MessagingError.self) { try socket.bind(endpoint) }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains(endpoint))
        #expect(text.split(separator: ":").count >= 3, "no advice in: \(text)")
    }
}
