import MPaxosInvariants
import MPaxosWire

/// Where a gateway's requests come from and its replies go: the asynchronous REP side of ZeroMQ's request-reply pattern
/// (RFC 28).
///
/// A class to inherit from and not a protocol, so that the gateway calls it without counting references. One thread.
open class ClientPort {
    public enum Reception {
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
    @exclusivity(unchecked) package final var header = ClientPort.nothing
    @exclusivity(unchecked) package final var body = ClientPort.nothing

    /// What the client may do whose request was received last.
    @exclusivity(unchecked) package final var permission = Permission.all

    package static var nothing: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }

    public init() {}

    /// Whether `receive` may find something.
    open func isReady(now: UInt64) -> Bool { broken("each kind of port has a method of its own") }

    /// Whether there is more to receive, though `receive` found nothing: enough for one turn.
    open var hasMore: Bool { false }

    /// While a port is held, requests stay where they are, and wake nobody.
    open func hold(_ isHeld: Bool) {}

    /// The next request, its envelope packed into `envelope`.
    open func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
        broken("each kind of port has a method of its own")
    }

    /// Takes a reply in, to whom the packed envelope says; false when the client is gone or does not read.
    /// - Parameter header: a `ReplyHeader`, encoded.
    open func reply(
        to envelope: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer
    ) -> Bool { broken("each kind of port has a method of its own") }

    /// Requests of the connection in the envelope that are admitted and not answered; 0 where connections are not told
    /// apart.
    open func outstanding(of envelope: UnsafeRawBufferPointer) -> Int { 0 }

    /// Counts a request of the connection in the envelope as outstanding, and as answered.
    open func admitted(_ envelope: UnsafeRawBufferPointer) {}
    open func answered(_ envelope: UnsafeRawBufferPointer) {}

    /// Lets the replies go that were taken in.
    open func flush() {}

    /// Ends what the port has begun besides, after the last poll.
    open func close() {}

    /// Microseconds at which the port wants to be looked at though nothing arrives.
    open var nextDeadline: UInt64 { .max }
}

/// What a client may ask for, by the role of its key.
package enum Permission: UInt8, Comparable {
    /// Its key was withdrawn.
    case none
    /// STATUS, PING and QUERY.
    case read
    /// Besides, OPEN, SUBMIT and CLOSE.
    case write
    case all

    package static func < (a: Permission, b: Permission) -> Bool { a.rawValue < b.rawValue }
}
