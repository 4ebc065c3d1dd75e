import MPaxosConsensus

/// What replicas say to each other when one takes the state of another, since no log reaches back to where it stands.
///
/// The receiver drives: it asks for a snapshot of the state, then for its chunks in order, few at a time, and asks
/// again for what was lost. All that belongs to one snapshot carries the ticket that the receiver drew for it.
///
/// | kind | | numbers | small | payload |
/// |---|---|---|---|---|
/// | 0x81 | request | ticket, decided, geometry, 0, 0 | 0 | |
/// | 0x82 | offer | ticket, executed, view, size, position | CRC32C of the snapshot | |
/// | 0x83 | ask | ticket, offset, 0, 0, 0 | 0 | |
/// | 0x84 | chunk | ticket, offset, 0, 0, 0 | 0 | bytes of the snapshot, with their CRC32C |
/// | 0x85 | refusal | ticket, 0, 0, 0, 0 | reason | |
package enum TransferMessage: BitwiseCopyable, Hashable, Sendable {
    /// "Give me your state. Mine has all up to `decided`, in a pool of this geometry."
    case request(ticket: UInt64, decided: Instance, geometry: UInt64)
    /// "Here it is."
    case offer(ticket: UInt64, Offer)
    /// "Send me the chunk that begins at `offset`." At the end of the snapshot: "I have all of it."
    case ask(ticket: UInt64, offset: UInt64)
    /// "Here it is." The payload is not yet checked against `checksum`.
    case chunk(ticket: UInt64, offset: UInt64, checksum: UInt32)
    /// "Not from me", or not yet.
    case refusal(ticket: UInt64, Refusal)

    /// A snapshot of the state after `executed`.
    package struct Offer: BitwiseCopyable, Hashable, Sendable {
        package var executed: Instance
        /// Promised by the giver: nothing in the snapshot was decided in a higher one.
        package var view: View
        /// Bytes.
        package var size: UInt64
        /// Commands executed.
        package var position: UInt64
        /// CRC32C of all of it.
        package var checksum: UInt32

        package init(executed: Instance, view: View, size: UInt64, position: UInt64, checksum: UInt32) {
            self.executed = executed
            self.view = view
            self.size = size
            self.position = position
            self.checksum = checksum
        }
    }

    package enum Refusal: UInt32, BitwiseCopyable, Sendable, CaseIterable {
        /// The snapshot is in the making: ask again.
        case notYet = 1
        /// Another replica is being given one.
        case busy = 2
        /// The giver has not executed more than the receiver has decided.
        case notFurther = 3
        /// The pools were formatted with other sizes, or by another version.
        case otherGeometry = 4
        /// The giver's file system has no room for the snapshot.
        case noRoom = 5
        /// The giver could not make or read the snapshot; its log says why.
        case failed = 6
        /// The giver knows of no snapshot with this ticket, or does not any more.
        case unknownTicket = 7
        /// The giver's state is not known to be the right one.
        case inDispute = 8

        /// For the receiver's log.
        package var reason: String {
            switch self {
            case .notYet: "its snapshot is in the making"
            case .busy: "it gives its state to another replica"
            case .notFurther: "it is no further than this one"
            case .otherGeometry:
                "its state pool has other sizes (state_size, sessions, max_request at format) or is of another version"
            case .noRoom: "its file system has no room for a snapshot of its state"
            case .failed: "it could not make or read a snapshot of its state, its log says why"
            case .unknownTicket: "it has given up on this transfer"
            case .inDispute: "its state differs from that of another replica, and no majority says which is right"
            }
        }
    }

    /// Bytes of a chunk; the last one may be shorter.
    package static let chunkSize = 256 << 10

    static let requestKind: UInt8 = 0x81
    static let offerKind: UInt8 = 0x82
    static let askKind: UInt8 = 0x83
    package static let chunkKind: UInt8 = 0x84
    static let refusalKind: UInt8 = 0x85
    static let kinds = requestKind...refusalKind

    /// The header of a frame that says this; `payloadCount` bytes belong behind it.
    func header(sender: UInt8, payloadCount: UInt32) -> PeerHeader {
        switch self {
        case .request(let ticket, let decided, let geometry):
            return PeerHeader(kind: Self.requestKind, sender: sender, ticket, decided, geometry)
        case .offer(let ticket, let offer):
            return PeerHeader(
                kind: Self.offerKind, sender: sender, small: offer.checksum, ticket, offer.executed, offer.view,
                offer.size, offer.position)
        case .ask(let ticket, let offset):
            return PeerHeader(kind: Self.askKind, sender: sender, ticket, offset)
        case .chunk(let ticket, let offset, let checksum):
            return PeerHeader(
                kind: Self.chunkKind, sender: sender, payloadCount: payloadCount, payloadChecksum: checksum, ticket,
                offset)
        case .refusal(let ticket, let refusal):
            return PeerHeader(kind: Self.refusalKind, sender: sender, small: refusal.rawValue, ticket)
        }
    }

    /// Reads a header of one of `kinds`.
    init(header: PeerHeader) throws(PeerFrameError) {
        let (ticket, a, b, c, d) = header.numbers
        guard header.flags == 0, ticket != 0 else { throw .field }
        if header.kind == Self.chunkKind {
            guard (1...UInt32(Self.chunkSize)).contains(header.payloadCount) else { throw .size }
        } else if header.payloadCount != 0 || header.payloadChecksum != 0 {
            throw .field
        }
        switch header.kind {
        case Self.requestKind where (c | d) == 0 && header.small == 0:
            self = .request(ticket: ticket, decided: a, geometry: b)
        case Self.offerKind:
            self = .offer(
                ticket: ticket, Offer(executed: a, view: b, size: c, position: d, checksum: header.small))
        case Self.askKind where (b | c | d) == 0 && header.small == 0:
            self = .ask(ticket: ticket, offset: a)
        case Self.chunkKind where (b | c | d) == 0 && header.small == 0:
            self = .chunk(ticket: ticket, offset: a, checksum: header.payloadChecksum)
        case Self.refusalKind where (a | b | c | d) == 0:
            guard let refusal = Refusal(rawValue: header.small) else { throw .field }
            self = .refusal(ticket: ticket, refusal)
        default: throw .field
        }
    }
}
