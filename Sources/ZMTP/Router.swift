import Glibc
import Invariants

/// Names a connection for as long as it stands; never used again in this process.
@usableFromInline package typealias Peer = UInt64

/// The ROUTER's side of ZeroMQ over plain sockets, driven by the thread that works on the messages: no thread between, one `recv`
/// for all that a client has sent, one `send` for all that it is to get (decision 0006).
///
/// Speaks ZMTP 3.x with the NULL mechanism to REQ, DEALER and ROUTER sockets of any implementation. A connection's name is this
/// router's own: routing ids that clients choose are taken and ignored.
///
/// Nothing here trusts a length that a peer tells: memory grows with what arrives, up to `Limits`. Nothing is allocated once the
/// buffers have the size that the load needs. One thread at a time.
package final class Router {
    package struct Limits: Sendable {
        /// Bytes of a message, heads of its frames included: beyond it the connection is dropped.
        package var largestMessage: Int
        /// Bytes that wait to be sent to one peer: beyond it, further messages for it are refused. An empty queue takes any.
        package var mostQueued: Int
        /// The same for all peers together: beyond it, messages are refused for those that do not read, but for a share each.
        package var mostQueuedTogether: Int
        /// The share: bytes that may wait for each, whatever waits for the others.
        package var share: Int
        /// Microseconds for the handshake.
        package var handshakeTime: UInt64
        /// Connections at once: who comes when there are so many waits until one ends.
        package var mostConnections: Int

        package init(
            largestMessage: Int, mostQueued: Int, mostQueuedTogether: Int, share: Int = 1 << 20, handshakeTime: UInt64,
            mostConnections: Int = .max
        ) {
            invariant(largestMessage > 0 && mostQueued > 0 && mostConnections > 0, "limits are positive")
            invariant(mostQueuedTogether >= 0 && share >= 0, "limits are not negative")
            self.largestMessage = largestMessage
            self.mostQueued = mostQueued
            self.mostQueuedTogether = mostQueuedTogether
            self.share = share
            self.handshakeTime = handshakeTime
            self.mostConnections = mostConnections
        }
    }

    /// A whole message, valid until the next call of `receive`, `flush` or `reserve`: these may find its sender gone.
    package struct Message: BitwiseCopyable {
        package let peer: Peer
        private var rest: UnsafeRawBufferPointer

        fileprivate init(peer: Peer, bytes: UnsafeRawBufferPointer) {
            self.peer = peer
            rest = bytes
        }

        /// The content of the next frame.
        package mutating func nextFrame() -> UnsafeRawBufferPointer? {
            while case .frame(let head) = Codec.frame(rest, at: 0, limit: rest.count) {
                let end = head.bodyOffset + head.bodyCount
                let content = UnsafeRawBufferPointer(rebasing: rest[head.bodyOffset..<end])
                rest = UnsafeRawBufferPointer(rebasing: rest[end...])
                // Commands may stand between the frames of a message.
                if !head.isCommand { return content }
            }
            return nil
        }
    }

    private let limits: Limits
    private let listener: Listener
    private let epoll: Epoll

    // One thread, and no access to these overlaps another: the checks of that would cost at every message.
    @exclusivity(unchecked) private var connections: UnsafeMutablePointer<Connection>
    @exclusivity(unchecked) private var capacity: Int
    @exclusivity(unchecked) private var firstFree: Int32 = -1
    /// Connections that have something to send since the last flush.
    @exclusivity(unchecked) private var dirty: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) private var dirtyCount = 0
    @exclusivity(unchecked) private var queued = 0

    /// What is received into while a connection has nothing left over from before.
    private let buffer: UnsafeMutableRawPointer
    private static let bufferSize = 128 << 10
    /// The bytes that are being looked at, and the connection they came over; -1 when there are none.
    @exclusivity(unchecked) private var current: Int32 = -1
    @exclusivity(unchecked) private var cursor: UnsafeMutableRawPointer
    @exclusivity(unchecked) private var end: UnsafeMutableRawPointer
    /// They lie in the connection's own queue, not in `buffer`.
    @exclusivity(unchecked) private var isQueued = false

    @exclusivity(unchecked) private var eventCount = 0
    @exclusivity(unchecked) private var nextEvent = 0
    @exclusivity(unchecked) private var nextSweep = UInt64.max
    @exclusivity(unchecked) private var acceptsAgainAt = UInt64.max
    /// Connections that stand or shake hands.
    @exclusivity(unchecked) package private(set) var connectionCount = 0
    /// Connections dropped since their peer broke the protocol or a limit.
    @exclusivity(unchecked) package private(set) var violations: UInt64 = 0

    private static let listenerNumber = UInt64.max
    private static let sweepInterval: UInt64 = 1_000_000
    private static let acceptPause: UInt64 = 100_000
    /// Bytes of buffers that an idle connection may keep.
    private static let keptBuffer = 4 << 10
    /// Bytes of buffers that a busy connection may keep: what many take that send a large message now and then would
    /// add up.
    private static let keptBusyBuffer = 64 << 10

    /// Listens at `endpoint`, `tcp://` or `ipc://`.
    package init(listeningAt endpoint: String, limits: Limits) throws(SocketError) {
        self.limits = limits
        epoll = try Epoll()
        listener = try Listener(at: endpoint, backlog: 1024)
        capacity = 64
        connections = .allocate(capacity: capacity)
        dirty = .allocate(capacity: capacity)
        buffer = .allocate(byteCount: Self.bufferSize, alignment: 64)
        cursor = buffer
        end = buffer
        addFree(from: 0)
        guard epoll.addIfThereIsRoom(listener.file, number: Self.listenerNumber, writable: false) else {
            let code = errno
            throw SocketError("cannot watch \(endpoint): \(systemMessage(code))", code: code)
        }
    }

    deinit {
        for index in 0..<capacity where connections[index].state != .free { close(Int32(index)) }
        connections.deallocate()
        dirty.deallocate()
        buffer.deallocate()
    }

    /// Readable while there is something to look at. Level-triggered.
    package var fileDescriptor: Int32 { epoll.descriptor }

    /// The port listened at, of a `tcp://` endpoint.
    package var port: UInt16 { listener.port }

    /// Whether `receive` has something to work on without asking the kernel again.
    package var hasMore: Bool { current >= 0 || nextEvent < eventCount }

    /// Microseconds of the monotonic clock at which `look` wants to be called though nothing happens.
    package var nextDeadline: UInt64 { min(nextSweep, acceptsAgainAt) }

    // MARK: Receiving

    /// Asks the kernel what has happened, for `receive` to work on; does what the time asks for.
    package func look(now: UInt64) {
        if now >= nextDeadline { keepTime(now: now) }
        guard nextEvent >= eventCount else { return }
        eventCount = epoll.look()
        nextEvent = 0
    }

    /// The next message; nil when none is whole. Accepts, shakes hands and goes on sending on the way.
    package func receive(now: UInt64) -> Message? {
        while true {
            if current >= 0 {
                if let message = takeMessage() { return message }
            } else if nextEvent < eventCount {
                nextEvent += 1
                handle(epoll.event(nextEvent - 1), now: now)
            } else {
                return nil
            }
        }
    }

    private func handle(_ event: (number: UInt64, readable: Bool, writable: Bool), now: UInt64) {
        if event.number == Self.listenerNumber {
            acceptAll(now: now)
            return
        }
        // Closed meanwhile, its place perhaps taken by another.
        guard let index = index(of: event.number) else { return }
        if event.writable { send(index) }
        if event.readable, connections[Int(index)].state != .free { read(index) }
    }

    /// Receives once what is there; what is not taken now makes another event.
    private func read(_ index: Int32) {
        let connection = connections + Int(index)
        connection.pointee.wasActive = true
        isQueued = !connection.pointee.input.isEmpty
        let place: UnsafeMutableRawPointer
        let room: Int
        if isQueued {
            place = connection.pointee.input.reserve(16 << 10)
            room = connection.pointee.input.room
        } else {
            place = buffer
            room = Self.bufferSize
        }
        switch connection.pointee.receive(into: place, count: room) {
        case .nothing: return
        case .lost: close(index)
        case .received(let count):
            if isQueued {
                connection.pointee.input.commit(count)
                cursor = UnsafeMutableRawPointer(mutating: connection.pointee.input.bytes.baseAddress!)
                end = cursor + connection.pointee.input.count
            } else {
                cursor = buffer
                end = buffer + count
            }
            current = index
        }
    }

    /// The next message of the bytes at hand; nil when they are used up, or no message yet.
    private func takeMessage() -> Message? {
        let index = current
        switch connections[Int(index)].state {
        case .free: broken("a closed connection has no bytes")
        case .greeting:
            switch Codec.checkGreeting(UnsafeRawBufferPointer(start: cursor, count: end - cursor)) {
            case .incomplete: keepRest()
            case .bad: breach(index)
            case .good:
                cursor += Codec.greetingSize
                connections[Int(index)].state = .handshake
                Self.ready.withUnsafeBytes { enqueue($0, to: index) }
            }
            return nil
        case .handshake, .up: break
        }
        var start = cursor
        var at = start + connections[Int(index)].walked
        connections[Int(index)].walked = 0
        scan: while true {
            let left = UnsafeRawBufferPointer(start: at, count: end - at)
            switch Codec.frame(left, at: 0, limit: limits.largestMessage) {
            case .incomplete:
                guard end - start <= limits.largestMessage else { break scan }
                connections[Int(index)].walked = at - start
                keepRest()
                return nil
            case .bad: break scan
            case .frame(let head):
                let next = at + head.bodyOffset + head.bodyCount
                guard next - start <= limits.largestMessage else { break scan }
                if head.isCommand {
                    let body = UnsafeRawBufferPointer(start: at + head.bodyOffset, count: head.bodyCount)
                    guard !head.hasMore, obey(body, from: index) else { break scan }
                    // Between the frames of a message it stays where it is, and `nextFrame` passes it over.
                    if at == start {
                        cursor = next
                        start = next
                    }
                    at = next
                    continue
                }
                guard connections[Int(index)].state == .up else { break scan }
                at = next
                if head.hasMore { continue }
                // The bytes of the message stay where they are until the next call.
                cursor = next
                return Message(
                    peer: peer(at: index), bytes: UnsafeRawBufferPointer(start: start, count: next - start))
            }
        }
        breach(index)
        return nil
    }

    /// Puts what is left of the bytes at hand aside, until more has come.
    private func keepRest() {
        let connection = connections + Int(current)
        let left = end - cursor
        if isQueued {
            let input = connection.pointee.input
            let whole = UnsafeMutableRawPointer(mutating: input.bytes.baseAddress!)
            connection.pointee.input.remove(cursor - whole)
            if connection.pointee.input.isEmpty, connection.pointee.input.capacity > Self.keptBusyBuffer {
                connection.pointee.input.release()
            }
        } else if left > 0 {
            connection.pointee.input.append(UnsafeRawBufferPointer(start: cursor, count: left))
        }
        current = -1
    }

    /// Takes a command; false when it breaks the protocol.
    private func obey(_ command: UnsafeRawBufferPointer, from index: Int32) -> Bool {
        let connection = connections + Int(index)
        if connection.pointee.state == .handshake {
            guard let type = Codec.socketType(inReady: command), ["REQ", "DEALER", "ROUTER"].contains(type) else {
                return false
            }
            connection.pointee.state = .up
        } else if let pong = Codec.pong(to: command) {
            pong.withUnsafeBytes { enqueue($0, to: index) }
        }
        return true
    }

    // MARK: Sending

    /// Room for a message of `count` bytes, heads of frames included, which the caller fills in at once: it leaves with the next
    /// `flush`. Nil when the peer is gone, or does not read what it was sent.
    package func reserve(_ count: Int, for peer: Peer) -> UnsafeMutableRawPointer? {
        guard let index = index(of: peer), connections[Int(index)].state == .up else { return nil }
        let connection = connections + Int(index)
        if connection.pointee.output.count + count > limits.mostQueued, !connection.pointee.isBlocked {
            // It may be that it reads as fast as it can, and only the turn was long.
            send(index)
            guard connection.pointee.state == .up else { return nil }
        }
        let waiting = connection.pointee.output.count
        if waiting > 0 {
            guard waiting + count <= limits.mostQueued else { return nil }
            if connection.pointee.isBlocked, waiting + count > limits.share,
                queued + count > limits.mostQueuedTogether
            {
                return nil
            }
        }
        return extend(index, by: count)
    }

    private func extend(_ index: Int32, by count: Int) -> UnsafeMutableRawPointer {
        let connection = connections + Int(index)
        let place = connection.pointee.output.reserve(count)
        connection.pointee.output.commit(count)
        connection.pointee.wasActive = true
        queued += count
        if !connection.pointee.isDirty {
            connection.pointee.isDirty = true
            dirty[dirtyCount] = index
            dirtyCount += 1
        }
        return place
    }

    private func enqueue(_ bytes: UnsafeRawBufferPointer, to index: Int32) {
        // Greeting and the answers to commands are few bytes; a peer that asks for many and reads none is cut off.
        let connection = connections + Int(index)
        guard connection.pointee.output.count < limits.mostQueued,
            !connection.pointee.isBlocked || queued < limits.mostQueuedTogether
        else { return }
        extend(index, by: bytes.count).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    }

    /// Sends what was written since the last time, each peer's in one system call.
    package func flush() {
        for at in 0..<dirtyCount {
            let index = dirty[at]
            connections[Int(index)].isDirty = false
            // The kernel said that it takes no more: it says so when it does.
            if connections[Int(index)].state != .free, !connections[Int(index)].isBlocked { send(index) }
        }
        dirtyCount = 0
    }

    private func send(_ index: Int32) {
        let connection = connections + Int(index)
        let before = connection.pointee.output.count
        let outcome = connection.pointee.send()
        queued -= before - connection.pointee.output.count
        invariant(queued >= 0, "no more is sent than was queued")
        switch outcome {
        case .lost: close(index)
        case .done, .blocked:
            if outcome == .done, connection.pointee.output.capacity > Self.keptBusyBuffer {
                connection.pointee.output.release()
            }
            let isBlocked = outcome == .blocked
            if isBlocked != connection.pointee.isBlocked {
                connection.pointee.isBlocked = isBlocked
                epoll.watch(connection.pointee.file, number: peer(at: index), writable: isBlocked)
            }
        }
    }

    // MARK: Connections

    private static let ready = Codec.ready("ROUTER")

    private func acceptAll(now: UInt64) {
        // Some at a time: those that stand have their turn, too.
        for _ in 0..<64 {
            guard connectionCount < limits.mostConnections else { return watchListener(false) }
            switch listener.accept() {
            case .nothing: return
            case .exhausted: return pauseAccepting(now: now)
            case .connection(let file):
                guard welcome(file, now: now) else { return pauseAccepting(now: now) }
            }
        }
    }

    private func pauseAccepting(now: UInt64) {
        watchListener(false)
        acceptsAgainAt = now + Self.acceptPause
    }

    private func watchListener(_ accepts: Bool) {
        epoll.watch(listener.file, number: Self.listenerNumber, readable: accepts, writable: false)
    }

    /// False: the connection cannot be watched, and is closed.
    private func welcome(_ file: Int32, now: UInt64) -> Bool {
        if firstFree < 0 { grow() }
        let index = firstFree
        guard epoll.addIfThereIsRoom(file, number: peer(at: index), writable: false) else {
            Glibc.close(file)
            return false
        }
        let connection = connections + Int(index)
        invariant(connection.pointee.state == .free, "a connection on the free list is free")
        firstFree = connection.pointee.nextFree
        connection.pointee.file = file
        connection.pointee.state = .greeting
        connection.pointee.since = now
        connectionCount += 1
        if nextSweep == .max { nextSweep = now + Self.sweepInterval }
        Codec.greeting.withUnsafeBytes { enqueue($0, to: index) }
        return true
    }

    private func breach(_ index: Int32) {
        violations += 1
        close(index)
    }

    private func close(_ index: Int32) {
        let connection = connections + Int(index)
        invariant(connection.pointee.state != .free, "a connection is closed once")
        if current == index { current = -1 }
        Glibc.close(connection.pointee.file)
        queued -= connection.pointee.output.count
        connection.pointee.input.release()
        connection.pointee.output.release()
        // It may stand on the list of the dirty, which `flush` will find out.
        let isDirty = connection.pointee.isDirty
        connection.pointee = Connection(generation: connection.pointee.generation &+ 1)
        connection.pointee.isDirty = isDirty
        connection.pointee.nextFree = firstFree
        firstFree = index
        if connectionCount == limits.mostConnections { watchListener(true) }
        connectionCount -= 1
    }

    private func peer(at index: Int32) -> Peer {
        Peer(connections[Int(index)].generation) << 32 | Peer(UInt32(bitPattern: index))
    }

    private func index(of peer: Peer) -> Int32? {
        let index = Int(peer & 0xFFFF_FFFF)
        guard index < capacity, connections[index].state != .free,
            connections[index].generation == UInt32(truncatingIfNeeded: peer >> 32)
        else { return nil }
        return Int32(index)
    }

    private func grow() {
        let larger = capacity * 2
        let fresh = UnsafeMutablePointer<Connection>.allocate(capacity: larger)
        fresh.update(from: connections, count: capacity)
        connections.deallocate()
        connections = fresh
        let list = UnsafeMutablePointer<Int32>.allocate(capacity: larger)
        list.update(from: dirty, count: dirtyCount)
        dirty.deallocate()
        dirty = list
        let first = capacity
        capacity = larger
        addFree(from: first)
    }

    private func addFree(from first: Int) {
        for index in (first..<capacity).reversed() {
            (connections + index).initialize(to: Connection())
            connections[index].nextFree = firstFree
            firstFree = Int32(index)
        }
    }

    /// Ends handshakes that take too long, gives buffers back that are not in use, accepts again after a pause.
    private func keepTime(now: UInt64) {
        if now >= acceptsAgainAt {
            acceptsAgainAt = .max
            watchListener(true)
        }
        guard now >= nextSweep else { return }
        for index in 0..<capacity where connections[index].state != .free {
            let connection = connections + index
            if connection.pointee.state != .up, now >= connection.pointee.since + limits.handshakeTime {
                breach(Int32(index))
                continue
            }
            if !connection.pointee.wasActive {
                if connection.pointee.input.isEmpty, connection.pointee.input.capacity > Self.keptBuffer {
                    connection.pointee.input.release()
                }
                if connection.pointee.output.isEmpty, connection.pointee.output.capacity > Self.keptBuffer {
                    connection.pointee.output.release()
                }
            }
            connection.pointee.wasActive = false
        }
        nextSweep = connectionCount > 0 ? now + Self.sweepInterval : .max
    }
}
