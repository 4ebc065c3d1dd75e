/// What the two ends of a link say to each other about the link itself, apart from what replicas have to say.
///
/// A frame whose payload is large travels as a *parcel*: its payload in pieces, between which other frames may go, and
/// then a DELIVER, which carries the frame's own header. Parcels are numbered by their sender; the pieces of one come
/// in order, those of several may alternate. A MARK is returned as an ECHO at once: what was sent before it has
/// arrived.
///
/// | kind | | numbers | payload |
/// |---|---|---|---|
/// | 0x90 | piece | parcel, offset, size of the whole payload, 0, 0 | the bytes from `offset` on |
/// | 0x91 | deliver | parcel, 0, 0, 0, 0 | the header of the frame whose payload the parcel is |
/// | 0x92 | mark | stamp, 0, 0, 0, 0 | |
/// | 0x93 | echo | stamp, 0, 0, 0, 0 | |
///
/// The bytes of a piece have no checksum of their own: that of the frame's payload covers them.
package enum LinkFrame: BitwiseCopyable, Hashable, Sendable {
    case piece(parcel: UInt64, offset: UInt64, size: UInt64)
    case deliver(parcel: UInt64)
    case mark(stamp: UInt64)
    case echo(stamp: UInt64)

    static let pieceKind: UInt8 = 0x90
    static let deliverKind: UInt8 = 0x91
    static let markKind: UInt8 = 0x92
    static let echoKind: UInt8 = 0x93
    static let kinds = pieceKind...echoKind

    /// Writes the 64-byte header of a frame that says this; `payloadCount` bytes belong behind it.
    package func encodeHeader(payloadCount: Int = 0, sender: Int, into bytes: UnsafeMutableRawPointer) {
        let count = UInt32(payloadCount)
        let sender = UInt8(sender)
        let header =
            switch self {
            case .piece(let parcel, let offset, let size):
                PeerHeader(kind: Self.pieceKind, sender: sender, payloadCount: count, parcel, offset, size)
            case .deliver(let parcel):
                PeerHeader(kind: Self.deliverKind, sender: sender, payloadCount: count, parcel)
            case .mark(let stamp): PeerHeader(kind: Self.markKind, sender: sender, payloadCount: count, stamp)
            case .echo(let stamp): PeerHeader(kind: Self.echoKind, sender: sender, payloadCount: count, stamp)
            }
        header.encode(into: bytes)
    }

    /// Reads a header of one of `kinds`.
    init(header: PeerHeader) throws(PeerFrameError) {
        let (first, a, b, c, d) = header.numbers
        guard header.flags == 0, header.small == 0, header.payloadChecksum == 0, (c | d) == 0 else { throw .field }
        switch header.kind {
        case Self.pieceKind:
            // Not beyond what a length is written with, so that no sum of these overflows.
            guard b <= UInt64(UInt32.max), header.payloadCount > 0, a < b, UInt64(header.payloadCount) <= b - a else {
                throw .size
            }
            self = .piece(parcel: first, offset: a, size: b)
        case Self.deliverKind where (a | b) == 0:
            guard Int(header.payloadCount) == PeerHeader.size else { throw .size }
            self = .deliver(parcel: first)
        case Self.markKind where (a | b) == 0 && header.payloadCount == 0: self = .mark(stamp: first)
        case Self.echoKind where (a | b) == 0 && header.payloadCount == 0: self = .echo(stamp: first)
        default: throw .field
        }
    }
}
