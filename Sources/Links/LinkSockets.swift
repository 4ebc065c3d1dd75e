import MPaxosFrames
import MPaxosInvariants

/// The connections of which links between replicas are made, as the links see them.
///
/// To each replica of lower index this one connects, again and again; whoever wants to talk to this one, replicas of
/// higher index first of all, connects to its port. Besides, it makes a connection to another replica's port for a
/// moment, to call it back. A connection brings whole frames, in order, and loses them without a word only when it
/// ends.
///
/// A class to inherit from and not a protocol, so that the links call it without counting references. One thread.
open class LinkSockets {
    /// What has happened to the connection to a member of lower index.
    public enum Event {
        /// It was tried to connect, or an earlier connection has ended: a sign of life, no more.
        case attempted
        /// A new connection stands: frames can be sent.
        case connected
        /// The connection that was made last has ended.
        case lost
        /// Whoever listens there does not speak the protocol, or broke off.
        case handshakeFailed
        /// One of the two sides has keys, the other none. No further attempt is made before `connectAnew`.
        case mechanismsDiffer
        /// The other side does not know this one's key. No further attempt is made before `connectAnew`.
        case keyRefused
    }

    public enum Reception {
        case nothing
        case frame
        /// A message of another form than one frame. It is gone.
        case unusable
    }

    public enum Outcome {
        /// On its way: no promise that it arrives.
        case sent
        /// There is no room, or no connection yet; the frame is as before.
        case full
        /// The connection to the port has ended; the frame is as before.
        case unreachable
    }

    /// The connection to the port over which something came, by what does not depend on the sender's word.
    public struct Source {
        /// Tells the connections that stand from each other; nil where that is not known.
        public var connection: Int32?
        /// The number of the key that it was made with, the same for the life of the process; nil without keys.
        public var key: Int?

        public init(connection: Int32?, key: Int?) {
            self.connection = connection
            self.key = key
        }
    }

    /// Whether replicas have keys, by which a connection proves whose it is.
    public final let hasKeys: Bool

    /// Where the message came from that was received at the port last, and where what is sent along it goes.
    @exclusivity(unchecked) public final var route = Route.none

    public init(hasKeys: Bool) { self.hasKeys = hasKeys }

    /// Microseconds that the handshake of a connection may take: with keys it has three round trips in place of one.
    public static func handshakeTime(hasKeys: Bool) -> UInt64 { hasKeys ? 5_000_000 : 1_000_000 }

    // MARK: To a member of lower index

    /// What has happened since it was asked last; nil: nothing more.
    open func nextEvent(of member: Int) -> Event? { broken("each kind of sockets has events of its own") }

    /// Gives up the connection to the member, or the attempts to make one, and begins anew; with the next of its keys,
    /// where it has more than one.
    open func connectAnew(to member: Int) { broken("each kind of sockets connects in a way of its own") }

    open func receive(_ frame: borrowing Frame, from member: Int) -> Reception {
        broken("each kind of sockets receives in a way of its own")
    }

    /// Sends over the connection to the member. When it is sent, `frame` is empty.
    open func send(_ frame: borrowing Frame, to member: Int) -> Outcome {
        broken("each kind of sockets sends in a way of its own")
    }

    // MARK: At the port

    /// The next message from whomever; `route` is where it came from.
    open func receive(_ frame: borrowing Frame) -> Reception {
        broken("each kind of sockets receives in a way of its own")
    }

    /// Sends to whom something came from. When it is sent, `frame` is empty.
    open func send(_ frame: borrowing Frame, along route: Route) -> Outcome {
        broken("each kind of sockets sends in a way of its own")
    }

    /// Of the frame that was received at the port last.
    open func source(of frame: borrowing Frame) -> Source { broken("each kind of sockets knows sources of its own") }

    /// This connection is a member's: it is not cut off for being unknown.
    open func trust(_ source: Source) {}

    /// Ends the connection.
    open func end(_ source: Source) {}

    // MARK: Calls

    /// Begins a connection to the port of a member that is to be called back.
    /// - Parameter key: with which it came, and which it has at its port, too; nil without keys.
    /// - Returns: false when that cannot be now.
    open func beginCalls(to member: Int, key: Int?) -> Bool { broken("each kind of sockets calls in a way of its own") }

    /// Sends over that connection, as soon as it stands. What there is no room for is lost.
    open func call(_ member: Int, _ frame: borrowing Frame) {}

    /// Ends that connection.
    open func endCalls(to member: Int) {}

    // MARK: Keys

    /// Changes whenever other keys belong to members than before.
    open var keyGeneration: UInt64 { 0 }

    /// The member that the key belongs to now; nil for a key that is no member's any more.
    open func holder(ofKey key: Int?) -> Int? { nil }

    /// Whether the member has more keys than the one that it was connected to with last.
    open func hasOtherKeys(_ member: Int) -> Bool { false }

    /// Whether the key that it was connected to with last is not the member's any more.
    open func isKeyWithdrawn(of member: Int) -> Bool { false }

    /// After the last poll.
    open func close() {}
}

/// Names a connection to the port; the port gives the name.
public struct Route: Hashable, Sendable {
    /// That of no connection of a replica.
    public static let none = Route(number: 0)

    public let number: UInt64

    public init(number: UInt64) { self.number = number }
}
