import Invariants
import Messaging
import Wire

/// Where a gateway's requests come from and its replies go: the asynchronous REP side of ZeroMQ's request-reply pattern
/// (RFC 28).
///
/// A class to inherit from and not a protocol, so that the gateway calls it without counting references. One thread.
class ClientPort {
    enum Reception {
        case nothing
        /// A request, with so many frames behind its envelope; `header` and `body` are the first two.
        case request(frames: Int)
        /// A message without a delimiter, or with an envelope beyond the limits: nobody to answer.
        case unanswerable
    }

    /// Of the request received last, as far as there are such frames; valid until the next is received.
    @exclusivity(unchecked) final var header = ClientPort.nothing
    @exclusivity(unchecked) final var body = ClientPort.nothing

    static var nothing: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }

    /// Adds the port's descriptors to the lane's watch, for good.
    func register(in watch: Watch) {}

    /// Whether `receive` may find something.
    func isReady(now: UInt64) -> Bool { broken("each kind of port has a method of its own") }

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

    /// Lets the replies go that were taken in.
    func flush() {}

    /// Microseconds of the monotonic clock at which the port wants to be looked at though nothing arrives.
    var nextDeadline: UInt64 { .max }
}
