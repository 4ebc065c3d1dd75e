import MPaxosConsensus
import MPaxosInvariants

/// One frame between replicas: a `PeerHeader` and, for some kinds, a payload behind it.
///
/// A message of the core takes all its fields in the header; the bytes of its batch are the payload, whose length and
/// checksum are those of the batch's handle. The handle's offset is local and does not travel: a decoded message has
/// offset 0 until the receiver has copied the bytes into its own arena.
///
/// | field | message | FORWARD | DIGEST |
/// |---|---|---|---|
/// | kind | `Message.Kind` | 0x80 | 0x86 |
/// | flags | `Message.Flags` | 0 | 0 |
/// | payload checksum | CRC32C of the batch | CRC32C of the records | 0 |
/// | small | 0 | 0 | 0 |
/// | numbers | five, as below | view known, 0, 0, 0, 0 | instance executed, digest, 0, 0, 0 |
///
/// The numbers of a message are view, instance, bound, commit, and acceptedView or round; of FORWARD the newest view
/// that the sender knows; of DIGEST the last instance that it executed, and the digest of its state after that.
///
/// Frames of a state transfer are described at `TransferMessage`, those of the link at `LinkFrame`, those of the
/// handshake at `Handshake`.
package struct PeerFrame: BitwiseCopyable {
    package enum Content: BitwiseCopyable {
        /// A message of the core. When it `carriesBatch`, the payload is the batch's bytes, not yet checked against
        /// `batch.checksum`.
        case message(Message)
        /// A run of command records for the leader, not yet checked against `checksum`. `view` is the newest that the
        /// sender knows.
        case forward(view: View, checksum: UInt32)
        /// Where the sender's state stands, or stood: with the same instances executed the digests of sound states are
        /// equal.
        case digest(DigestComparison.Standing)
        /// Of a state transfer. A chunk's payload is not yet checked.
        case transfer(TransferMessage)
        /// Of the link itself.
        case link(LinkFrame)
        /// A frame of the handshake: to be read with `Handshake(header:payload:)`.
        case handshake(PeerHeader)
    }

    /// The sender's index, by its own word.
    package let sender: ReplicaIndex
    package let content: Content
    /// Inside the frame that was decoded: valid as long as its bytes are.
    package let payload: UnsafeRawBufferPointer

    private static let forwardKind: UInt8 = 0x80
    private static let digestKind: UInt8 = 0x86
    private static let largestReplicaCount = 9

    // MARK: Encoding

    /// Size of the whole frame of `message`, in bytes.
    package static func size(of message: Message) -> Int {
        PeerHeader.size + (message.carriesBatch ? Int(message.batch.length) : 0)
    }

    /// Writes the 64-byte header of `message` at `bytes`; the caller puts the `message.batch.length` bytes of the batch
    /// behind it when the message carries one.
    package static func encodeHeader(
        of message: Message, sender: ReplicaIndex, into bytes: UnsafeMutableRawPointer
    ) {
        invariant(sender >= 0 && sender < largestReplicaCount, "a replica's index is below 9")
        let batch = message.carriesBatch ? message.batch : .noop
        invariant(batch.length > 0 || batch.checksum == 0, "a no-op has no checksum")
        PeerHeader(
            kind: message.kind.rawValue, sender: UInt8(sender), flags: message.flags.rawValue,
            payloadCount: batch.length, payloadChecksum: batch.checksum, message.view, message.instance, message.bound,
            message.commit, message.acceptedView
        ).encode(into: bytes)
    }

    /// Writes the whole frame of `message` at `bytes`, which has room for `size(of: message)`.
    package static func encode(
        _ message: Message, sender: ReplicaIndex, batch: UnsafeRawBufferPointer, into bytes: UnsafeMutableRawPointer
    ) {
        encodeHeader(of: message, sender: sender, into: bytes)
        guard message.carriesBatch else { return }
        invariant(batch.count == Int(message.batch.length), "the bytes are those of the message's batch")
        if let source = batch.baseAddress {
            (bytes + PeerHeader.size).copyMemory(from: source, byteCount: batch.count)
        }
    }

    /// Writes the 64-byte header of a FORWARD at `bytes`; a run of `count` bytes of command records belongs behind it.
    package static func encodeForwardHeader(
        count: Int, checksum: UInt32, view: View, sender: ReplicaIndex, into bytes: UnsafeMutableRawPointer
    ) {
        invariant(sender >= 0 && sender < largestReplicaCount, "a replica's index is below 9")
        invariant(count > 0 && count <= Int(UInt32.max), "a forward carries at least one record")
        PeerHeader(
            kind: forwardKind, sender: UInt8(sender), payloadCount: UInt32(truncatingIfNeeded: count),
            payloadChecksum: checksum, view
        ).encode(into: bytes)
    }

    /// Writes a DIGEST, 64 bytes, at `bytes`.
    package static func encode(
        _ standing: DigestComparison.Standing, sender: ReplicaIndex, into bytes: UnsafeMutableRawPointer
    ) {
        invariant(sender >= 0 && sender < largestReplicaCount, "a replica's index is below 9")
        PeerHeader(kind: digestKind, sender: UInt8(sender), standing.executed, standing.value).encode(into: bytes)
    }

    /// Writes the 64-byte header of a frame of a state transfer at `bytes`; the `payloadCount` bytes of a chunk belong
    /// behind it.
    package static func encodeHeader(
        of message: TransferMessage, payloadCount: Int = 0, sender: ReplicaIndex, into bytes: UnsafeMutableRawPointer
    ) {
        invariant(sender >= 0 && sender < largestReplicaCount, "a replica's index is below 9")
        invariant((0...TransferMessage.chunkSize).contains(payloadCount), "a chunk has no more bytes than may be")
        message.header(sender: UInt8(sender), payloadCount: UInt32(payloadCount)).encode(into: bytes)
    }

    // MARK: Decoding

    /// Reads a whole frame, of any alignment, trusting nothing in it. What is valid here is what a correct replica of
    /// this version may send; whether the values make sense is for the core to judge.
    package init(decoding frame: UnsafeRawBufferPointer) throws(PeerFrameError) {
        let header = try PeerHeader(decoding: frame)
        guard header.sender < PeerFrame.largestReplicaCount else { throw .field }
        sender = ReplicaIndex(header.sender)
        payload = UnsafeRawBufferPointer(rebasing: frame[PeerHeader.size...])
        if let kind = Message.Kind(rawValue: header.kind) {
            content = .message(try PeerFrame.message(kind, header))
        } else if header.kind == PeerFrame.forwardKind {
            let rest = (header.numbers.1 | header.numbers.2) | (header.numbers.3 | header.numbers.4)
            guard header.flags == 0, header.small == 0, rest == 0, header.payloadCount > 0 else { throw .field }
            content = .forward(view: header.numbers.0, checksum: header.payloadChecksum)
        } else if header.kind == PeerFrame.digestKind {
            let (executed, value, a, b, c) = header.numbers
            guard header.flags == 0, header.small == 0, (a | b | c) == 0, header.payloadCount == 0,
                header.payloadChecksum == 0
            else { throw .field }
            content = .digest(.init(executed: executed, value: value))
        } else if TransferMessage.kinds.contains(header.kind) {
            content = .transfer(try TransferMessage(header: header))
        } else if LinkFrame.kinds.contains(header.kind) {
            content = .link(try LinkFrame(header: header))
        } else if header.kind >= Handshake.firstKind {
            content = .handshake(header)
        } else {
            throw .unknownKind
        }
    }

    private static func message(
        _ kind: Message.Kind, _ header: PeerHeader
    ) throws(PeerFrameError) -> Message {
        let rules = FieldRules(kind, flags: Message.Flags(rawValue: header.flags))
        let (view, instance, bound, commit, acceptedView) = header.numbers
        guard header.flags & ~rules.flags.rawValue == 0, header.small == 0,
            rules.uses(.instance) || instance == 0, rules.uses(.bound) || bound == 0,
            rules.uses(.commit) || commit == 0, rules.uses(.acceptedView) || acceptedView == 0,
            rules.uses(.batch) || header.payloadCount == 0,
            header.payloadCount > 0 || header.payloadChecksum == 0
        else { throw .field }
        return Message(
            kind: kind, flags: Message.Flags(rawValue: header.flags), view: view, instance: instance, bound: bound,
            commit: commit, acceptedView: acceptedView,
            batch: Batch(offset: 0, length: header.payloadCount, checksum: header.payloadChecksum))
    }
}

/// Which fields of a message a kind uses; the others are zero on the wire. The meaning is in `Consensus.Message`.
private struct FieldRules {
    struct Fields: OptionSet {
        let rawValue: UInt8
        static let instance = Fields(rawValue: 1)
        static let bound = Fields(rawValue: 2)
        static let commit = Fields(rawValue: 4)
        static let acceptedView = Fields(rawValue: 8)
        static let batch = Fields(rawValue: 16)
    }

    let fields: Fields
    let flags: Message.Flags

    init(_ kind: Message.Kind, flags given: Message.Flags) {
        switch kind {
        case .preVote: (fields, flags) = (.commit, [])
        case .preVoteGrant: (fields, flags) = ([], [])
        case .prepare: (fields, flags) = (.instance, [])
        case .promise where given.contains(.last): (fields, flags) = ([.bound, .commit], .last)
        case .promise: (fields, flags) = ([.instance, .bound, .commit, .acceptedView, .batch], .more)
        case .accept: (fields, flags) = ([.instance, .bound, .commit, .acceptedView, .batch], [])
        case .accepted: (fields, flags) = ([.instance, .bound, .commit, .acceptedView], .gapOrFull)
        case .heartbeat: (fields, flags) = ([.instance, .bound, .commit, .acceptedView], .quiet)
        case .catchUpRequest: (fields, flags) = ([.instance, .bound], [])
        case .decided: (fields, flags) = ([.instance, .commit, .batch], .last)
        case .belowFloor: (fields, flags) = ([.instance, .commit], [])
        case .nack: (fields, flags) = (.commit, [])
        }
    }

    func uses(_ field: Fields) -> Bool { fields.contains(field) }
}
