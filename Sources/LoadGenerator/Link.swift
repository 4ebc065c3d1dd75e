import Glibc
import MPaxosInvariants
import MPaxosZMTP

/// One connection to a replica, with bytes gathered to be sent and bytes received but not yet understood. Lies in raw
/// memory; `release` ends it. A plain socket: one of libzmq for each client would cost many times what is to be
/// measured.
struct Link {
    enum State: UInt8 {
        case down
        /// TCP is on its way.
        case connecting
        /// Waits for the server's ZMTP greeting.
        case greeting
        /// Waits for the server's READY.
        case handshake
        case up
    }

    enum ReceiveOutcome { case nothing, received, lost }

    private(set) var file: Int32 = -1
    /// In place of `file` where replicas know their clients by keys. Owned.
    private var encrypted: Unmanaged<CurveConnection>?
    var state = State.down
    var endpoint: Int
    var input = ByteQueue()
    var output = ByteQueue()
    private var waitsForRoom = false
    var isDirty = false
    /// By CURVE: has something to receive, and no event tells of it.
    var isUnsignalled = false
    /// It was up before.
    var hasStood = false
    /// Nanoseconds before which no connection is attempted.
    var retryAt: UInt64 = 0
    var redirectedAt: UInt64 = 0
    /// Nanoseconds at which the replica began to answer NO_LEADER and nothing else; 0 when it did not.
    var leaderlessSince: UInt64 = 0
    /// Nanoseconds at which the connection was begun, or something last came over it.
    var lastHeard: UInt64 = 0

    /// Greeting and READY, sent at once: a server reads the one, then the other.
    static let opening = Codec.greeting + Codec.ready("DEALER")
    /// Bytes of the queues to begin with: many replies are to come with one call.
    private static let queueSize = 16 << 10

    init(endpoint: Int) {
        self.endpoint = endpoint
        _ = input.reserve(Link.queueSize)
        _ = output.reserve(Link.queueSize)
    }

    mutating func release() {
        disconnect()
        input.release()
        output.release()
    }

    /// Begins a connection without waiting for it; false when it fails at once.
    mutating func connect(to endpoint: Endpoint, number: Int, poller: borrowing Epoll, now: UInt64) -> Bool {
        invariant(file < 0, "a link connects only when it is down")
        file = endpoint.makeSocket(nonBlocking: true)
        guard file >= 0 else { return false }
        if endpoint.address.family != AF_UNIX { Link.disableNagle(file) }
        lastHeard = now
        let result = endpoint.connect(file)
        guard result == 0 || errno == EINPROGRESS else {
            disconnect()
            return false
        }
        state = result == 0 ? .greeting : .connecting
        output.append(Link.opening)
        waitsForRoom = true
        poller.add(file, number: UInt64(number), writable: true)
        return true
    }

    var curve: CurveConnection? { encrypted?.takeUnretainedValue() }

    /// The same by CURVE: the connection was begun.
    mutating func connect(_ connection: CurveConnection, number: Int, poller: borrowing Epoll, now: UInt64) {
        invariant(state == .down, "a link connects only when it is down")
        encrypted = Unmanaged.passRetained(connection)
        lastHeard = now
        state = .connecting
        for file in connection.fileDescriptors { poller.add(file, number: UInt64(number), writable: false) }
    }

    /// To be called when a connecting link becomes writable; false when the connection was refused.
    mutating func finishConnecting() -> Bool {
        var error: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(file, SOL_SOCKET, SO_ERROR, &error, &size) == 0, error == 0 else { return false }
        state = .greeting
        return true
    }

    mutating func disconnect() {
        if file >= 0 { Glibc.close(file) }
        file = -1
        encrypted?.release()
        encrypted = nil
        state = .down
        waitsForRoom = false
        leaderlessSince = 0
        input.removeAll()
        output.removeAll()
    }

    /// Reads once what is there.
    mutating func receive() -> ReceiveOutcome {
        let place = input.reserve(4 << 10)
        let count = recv(file, place, input.room, 0)
        if count > 0 {
            input.commit(count)
            return .received
        }
        return count < 0 && (errno == EAGAIN || errno == EINTR) ? .nothing : .lost
    }

    /// Sends what has gathered, as much as the kernel takes; the rest goes when there is room again. False when the
    /// connection is lost.
    mutating func flush(number: Int, poller: borrowing Epoll) -> Bool {
        while !output.isEmpty {
            let count = send(file, output.bytes.baseAddress, output.count, Int32(MSG_NOSIGNAL))
            if count > 0 {
                output.remove(count)
            } else if errno == EINTR {
                continue
            } else if errno == EAGAIN {
                break
            } else {
                return false
            }
        }
        if output.isEmpty == waitsForRoom {
            waitsForRoom = !output.isEmpty
            poller.watch(file, number: UInt64(number), writable: waitsForRoom)
        }
        return true
    }

    private static func disableNagle(_ file: Int32) {
        var one: Int32 = 1
        // Without it requests are merely later: a failure is no reason to stop.
        _ = setsockopt(file, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    }
}
