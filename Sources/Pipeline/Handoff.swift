import MPaxosConsensus
import MPaxosFrames
import MPaxosQueues

// What travels through the rings between stages: fixed-size plain values. Bodies of requests and replies lie in a ring
// of bytes beside, and whoever takes the value out releases the place. A peer's frame travels as the 64 bytes of its
// zmq_msg_t (`RawFrame`), so that handing it over copies no batch; whoever takes it out owns it.

/// Where a body lies: in a ring of bytes, which it is released to.
struct Body: BitwiseCopyable {
    /// Nil when it is empty.
    let place: UnsafeRawPointer?
    let count: Int

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: place, count: count) }

    /// - Parameter isOutside: in memory of its own, so that it can be taken back.
    init(copying bytes: UnsafeRawBufferPointer, into ring: ByteRing, isOutside: Bool = false) {
        place = bytes.isEmpty ? nil : isOutside ? ring.pushOutside(bytes) : ring.push(bytes)
        count = bytes.count
    }

    func release(to ring: ByteRing) {
        if let place { ring.release(place, count) }
    }

    func takeBack(from ring: ByteRing) {
        if let place { ring.takeBack(place, count) }
    }
}

/// A request that the gateway admitted and that must be ordered. Gateway to engine.
struct Submission: BitwiseCopyable {
    var kind: UInt8
    var tag: UInt64
    var session: UInt64
    var sequence: UInt64
    /// In `Rings.bodies`.
    var body: Body
}

/// A query to be answered from this replica's own state, at once. Gateway to executor.
struct LocalQuery: BitwiseCopyable {
    var tag: UInt64
    /// The state must have reached this position, else the answer is BUSY.
    var position: UInt64
    /// In `Rings.queryBodies`.
    var body: Body
}

/// The answer to a request. Executor to gateway.
struct Completion: BitwiseCopyable {
    var tag: UInt64
    var status: UInt8
    var session: UInt64
    var position: UInt64
    /// In `Rings.replyBodies`.
    var body: Body
}

/// A decided batch to execute. Engine to executor. The bytes lie in the acceptor pool's arena, where they stay until
/// the executor has published an executed instance at or above this one.
package struct DecidedBatch: BitwiseCopyable {
    var instance: UInt64
    var bytes: UnsafeRawPointer?
    var count: Int

    package init(instance: UInt64, bytes: UnsafeRawPointer?, count: Int) {
        self.instance = instance
        self.bytes = bytes
        self.count = count
    }
}

/// Something that came from a peer. Links to engine.
package struct Arrival: BitwiseCopyable {
    package enum Kind: UInt8, BitwiseCopyable {
        /// A frame of the replication protocol.
        case frame
        /// The link is up and both sides know each other; `incarnation` and `life` are the peer's, seen for the first
        /// time or again.
        case connected
        /// A peer has met a later life of another replica than this one has.
        case hearsay
        /// A replica on pools of an earlier time was refused, and `life` is its; `Life.none`: not any more.
        case refused
        /// The record of all members is whole.
        case whole
        /// Those of all members are, and are the same: this replica may vote from here on.
        case founded
    }

    package var kind: Kind
    package var peer: UInt8
    package var incarnation: UInt64
    package var life: Life
    package var frame: RawFrame

    /// What one frame can lead to: itself, and hearsay about every member. While the ring has not so much room the
    /// links receive nothing.
    package static let most = 16

    package init(kind: Kind, peer: UInt8, incarnation: UInt64, life: Life, frame: RawFrame) {
        self.kind = kind
        self.peer = peer
        self.incarnation = incarnation
        self.life = life
        self.frame = frame
    }
}

/// A frame for one or more peers. Engine to links.
package struct Departure: BitwiseCopyable {
    /// Bit i: send to the replica with index i.
    package var peers: UInt16
    package var frame: RawFrame
}
