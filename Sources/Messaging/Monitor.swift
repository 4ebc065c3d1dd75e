import MPaxosCZeroMQ
import MPaxosFrames
import MPaxosInvariants
import Synchronization

/// What happens to a socket's connections, for logs and for knowing that a peer is there. Off the hot path: events are
/// strings.
///
/// Belongs to one thread, not necessarily the socket's. libzmq writes events with a blocking send from its own threads,
/// so the queue has no limit here, and two rules hold: read the events regularly, and let the monitor live as long as
/// the socket, or end it by `stop`. (A monitor dropped before its socket would block an I/O thread.)
package struct Monitor: ~Copyable, @unchecked Sendable {
    /// Something that happened to a connection or a listener.
    package enum Event: Sendable, Equatable {
        /// Listening at the endpoint.
        case listening(endpoint: String)
        /// Cannot listen there, for the errno.
        case bindFailed(endpoint: String, code: Int32)
        /// A TCP (or ipc) connection was accepted, with this file descriptor; the handshake follows.
        case accepted(endpoint: String, file: Int32)
        /// A connection could not be accepted, for the errno (say, EMFILE).
        case acceptFailed(endpoint: String, code: Int32)
        /// A connection was made, with this file descriptor; the handshake follows.
        case connected(endpoint: String, file: Int32)
        /// The connection will be tried again after so many milliseconds.
        case connectRetried(endpoint: String, milliseconds: Int)
        /// The ZMTP handshake is done: messages flow.
        case handshakeSucceeded(endpoint: String)
        /// The peer does not speak ZMTP, is of a wrong socket type, or gave up; the code is an errno or one of
        /// libzmq's.
        case handshakeFailed(endpoint: String, code: Int32)
        /// The peer has another mechanism: one side has keys, the other has none.
        case mechanismsDiffer(endpoint: String)
        /// The peer does not know this side's key.
        case keyRefused(endpoint: String)
        /// The connection ended, and its file descriptor is about to be closed.
        case disconnected(endpoint: String, file: Int32)
        /// The socket monitored is gone.
        case stopped
    }

    private let socket: Socket
    private let frame = Frame()
    private static let lastNumber = Atomic<UInt64>(0)

    /// Watches `subject` from now on: set it up before `bind` and `connect`. A socket has one monitor at a time.
    package init(of subject: borrowing Socket) throws(MessagingError) {
        // Unique within the process: the name of a monitor that was ended is taken for some time yet.
        let number = Self.lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
        let endpoint = "inproc://monitor-\(number)"
        let events =
            ZMQ_EVENT_LISTENING | ZMQ_EVENT_BIND_FAILED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED
            | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED
            | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
            | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_MONITOR_STOPPED
        if zmq_socket_monitor(subject.handle, endpoint, Int32(events)) != 0 {
            throw MessagingError("monitor", endpoint: endpoint, code: lastError())
        }
        let pair = try Socket(.pair, in: subject.context)
        try pair.setReceiveHighWaterMark(0)
        try pair.connect(endpoint)
        socket = pair
    }

    /// The next event, or nil when there is none now.
    package borrowing func next() -> Event? {
        while socket.receive(frame) {
            // Frame 1: u16 event, u32 value, native order; frame 2: the endpoint.
            invariant(frame.count >= 6 && frame.hasMore, "a monitor event has two frames")
            let event = frame.bytes.loadUnaligned(as: UInt16.self)
            let value = frame.bytes.loadUnaligned(fromByteOffset: 2, as: UInt32.self)
            guard socket.receive(frame) else { return nil }
            let endpoint = String(decoding: frame.bytes, as: UTF8.self)
            if let typed = typed(Int32(event), Int32(truncatingIfNeeded: value), endpoint) { return typed }
        }
        return nil
    }

    /// Ends the watch over `subject`, the socket that it was made for. On the socket's thread.
    package consuming func stop(_ subject: borrowing Socket) {
        zmq_socket_monitor(subject.handle, nil, 0)
    }

    /// As a socket's.
    package var fileDescriptor: Int32 { socket.fileDescriptor }

    /// Adds the monitor to a watch.
    package borrowing func add(to watch: Watch) -> Watch.Item { watch.add(socket) }

    /// Adds the monitor to a poll set.
    package borrowing func add(to poller: inout Poller) -> Int { poller.add(socket) }

    private borrowing func typed(_ event: Int32, _ value: Int32, _ endpoint: String) -> Event? {
        switch event {
        case ZMQ_EVENT_LISTENING: .listening(endpoint: endpoint)
        case ZMQ_EVENT_BIND_FAILED: .bindFailed(endpoint: endpoint, code: value)
        case ZMQ_EVENT_ACCEPTED: .accepted(endpoint: endpoint, file: value)
        case ZMQ_EVENT_ACCEPT_FAILED: .acceptFailed(endpoint: endpoint, code: value)
        case ZMQ_EVENT_CONNECTED: .connected(endpoint: endpoint, file: value)
        case ZMQ_EVENT_CONNECT_RETRIED: .connectRetried(endpoint: endpoint, milliseconds: Int(value))
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: .handshakeSucceeded(endpoint: endpoint)
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: .keyRefused(endpoint: endpoint)
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL where value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            .mechanismsDiffer(endpoint: endpoint)
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL, ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            .handshakeFailed(endpoint: endpoint, code: value)
        case ZMQ_EVENT_DISCONNECTED: .disconnected(endpoint: endpoint, file: value)
        case ZMQ_EVENT_MONITOR_STOPPED: .stopped
        default: nil
        }
    }
}

/// A monitor behind a reference, for who has one at times only.
package final class MonitorReference {
    package let monitor: Monitor

    package init(of socket: borrowing Socket) throws(MessagingError) { monitor = try Monitor(of: socket) }
}
