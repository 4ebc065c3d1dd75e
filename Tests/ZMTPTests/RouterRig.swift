import Foundation
import MPaxosFrames
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// A router with a gateway's loop around it, driven by the test's own thread and on a clock of the test's own. Answers
/// each message with the same.
final class RouterRig {
    struct Arrival {
        var peer: Peer
        var frames: [[UInt8]]
    }

    static let limits = Router.Limits(
        largestMessage: 8 << 20, mostQueued: 16 << 20, mostQueuedTogether: 64 << 20, handshakeTime: 5_000_000)

    let router: Router
    /// What clients connect to.
    let endpoint: String
    var now: UInt64 = 1_000_000
    var answers = true
    var keepsArrivals = true
    private(set) var arrivals: [Arrival] = []
    /// Answers that the router did not take.
    private(set) var refused = 0
    private var clients: [RawClient] = []

    /// - Parameter place: an endpoint; of `ipc://` and `ipc://@` alone, one that nobody else has.
    init(_ place: String = "ipc://@", limits: Router.Limits = RouterRig.limits) throws {
        let endpoint = ["ipc://", "ipc://@"].contains(place) ? place + freshPath() : place
        router = try Router(listeningAt: endpoint, limits: limits)
        self.endpoint =
            endpoint.hasSuffix(":0")
            ? endpoint.dropLast().replacing("//*", with: "//127.0.0.1").replacing("//lo", with: "//127.0.0.1")
                + "\(router.port)" : endpoint
    }

    /// All kinds of places to listen at that this machine has.
    static let endpoints =
        ["tcp://127.0.0.1:0", "tcp://*:0", "tcp://lo:0", "ipc://", "ipc://@"]
        + (hasIPv6 ? ["tcp://[::1]:0"] : [])

    static let hasIPv6: Bool = {
        guard let address = try? SocketAddress("tcp://[::1]:0", passive: true) else { return false }
        let file = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        defer { Glibc.close(file) }
        return address.withPointer { bind(file, $0, $1) } == 0
    }()

    // MARK: Turns

    /// Whether a lane that watches the router would wake.
    var isReadable: Bool { isReadable(within: 0) }

    /// Whether all that has come is worked on.
    var isAtRest: Bool { !router.hasMore && !isReadable }

    private func isReadable(within milliseconds: Int32) -> Bool {
        var item = pollfd(fd: router.fileDescriptor, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, milliseconds) > 0
    }

    /// Does what there is to do, as the gateway does: only when it would wake for it. Whether there was something.
    @discardableResult func turn() -> Bool {
        defer { router.flush() }
        if !router.hasMore {
            guard isReadable || now >= router.nextDeadline else { return false }
            router.look(now: now)
        }
        var count = 0
        while count < 256, let message = router.receive(now: now) {
            take(message)
            count += 1
        }
        return true
    }

    /// Turns until there is nothing left to do.
    func settle() { while turn() {} }

    /// Turns once there is something to do, and then until there is nothing left. False: there was nothing in all that
    /// time.
    func wakes(seconds: Double = 60) -> Bool {
        guard isReadable(within: Int32(seconds * 1000)) else { return false }
        settle()
        return true
    }

    /// Turns, and lets all raw clients send and receive, until the condition holds. False: it did not in all that time.
    func run(seconds: Double = 60, until condition: () -> Bool) -> Bool {
        let deadline = Date(timeIntervalSinceNow: seconds)
        while true {
            var worked = turn()
            for client in clients where client.exchange() { worked = true }
            if condition() { return true }
            if Date() > deadline { return false }
            if !worked { _ = isReadable(within: 1) }
        }
    }

    private func take(_ message: Router.Message) {
        var message = message
        var frames: [UnsafeRawBufferPointer] = []
        while let frame = message.nextFrame() { frames.append(frame) }
        if keepsArrivals { arrivals.append(Arrival(peer: message.peer, frames: frames.map { Array($0) })) }
        guard answers else { return }
        let size = frames.reduce(0) { $0 + Codec.size(ofFrame: $1.count) }
        guard let place = router.reserve(size, for: message.peer) else {
            refused += 1
            return
        }
        var at = place
        for (index, frame) in frames.enumerated() { at = Codec.write(frame, more: index + 1 < frames.count, to: at) }
        #expect(at == place + size)
    }

    /// Queues a message of one frame; false when it is refused.
    func send(_ content: [UInt8], to peer: Peer) -> Bool {
        guard let place = router.reserve(Codec.size(ofFrame: content.count), for: peer) else { return false }
        _ = content.withUnsafeBytes { Codec.write($0, more: false, to: place) }
        return true
    }

    func takeArrivals() -> [Arrival] {
        defer { arrivals = [] }
        return arrivals
    }

    // MARK: Clients

    /// A connection by a plain socket, accepted and with `peer` known.
    func connect(receiveBuffer: Int32? = nil) throws -> RawClient {
        let before = Set(router.standing.map(\.peer))
        let client = try RawClient(connectedTo: endpoint, receiveBuffer: receiveBuffer)
        clients.append(client)
        var peer: Peer?
        try #require(
            run {
                peer = router.standing.first { !before.contains($0.peer) }?.peer
                return peer != nil
            })
        client.peer = try #require(peer)
        return client
    }

    /// The same after a handshake.
    func open(_ socketType: String = "DEALER", receiveBuffer: Int32? = nil) throws -> RawClient {
        let client = try connect(receiveBuffer: receiveBuffer)
        client.send(Codec.greeting + Codec.ready(socketType))
        try #require(run { client.hasHandshake })
        return client
    }

    func close(_ client: RawClient, reset: Bool = false) {
        client.close(reset: reset)
        clients.removeAll { $0 === client }
    }

    /// Sends a message and waits for its echo.
    func echoes(_ client: RawClient, _ message: [[UInt8]]) -> Bool {
        client.send(message: message)
        var echo: [[UInt8]]?
        return run {
            echo = echo ?? client.nextMessage()
            return echo != nil || client.isClosed
        } && echo == message
    }

    func waits(for client: ZMQClient, seconds: Double = 60) -> [[UInt8]]? {
        var message: [[UInt8]]?
        _ = run(seconds: seconds) {
            message = client.receive()
            return message != nil
        }
        return message
    }
}

extension Router {
    private func stored<Value>(_ name: String) -> Value {
        Mirror(reflecting: self).children.first { $0.label == name }?.value as! Value
    }

    var table: [Connection] {
        let capacity: Int = stored("capacity")
        let connections: UnsafeMutablePointer<Connection> = stored("connections")
        return Array(UnsafeBufferPointer(start: connections, count: capacity))
    }

    /// The connections that stand, and their handles.
    var standing: [(peer: Peer, connection: Connection)] {
        table.enumerated().filter { $1.state != .free }.map { (Peer($1.generation) << 32 | Peer($0), $1) }
    }

    func connection(_ peer: Peer) -> Connection? { standing.first { $0.peer == peer }?.connection }

    /// What does not add up.
    func audit() -> [String] {
        var wrong: [String] = []
        let table = table
        let queued: Int = stored("queued")
        if queued != table.reduce(0, { $0 + $1.output.count }) { wrong.append("bytes queued") }
        let held: Int = stored("held")
        if held != table.reduce(0, { $0 + $1.input.count }) { wrong.append("bytes held") }
        if connectionCount != table.count(where: { $0.state != .free }) { wrong.append("connections") }
        let dirty: UnsafeMutablePointer<Int32> = stored("dirty")
        let dirtyCount: Int = stored("dirtyCount")
        if dirtyCount > table.count || Set(UnsafeBufferPointer(start: dirty, count: dirtyCount)).count != dirtyCount {
            wrong.append("list of the dirty")
        }
        var free: Set<Int32> = []
        var next: Int32 = stored("firstFree")
        while next >= 0, free.insert(next).inserted { next = table[Int(next)].nextFree }
        if next >= 0 || free.count != table.count - connectionCount { wrong.append("free list") }
        for index in free {
            let connection = table[Int(index)]
            if connection.state != .free || connection.file != -1 { wrong.append("\(index) is not free") }
            if connection.input.capacity + connection.output.capacity > 0 { wrong.append("\(index) has buffers") }
        }
        return wrong
    }
}

/// A plain socket that does not wait.
final class RawClient {
    let file: Int32
    var peer: Peer = 0
    /// Whether `exchange` receives.
    var reads = true
    /// The other side has ended the connection.
    private(set) var isClosed = false
    private(set) var incoming: [UInt8] = []
    private var taken = 0
    private var outgoing: [UInt8] = []
    private var sent = 0
    private var isOpen = true

    init(connectedTo endpoint: String, receiveBuffer: Int32? = nil) throws {
        let address = try SocketAddress(endpoint, passive: false)
        file = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer {
            setsockopt(file, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var on: Int32 = 1
        setsockopt(file, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        try #require(address.withPointer { Glibc.connect(file, $0, $1) } == 0)
        _ = fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_NONBLOCK)
    }

    deinit { close() }

    func close(reset: Bool = false) {
        guard isOpen else { return }
        isOpen = false
        if reset {
            var option = linger(l_onoff: 1, l_linger: 0)
            setsockopt(file, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        }
        Glibc.close(file)
    }

    /// Bytes that the kernel has not taken yet.
    var unsent: Int { outgoing.count - sent }
    /// Bytes received and not taken out.
    var unread: Int { incoming.count - taken }

    func send(_ bytes: [UInt8]) {
        outgoing += bytes
        _ = push()
    }

    func send(message: [[UInt8]]) {
        for (index, frame) in message.enumerated() { send(makeFrame(frame, more: index + 1 < message.count)) }
    }

    /// Sends and receives what can be; whether there was something.
    func exchange() -> Bool {
        guard isOpen else { return false }
        var worked = push()
        while reads, !isClosed {
            let count = withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 1) { buffer in
                let count = recv(file, buffer.baseAddress!, buffer.count, 0)
                if count > 0 { incoming += buffer[0..<count] }
                return count
            }
            if count < 0, errno == EAGAIN || errno == EINTR { break }
            if count <= 0 { isClosed = true }
            worked = true
        }
        return worked
    }

    private func push() -> Bool {
        var worked = false
        while sent < outgoing.count {
            let count = outgoing.withUnsafeBytes {
                Glibc.send(file, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else {
                if errno != EAGAIN, errno != EINTR { isClosed = true }
                break
            }
            sent += count
            worked = true
        }
        if sent == outgoing.count { (outgoing, sent) = ([], 0) }
        return worked
    }

    // MARK: What came

    /// Takes greeting and READY out, once they have come.
    var hasHandshake: Bool {
        guard unread > Codec.greetingSize, let frame = frame(at: taken + Codec.greetingSize) else { return false }
        let isReady = frame.content.withUnsafeBytes { Codec.socketType(inReady: $0) } == "ROUTER" && frame.isCommand
        #expect(Array(incoming[taken..<(taken + Codec.greetingSize)]) == Codec.greeting && isReady)
        taken = frame.end
        return true
    }

    func nextFrame() -> (isCommand: Bool, hasMore: Bool, content: [UInt8])? {
        guard let frame = frame(at: taken) else { return nil }
        taken = frame.end
        if taken > 1 << 20 {
            incoming.removeFirst(taken)
            taken = 0
        }
        return (frame.isCommand, frame.hasMore, frame.content)
    }

    /// The next message, once it is whole; nil too when a command comes before it.
    func nextMessage() -> [[UInt8]]? {
        var message: [[UInt8]] = []
        var at = taken
        while let frame = frame(at: at), !frame.isCommand {
            message.append(frame.content)
            at = frame.end
            guard frame.hasMore else {
                for _ in message { _ = nextFrame() }
                return message
            }
        }
        return nil
    }

    private func frame(at offset: Int) -> (isCommand: Bool, hasMore: Bool, content: [UInt8], end: Int)? {
        incoming.withUnsafeBytes { bytes in
            guard case .frame(let head) = Codec.frame(bytes, at: offset, limit: 1 << 30) else { return nil }
            let end = head.bodyOffset + head.bodyCount
            return (head.isCommand, head.hasMore, Array(bytes[head.bodyOffset..<end]), end)
        }
    }
}

/// A socket of libzmq.
final class ZMQClient {
    private let socket: Socket
    private let frame = Frame()

    init(_ kind: Socket.Kind, _ endpoint: String, in context: Context) throws {
        socket = try Socket(kind, in: context)
        try socket.setIPv6(true)
        try socket.setSendHighWaterMark(0)
        try socket.setReceiveHighWaterMark(0)
        try socket.connect(endpoint)
    }

    /// False: not now.
    func send(_ message: [[UInt8]]) -> Bool {
        for (index, part) in message.enumerated() {
            let outcome = part.withUnsafeBytes { socket.send(copying: $0, more: index + 1 < message.count) }
            if index == 0, outcome == .full { return false }
            #expect(outcome == .sent)
        }
        return true
    }

    /// Nil: none has come.
    func receive() -> [[UInt8]]? {
        var message: [[UInt8]] = []
        repeat {
            guard socket.receive(frame) else { return nil }
            message.append([UInt8](frame.bytes))
        } while frame.hasMore
        return message
    }
}
