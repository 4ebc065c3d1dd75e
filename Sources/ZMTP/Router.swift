import Glibc
import MPaxosInvariants

/// Names a connection for as long as it stands; never used again in this process.
@usableFromInline package typealias Peer = UInt64

/// The ROUTER's side of ZeroMQ over plain sockets, driven by the thread that works on the messages: no thread between,
/// one `recv` for all that a client has sent, one `send` for all that it is to get (decision 0006).
///
/// Speaks ZMTP 3.x with the NULL mechanism, and 2.0, to REQ, DEALER and ROUTER sockets of any implementation. A
/// connection's name is this router's own: routing ids that clients choose are taken and ignored.
///
/// Nothing here trusts a length that a peer tells: memory grows with what arrives, up to `Limits`. Nothing is allocated
/// once the buffers have the size that the load needs. One thread at a time.
package final class Router {
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

    let limits: Limits
    let listener: Listener
    let epoll: Epoll

    // One thread, and no access to these overlaps another: the checks of that would cost at every message.
    @exclusivity(unchecked) var connections: UnsafeMutablePointer<Connection>
    @exclusivity(unchecked) var capacity: Int
    @exclusivity(unchecked) var firstFree: Int32 = -1
    /// Connections that have something to send since the last flush.
    @exclusivity(unchecked) var dirty: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) var dirtyCount = 0
    @exclusivity(unchecked) var queued = 0
    /// Bytes in the connections' own queues of what has come.
    @exclusivity(unchecked) var held = 0
    /// Bytes of buffers given back since the allocator was last asked for what it has to spare; and as of the last
    /// sweep.
    @exclusivity(unchecked) var released = 0
    @exclusivity(unchecked) var releasedBefore = 0

    /// What is received into while a connection has nothing left over from before.
    private let buffer: UnsafeMutableRawPointer
    private static let bufferSize = 128 << 10
    /// The bytes that are being looked at, and the connection they came over; -1 when there are none.
    @exclusivity(unchecked) var current: Int32 = -1
    @exclusivity(unchecked) private var cursor: UnsafeMutableRawPointer
    @exclusivity(unchecked) private var end: UnsafeMutableRawPointer
    /// They lie in the connection's own queue, not in `buffer`.
    @exclusivity(unchecked) private var isQueued = false

    /// Bytes since the last flush, for what else there is to do: a thousand connections that send all that they can
    /// would keep a lane for long.
    @exclusivity(unchecked) var receivedThisTurn = 0
    private static let mostReceived = 4 << 20

    @exclusivity(unchecked) private var eventCount = 0
    @exclusivity(unchecked) private var nextEvent = 0
    @exclusivity(unchecked) var nextSweep = UInt64.max
    @exclusivity(unchecked) var acceptsAgainAt = UInt64.max
    /// Connections that stand or shake hands.
    @exclusivity(unchecked) package internal(set) var connectionCount = 0
    /// Connections dropped since their peer broke the protocol or a limit.
    @exclusivity(unchecked) package internal(set) var violations: UInt64 = 0
    /// Connections dropped since their peer was silent for too long.
    @exclusivity(unchecked) package internal(set) var silences: UInt64 = 0
    /// Idle connections that made place for others.
    @exclusivity(unchecked) package internal(set) var evictions: UInt64 = 0

    static let listenerNumber = UInt64.max
    /// Microseconds: a second, which is what times of silence are counted in.
    static let sweepInterval: UInt64 = 1_000_000
    static let acceptPause: UInt64 = 100_000
    /// Microseconds in which a handshake is not disturbed.
    static let quickHandshake: UInt64 = 100_000
    /// Bytes of buffers that an idle connection may keep.
    static let keptBuffer = 4 << 10
    /// Bytes of buffers that a busy connection may keep: what many take that send a large message now and then would
    /// add up.
    static let keptBusyBuffer = 64 << 10
    /// Bytes for which the allocator is asked to return memory to the system.
    static let worthGivingBack = 4 << 20

    /// Listens at `endpoint`, `tcp://` or `ipc://`.
    package init(listeningAt endpoint: String, limits: Limits) throws(SocketError) {
        self.limits = limits
        epoll = try Epoll()
        listener = try Listener(at: endpoint, backlog: 1024, silenceSeconds: limits.silenceSeconds)
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

    /// The next message; nil when none is whole, or enough was received for one turn. Accepts, shakes hands and goes on
    /// sending on the way.
    package func receive(now: UInt64) -> Message? {
        while true {
            if current >= 0 {
                if let message = takeMessage() { return message }
            } else if nextEvent < eventCount {
                guard receivedThisTurn < Self.mostReceived else { return nil }
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
        case .nothing: if connection.pointee.isEnding { close(index) }
        case .lost: close(index)
        case .received(let count):
            connection.pointee.wasHeard()
            receivedThisTurn += count
            if isQueued {
                connection.pointee.input.commit(count)
                held += count
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
        let connection = connections + Int(index)
        if connection.pointee.state == .greeting {
            takeGreeting(of: index)
            return nil
        }
        var start = cursor
        var at = start + connection.pointee.walked
        connection.pointee.walked = 0
        scan: while true {
            let left = UnsafeRawBufferPointer(start: at, count: end - at)
            let isUp = connection.pointee.state == .up
            switch Codec.frame(left, at: 0, limit: isUp ? limits.largestMessage : Codec.largestCommand) {
            case .incomplete:
                guard end - start <= limits.largestMessage else { break scan }
                connection.pointee.walked = at - start
                keepRest()
                return nil
            case .bad: break scan
            case .frame(let head):
                let next = at + head.bodyOffset + head.bodyCount
                guard next - start <= limits.largestMessage else { break scan }
                if head.isCommand || !isUp {
                    let body = UnsafeRawBufferPointer(start: at + head.bodyOffset, count: head.bodyCount)
                    guard !head.hasMore, obey(body, isCommand: head.isCommand, from: index) else { break scan }
                    // Between the frames of a message it stays where it is, and `nextFrame` passes it over.
                    if at == start {
                        cursor = next
                        start = next
                    }
                    at = next
                    continue
                }
                at = next
                if head.hasMore { continue }
                // The bytes of the message stay where they are until the next call.
                cursor = next
                connection.pointee.hasAsked()
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
            let taken = cursor - UnsafeMutableRawPointer(mutating: input.bytes.baseAddress!)
            if taken > 0 { connection.pointee.beginsMessage() }
            connection.pointee.input.remove(taken)
            held -= taken
            if connection.pointee.input.isEmpty, connection.pointee.input.capacity > Self.keptBusyBuffer {
                released += connection.pointee.input.capacity
                connection.pointee.input.release()
            }
        } else if left > 0 {
            connection.pointee.beginsMessage()
            connection.pointee.input.append(UnsafeRawBufferPointer(start: cursor, count: left))
            held += left
        }
        current = -1
        if held > limits.mostHeldTogether { shed() }
    }

    // MARK: Handshakes and commands

    private static let ready = Codec.ready("ROUTER")

    private func takeGreeting(of index: Int32) {
        let connection = connections + Int(index)
        let bytes = UnsafeRawBufferPointer(start: cursor, count: end - cursor)
        let outcome = Codec.checkGreeting(bytes)
        guard outcome != .bad else { return breach(index) }
        if bytes.count >= Codec.versionEnd, !connection.pointee.isGreeted {
            // A peer of version 2 takes what follows the version number for its own.
            connection.pointee.isGreeted = true
            let rest = Codec.isOld(bytes) ? Codec.oldGreeting : Array(Codec.greeting.dropFirst(Codec.versionEnd))
            enqueue(rest, to: index)
        }
        switch outcome {
        case .bad, .incomplete: keepRest()
        case .old:
            cursor += Codec.oldGreetingSize
            connection.pointee.dialect = .zmtp20
            connection.pointee.state = .handshake
        case .good:
            cursor += Codec.greetingSize
            connection.pointee.dialect = Codec.hasHeartbeats(bytes) ? .zmtp31 : .zmtp30
            connection.pointee.state = .handshake
            enqueue(Self.ready, to: index)
        }
    }

    /// Takes a frame that is no part of a message: a command, or what ends a handshake. False when it breaks the
    /// protocol.
    private func obey(_ body: UnsafeRawBufferPointer, isCommand: Bool, from index: Int32) -> Bool {
        let connection = connections + Int(index)
        // Version 2 has no commands, and an identity in the place of READY, which is taken and ignored.
        guard isCommand == (connection.pointee.dialect != .zmtp20) else { return false }
        if connection.pointee.state == .handshake {
            if isCommand {
                guard case .ready(let type) = Codec.readReady(body), type.map(Codec.isClient) ?? true else {
                    return false
                }
            }
            connection.pointee.state = .up
        } else if let ping = Codec.readPing(body) {
            if ping.timeToLive > 0 {
                // The sweep that begins it may come at once.
                connection.pointee.timeToLive = UInt16(1 + (Int(ping.timeToLive) + 9) / 10)
            }
            enqueue(ping.pong, to: index)
        }
        return true
    }

    // MARK: What its owner counts

    /// Of the peer's messages those that wait for an answer, as `countOutstanding` was told; 0 when the peer is gone.
    package func outstanding(of peer: Peer) -> Int {
        index(of: peer).map { Int(connections[Int($0)].outstanding) } ?? 0
    }

    package func countOutstanding(_ change: Int32, of peer: Peer) {
        guard let index = index(of: peer) else { return }
        connections[Int(index)].outstanding += change
        invariant(connections[Int(index)].outstanding >= 0, "no more requests are answered than were asked")
    }
}
