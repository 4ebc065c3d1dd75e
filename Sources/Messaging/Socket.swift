import MPaxosCZeroMQ
import MPaxosFrames
import MPaxosInvariants

/// What became of a frame given to `send`.
package enum SendOutcome: UInt8, Sendable {
    /// Queued for the peer: not a promise that it arrives.
    case sent
    /// The peer's queue is full, or there is no connected peer to queue for (DEALER with `immediate`). Nothing was
    /// queued.
    case full
    /// ROUTER with `routerMandatory`: no connected peer has that routing id. Nothing was queued.
    case unreachable
    /// The context was shut down.
    case terminated
}

/// A ZeroMQ socket. Owned by one thread at a time; may be handed over before use (libzmq allows that with a memory
/// fence between, which starting a thread is).
///
/// Multi-part messages are atomic. High-water marks count whole messages, so once the first frame was accepted the
/// later ones cannot fail for want of room; they fail only when the connection ends in between. Then the message is
/// lost: stop sending its frames and count it, as one counts a message lost on the way. (libzmq takes back what was
/// queued of it. A DEALER may also drop the next message whole; a ROUTER drops the rest silently: loss, too.) A message
/// that was begun must be ended: on `.sent` with `more: true` send the next frame before anything else.
package struct Socket: ~Copyable, @unchecked Sendable {
    /// ZeroMQ's socket types that this system uses.
    package enum Kind: Sendable {
        case router, dealer, rep, req, pair

        fileprivate var type: Int32 {
            switch self {
            case .router: ZMQ_ROUTER
            case .dealer: ZMQ_DEALER
            case .rep: ZMQ_REP
            case .req: ZMQ_REQ
            case .pair: ZMQ_PAIR
            }
        }
    }

    let handle: UnsafeMutableRawPointer
    let context: Context

    /// A socket without endpoints. Its linger is 0: closing it drops what is queued, so that a stop never hangs.
    package init(_ kind: Kind, in context: Context) throws(MessagingError) {
        guard let handle = zmq_socket(context.handle, kind.type) else {
            throw MessagingError("create a \(kind) socket", code: lastError())
        }
        var linger: Int32 = 0
        invariant(
            zmq_setsockopt(handle, ZMQ_LINGER, &linger, MemoryLayout<Int32>.size) == 0, "every socket takes a linger")
        self.handle = handle
        self.context = context
    }

    deinit { zmq_close(handle) }

    // MARK: Endpoints

    /// Listens at `endpoint`.
    package borrowing func bind(_ endpoint: String) throws(MessagingError) {
        if zmq_bind(handle, endpoint) != 0 { throw MessagingError("bind", endpoint: endpoint, code: lastError()) }
    }

    /// Connects to `endpoint`, and again whenever the connection ends. Returns before it is made.
    package borrowing func connect(_ endpoint: String) throws(MessagingError) {
        if zmq_connect(handle, endpoint) != 0 {
            throw MessagingError("connect to", endpoint: endpoint, code: lastError())
        }
    }

    /// Connects to `endpoint` anew: libzmq gives up for good on whoever has once broken its protocol, though it be
    /// another process than the one that listens there now.
    package borrowing func connectAnew(to endpoint: String) {
        // Where it has given up there is nothing to end; and an endpoint that was connected to before is a good one.
        zmq_disconnect(handle, endpoint)
        zmq_connect(handle, endpoint)
    }

    /// Ends the connection to `endpoint`, and with it what is queued for it.
    package borrowing func disconnect(_ endpoint: String) throws(MessagingError) {
        if zmq_disconnect(handle, endpoint) != 0 {
            throw MessagingError("disconnect from", endpoint: endpoint, code: lastError())
        }
    }

    /// Stops listening at `endpoint`, as `lastEndpoint` spells it.
    package borrowing func unbind(_ endpoint: String) throws(MessagingError) {
        if zmq_unbind(handle, endpoint) != 0 { throw MessagingError("unbind", endpoint: endpoint, code: lastError()) }
    }

    /// The endpoint last bound or connected, wildcards resolved: the port that "tcp://127.0.0.1:*" became.
    package var lastEndpoint: String {
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
            var size = buffer.count
            guard zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, buffer.baseAddress, &size) == 0, size > 0 else { return "" }
            return String(decoding: buffer[0..<(size - 1)], as: UTF8.self)
        }
    }

    /// Ends the watch of the socket's monitor, which gets to know it as `.stopped`.
    package borrowing func stopMonitoring() {
        zmq_socket_monitor(handle, nil, 0)
    }

    // MARK: Frames

    /// Receives the next frame into `frame`, without waiting. False: nothing there (or the context was shut down); what
    /// `frame` held is gone either way.
    package borrowing func receive(_ frame: borrowing Frame) -> Bool {
        while true {
            if zmq_msg_recv(frame.message, handle, ZMQ_DONTWAIT) >= 0 { return true }
            let code = lastError()
            if code == EINTR { continue }
            if code == EAGAIN || code == czmq_ETERM { return false }
            failed("receive", code)
        }
    }

    /// Receives and drops what is left of the message that `frame` is a part of. The number of frames dropped.
    @discardableResult
    package borrowing func skipRest(of frame: borrowing Frame) -> Int {
        var dropped = 0
        while frame.hasMore && receive(frame) { dropped += 1 }  // the parts of a message arrive together
        return dropped
    }

    /// Queues `frame`, without waiting. When `.sent` the frame is empty afterwards, else it is as before.
    package borrowing func send(_ frame: borrowing Frame, more: Bool) -> SendOutcome {
        let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
        while true {
            if zmq_msg_send(frame.message, handle, flags) >= 0 { return .sent }
            let code = lastError()
            if code == EAGAIN, isWritableAfterAll { continue }
            if let outcome = outcome(code) { return outcome }
        }
    }

    /// Queues a copy of `bytes`, without waiting.
    package borrowing func send(copying bytes: UnsafeRawBufferPointer, more: Bool) -> SendOutcome {
        let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
        while true {
            if zmq_send(handle, bytes.baseAddress, bytes.count, flags) >= 0 { return .sent }
            let code = lastError()
            if code == EAGAIN, isWritableAfterAll { continue }
            if let outcome = outcome(code) { return outcome }
        }
    }

    /// A send that does not wait looks at news of the socket (a new connection, room in a queue) once a millisecond
    /// only, and so may fail for a reason that has gone. Asking for the events makes libzmq look. Always false for a
    /// ROUTER, which is writable whatever its peers are.
    private var isWritableAfterAll: Bool {
        var kind: Int32 = 0
        var size = MemoryLayout<Int32>.size
        guard zmq_getsockopt(handle, ZMQ_TYPE, &kind, &size) == 0, kind != ZMQ_ROUTER else { return false }
        return pollEvents.writable
    }

    /// Nil: interrupted by a signal, try again.
    private borrowing func outcome(_ code: Int32) -> SendOutcome? {
        switch code {
        case EINTR: return nil
        case EAGAIN: return .full
        case EHOSTUNREACH: return .unreachable
        case czmq_ETERM: return .terminated
        default: failed("send", code)
        }
    }

    /// EFSM (REQ and REP out of turn), ENOTSOCK, EFAULT and the like: a defect of the caller, never of a peer.
    private borrowing func failed(_ operation: String, _ code: Int32) -> Never {
        halt("\(operation) on a socket at \(lastEndpoint): \(String(cString: zmq_strerror(code)))")
    }

    /// What poll(2) or epoll may watch. Edge-triggered: readable means "look at `pollEvents`", and after every receive
    /// or send the look must be repeated. `Poller` does this by itself.
    package var fileDescriptor: Int32 {
        var descriptor: Int32 = -1
        var size = MemoryLayout<Int32>.size
        invariant(zmq_getsockopt(handle, ZMQ_FD, &descriptor, &size) == 0, "a socket has a file descriptor")
        return descriptor
    }

    /// Whether a receive, and a send, would succeed now. Both false after a shutdown.
    package var pollEvents: (readable: Bool, writable: Bool) {
        var events: Int32 = 0
        var size = MemoryLayout<Int32>.size
        while zmq_getsockopt(handle, ZMQ_EVENTS, &events, &size) != 0 {
            if lastError() != EINTR { return (false, false) }
        }
        return (events & ZMQ_POLLIN != 0, events & ZMQ_POLLOUT != 0)
    }

    // MARK: Options

    borrowing func set(_ option: Int32, to value: Int32, named name: String) throws(MessagingError) {
        var value = value
        if zmq_setsockopt(handle, option, &value, MemoryLayout<Int32>.size) != 0 {
            throw MessagingError("set \(name) to \(value)", code: lastError())
        }
    }

    borrowing func set(_ option: Int32, toWide value: Int64, named name: String) throws(MessagingError) {
        var value = value
        if zmq_setsockopt(handle, option, &value, MemoryLayout<Int64>.size) != 0 {
            throw MessagingError("set \(name) to \(value)", code: lastError())
        }
    }

    borrowing func set(_ option: Int32, toBytes bytes: [UInt8], named name: String) throws(MessagingError) {
        if zmq_setsockopt(handle, option, bytes, bytes.count) != 0 {
            throw MessagingError("set \(name)", code: lastError())
        }
    }
}
