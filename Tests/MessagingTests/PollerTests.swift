import Foundation
import MPaxosFrames
import MPaxosMessaging
import Testing

@Suite struct PollerTests {
    @Test func tellsWhatIsReady() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.bind("inproc://poll")
        let dealer = try Socket(.dealer, in: context)
        try dealer.connect("inproc://poll")
        var descriptors: [Int32] = [0, 0]
        #expect(pipe(&descriptors) == 0)
        defer { for descriptor in descriptors { close(descriptor) } }
        var poller = Poller(capacity: 3)
        let input = poller.add(router)
        let plain = poller.add(fileDescriptor: descriptors[0])
        let output = poller.add(dealer, reading: true, writing: true)
        #expect(poller.wait(timeoutMilliseconds: 0) == 1)
        #expect(poller.isWritable(output) && !poller.isReadable(output))
        poller.watch(output, reading: true)
        #expect(poller.wait(timeoutMilliseconds: 0) == 0 && !poller.isWritable(output))

        #expect(write(descriptors[1], "x", 1) == 1)
        #expect(poller.wait(timeoutMilliseconds: 10_000) == 1)
        #expect(poller.isReadable(plain) && !poller.isReadable(input))

        #expect(send([[1]], to: dealer) == .sent)
        poller.watch(plain, reading: false)
        #expect(poller.wait(timeoutMilliseconds: 10_000) == 1)
        #expect(poller.isReadable(input) && !poller.isReadable(plain))
        #expect(router.pollEvents.readable && !dealer.pollEvents.readable)
        // Not watched: not reported, although it is ready.
        poller.watch(input, reading: false)
        #expect(poller.wait(timeoutMilliseconds: 0) == 0)
        #expect(poller.isTerminated == false)
    }

    /// A lane that waits for ever comes back when the context is shut down, and its sockets say so.
    @Test func shutdownEndsAWaitForEver() throws {
        let context = try Context(ioThreads: 1)
        let started = DispatchSemaphore(value: 0)
        let lane = Worker {
            guard let socket = try? Socket(.dealer, in: context) else { return }
            var poller = Poller(capacity: 1)
            _ = poller.add(socket)
            started.signal()
            while !poller.isTerminated { #expect(poller.wait(timeoutMilliseconds: -1) == 0) }
            #expect(socket.receive(Frame()) == false)
            #expect(send([[1]], to: socket) == .terminated)
            #expect(socket.pollEvents == (false, false))
        }
        started.wait()
        context.shutdown()
        context.shutdown()
        #expect(lane.join(seconds: 10))
        #expect(throws: MessagingError.self) { _ = try Socket(.dealer, in: context) }
    }

    /// A signal without SA_RESTART interrupts the poll; receives and sends go on regardless.
    @Test func signalsInterruptWithoutHarm() throws {
        let context = try Context(ioThreads: 1)
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(SIGUSR2, &action, nil)
        let ready = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var thread = pthread_t()
        nonisolated(unsafe) var interrupted = 0
        let lane = Worker {
            guard let socket = try? Socket(.router, in: context), (try? socket.bind("inproc://signals")) != nil else {
                return
            }
            var poller = Poller(capacity: 1)
            let input = poller.add(socket)
            thread = pthread_self()
            ready.signal()
            let frame = Frame()
            while true {
                if poller.wait(timeoutMilliseconds: 20_000) == 0 { interrupted += 1 }
                guard poller.isReadable(input), socket.receive(frame) else { continue }
                socket.skipRest(of: frame)
                return
            }
        }
        ready.wait()
        let dealer = try Socket(.dealer, in: context)
        try dealer.connect("inproc://signals")
        for _ in 0..<200 { pthread_kill(thread, SIGUSR2) }
        #expect(send([[1], [2], [3]], to: dealer) == .sent)
        #expect(lane.join(seconds: 10))
    }
}

@Suite struct MonitorTests {
    /// The next event that satisfies `condition`, within 10 s; others are passed over.
    private func event(from monitor: borrowing Monitor, _ condition: (Monitor.Event) -> Bool) -> Monitor.Event? {
        let deadline = Date(timeIntervalSinceNow: 10)
        var poller = Poller(capacity: 1)
        _ = monitor.add(to: &poller)
        while Date() < deadline {
            while let event = monitor.next() { if condition(event) { return event } }
            _ = poller.wait(timeoutMilliseconds: 100)
        }
        return nil
    }

    @Test func tellsOfConnections() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        let server = try Monitor(of: router)
        try router.bind("tcp://127.0.0.1:*")
        let endpoint = router.lastEndpoint
        #expect(event(from: server) { $0 == .listening(endpoint: endpoint) } != nil)
        let client: Monitor
        let file: Int32
        do {
            let dealer = try Socket(.dealer, in: context)
            client = try Monitor(of: dealer)
            try dealer.connect(endpoint)
            #expect(event(from: client) { if case .connected(endpoint, _) = $0 { true } else { false } } != nil)
            #expect(event(from: client) { if case .handshakeSucceeded = $0 { true } else { false } } != nil)
            let accepted = event(from: server) { if case .accepted = $0 { true } else { false } }
            guard case .accepted(_, let number)? = accepted else {
                Issue.record("no connection was accepted")
                return
            }
            file = number
        }
        #expect(event(from: client) { $0 == .stopped } != nil)
        #expect(event(from: server) { if case .disconnected(_, file) = $0 { true } else { false } } != nil)
        server.stop(router)
    }

    @Test func tellsOfAFailedBindAndOfForeignProtocols() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        let monitor = try Monitor(of: router)
        try router.bind("tcp://127.0.0.1:*")
        let other = try Socket(.router, in: context)
        let otherMonitor = try Monitor(of: other)
        #expect(throws: MessagingError.self) { try other.bind(router.lastEndpoint) }
        #expect(event(from: otherMonitor) { if case .bindFailed(_, EADDRINUSE) = $0 { true } else { false } } != nil)

        let port = try #require(UInt16(router.lastEndpoint.split(separator: ":").last ?? ""))
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(connected == 0)
        // ZMTP 3's greeting with a security mechanism that does not exist. (Bytes that look like no greeting at all
        // libzmq takes for ZMTP 1, and delivers: whoever reads a ROUTER must expect any frames.)
        var greeting = [UInt8](repeating: 0, count: 64)
        greeting[0] = 0xFF
        greeting[9] = 0x7F
        greeting[10] = 3
        greeting.replaceSubrange(12..<16, with: "NONE".utf8)
        #expect(write(descriptor, greeting, 64) == 64)
        #expect(
            event(from: monitor) { if case .mechanismsDiffer = $0 { true } else { false } } != nil)
        // And the socket lives.
        let dealer = try Socket(.dealer, in: context)
        try dealer.connect(router.lastEndpoint)
        #expect(send([[4]], to: dealer) == .sent)
        #expect(receiveMessage(from: router)?.last == [4])
    }
}
