import MPaxosInvariants
import MPaxosMessaging
import MPaxosTopology
import MPaxosWire

/// Where a gateway's requests come from and its replies go: the asynchronous REP side of ZeroMQ's request-reply pattern
/// (RFC 28).
///
/// A class to inherit from and not a protocol, so that the gateway calls it without counting references. One thread.
class ClientPort {
    enum Reception {
        case nothing
        /// A request, with so many frames behind its envelope; `header` and `body` are the first two.
        case request(frames: Int)
        /// A message that asks nothing: an envelope alone, as ZMQ_PROBE_ROUTER sends it. A REP drops it silently.
        case probe
        /// A message of a client whose key was withdrawn.
        case unwelcome
        /// A message without a delimiter, or with an envelope beyond the limits: nobody to answer.
        case unanswerable
    }

    /// Of the request received last, as far as there are such frames; valid until the next is received.
    @exclusivity(unchecked) final var header = ClientPort.nothing
    @exclusivity(unchecked) final var body = ClientPort.nothing

    /// What the client may do whose request was received last, as `Role.rank`; 0: nothing, since its key was withdrawn.
    @exclusivity(unchecked) final var rank = Role.admin.rank

    static var nothing: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }

    /// Adds the port's descriptors to the lane's watch, for good.
    func register(in watch: Watch) {}

    /// Whether `receive` may find something.
    func isReady(now: UInt64) -> Bool { broken("each kind of port has a method of its own") }

    /// Whether there is more to receive, though `receive` found nothing: enough for one turn.
    var hasMore: Bool { false }

    /// While a port is held, requests stay where they are, and wake nobody.
    func hold(_ isHeld: Bool) {}

    /// The next request, its envelope packed into `envelope`.
    func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
        broken("each kind of port has a method of its own")
    }

    /// Takes a reply in, to whom the packed envelope says; false when the client is gone or does not read.
    func reply(to envelope: UnsafeRawBufferPointer, _ header: ReplyHeader, _ body: UnsafeRawBufferPointer) -> Bool {
        broken("each kind of port has a method of its own")
    }

    /// Requests of the connection in the envelope that are admitted and not answered; 0 where connections are not told
    /// apart.
    func outstanding(of envelope: UnsafeRawBufferPointer) -> Int { 0 }

    /// Counts a request of the connection in the envelope as outstanding, and as answered.
    func admitted(_ envelope: UnsafeRawBufferPointer) {}
    func answered(_ envelope: UnsafeRawBufferPointer) {}

    /// Lets the replies go that were taken in.
    func flush() {}

    /// Ends what the port has begun besides, when its lane stops.
    func close() {}

    /// Microseconds of the monotonic clock at which the port wants to be looked at though nothing arrives.
    var nextDeadline: UInt64 { .max }
}
