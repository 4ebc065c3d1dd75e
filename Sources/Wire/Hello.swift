import MPaxosConsensus
import MPaxosInvariants

/// What replicas tell each other when they meet, and the refusal of a peer that does not belong.
///
/// The connecting replica sends HELLO. The other does not take its word for who it is: it sends CALL to where the
/// topology says that this replica listens, and only who says what was told there, in its next HELLO, is answered:
/// WELCOME, with the same content about the other, or REFUSED. No other frame of that peer is used before. Off the hot
/// path: these decode into arrays and strings.
package enum Handshake: Equatable, Sendable {
    case hello(Hello)
    case welcome(Hello)
    case refused(Refusal)
    case call(Call)

    /// Kinds in the frame header. Those of the protocol's messages are below.
    @usableFromInline package static let firstKind: UInt8 = 0xF0
    private static let helloKind: UInt8 = 0xF0
    private static let welcomeKind: UInt8 = 0xF1
    private static let refusedKind: UInt8 = 0xF2
    private static let callKind: UInt8 = 0xF3

    package struct Hello: Equatable, Sendable {
        /// Name of the cluster, at most 255 bytes.
        package var cluster: String
        package var replica: UInt16
        package var incarnation: UInt64
        /// The sender's, and the nonces of those before it, the latest first.
        package var life: Life
        package var ancestors: [UInt64]
        package var founding: Acquaintances.Founding
        package var skipping: Skipping
        /// HELLO: by which the sender tells the CALL of the replica that it connects to from those of strangers.
        package var ticket: UInt64 = 0
        /// HELLO: the challenge of the CALL that came with the ticket last; 0 before.
        package var proof: UInt64 = 0
        /// What the sender's pools were formatted for. Its members are those below.
        package var charter: Charter
        /// Of the charter and of all else that the sender's state depends on: the values say what it is that differs.
        package var fingerprint: UInt64
        /// All members of the sender's topology by ascending id, the sender included.
        package var members: [Member]

        package init(
            cluster: String, replica: UInt16, incarnation: UInt64, life: Life, ancestors: [UInt64] = [],
            founding: Acquaintances.Founding, skipping: Skipping, ticket: UInt64 = 0, proof: UInt64 = 0,
            charter: Charter, fingerprint: UInt64, members: [Member]
        ) {
            self.cluster = cluster
            self.replica = replica
            self.incarnation = incarnation
            self.life = life
            self.ancestors = ancestors
            self.founding = founding
            self.skipping = skipping
            self.ticket = ticket
            self.proof = proof
            self.charter = charter
            self.fingerprint = fingerprint
            self.members = members
        }

        /// What of it is looked at to decide whether the two may take up with each other.
        package var introduction: Acquaintances.Introduction {
            .init(
                incarnation: incarnation, life: life, ancestors: ancestors, founding: founding,
                records: members.map { .init(incarnation: $0.incarnation, life: $0.life) })
        }
    }

    package struct Member: Equatable, Sendable {
        package var id: UInt16
        /// The incarnation of that member which the sender knows and accepts; 0 when it has not met it yet.
        package var incarnation: UInt64
        /// The last life of that member of which the sender knows.
        package var life: Life
        package var peerEndpoint: String
        package var clientEndpoint: String

        package init(id: UInt16, incarnation: UInt64, life: Life, peerEndpoint: String, clientEndpoint: String) {
            self.id = id
            self.incarnation = incarnation
            self.life = life
            self.peerEndpoint = peerEndpoint
            self.clientEndpoint = clientEndpoint
        }
    }

    package struct Refusal: Equatable, Sendable {
        package enum Cause: UInt8, Sendable, BitwiseCopyable, CaseIterable {
            case version = 1
            case cluster = 2
            /// The id is not in the topology, or is the receiver's own.
            case replica = 3
            /// The members' ids differ.
            case members = 4
            /// The peer's pools are not those that this replica knows under that id.
            case incarnation = 5
            case malformed = 6
            /// The peer was formatted for something else.
            case charter = 7
            /// The sender, or the receiver, runs from pools of an earlier time, or from a copy.
            case life = 8
            /// Whoever listens at the endpoint of the replica that the sender says it is was called, and is not the
            /// sender.
            case unproven = 9
            /// One of the two skips a command that the other would execute.
            case skipping = 10
        }

        package var cause: Cause
        /// For the log of the one who is refused: both sides' values, and what to do.
        package var reason: String

        package init(_ cause: Cause, _ reason: String) {
            self.cause = cause
            self.reason = reason
        }
    }

    /// The receiver is asked whether it is the one that has sent the ticket, and is to say so by the challenge.
    package struct Call: Equatable, Sendable {
        package var ticket: UInt64
        package var challenge: UInt64

        package init(ticket: UInt64, challenge: UInt64) {
            self.ticket = ticket
            self.challenge = challenge
        }
    }

    /// Longest text in a handshake, in bytes.
    private static let longestText = 4096

    /// The whole frame. Texts beyond 4096 bytes are cut.
    package func encode(sender: UInt8, version: UInt8 = peerProtocolVersion) -> [UInt8] {
        var payload: [UInt8] = []
        let kind: UInt8
        switch self {
        case .hello(let hello):
            kind = Handshake.helloKind
            Handshake.append(hello, to: &payload)
        case .welcome(let hello):
            kind = Handshake.welcomeKind
            Handshake.append(hello, to: &payload)
        case .refused(let refusal):
            kind = Handshake.refusedKind
            payload.append(refusal.cause.rawValue)
            Handshake.append(refusal.reason, to: &payload)
        case .call(let call):
            kind = Handshake.callKind
            Handshake.append(call.ticket, to: &payload)
            Handshake.append(call.challenge, to: &payload)
        }
        let header = PeerHeader(
            kind: kind, sender: sender, payloadCount: UInt32(payload.count),
            payloadChecksum: payload.withUnsafeBytes(FoldedChecksum.of))
        var frame = [UInt8](repeating: 0, count: PeerHeader.size)
        frame.withUnsafeMutableBytes { header.encode(into: $0.baseAddress!, version: version) }
        return frame + payload
    }

    /// Reads the payload of a frame whose `header` was decoded and has a kind of the handshake.
    package init(header: PeerHeader, payload: UnsafeRawBufferPointer) throws(PeerFrameError) {
        guard FoldedChecksum.of(payload) == header.payloadChecksum else { throw .payloadChecksum }
        guard header.flags == 0, header.small == 0, header.numbers == (0, 0, 0, 0, 0) else { throw .field }
        var reader = PayloadReader(payload)
        switch header.kind {
        case Handshake.helloKind: self = .hello(try Handshake.hello(&reader))
        case Handshake.welcomeKind: self = .welcome(try Handshake.hello(&reader))
        case Handshake.refusedKind:
            guard let cause = Refusal.Cause(rawValue: UInt8(truncatingIfNeeded: try reader.integer(1))) else {
                throw .field
            }
            self = .refused(Refusal(cause, try reader.text()))
        case Handshake.callKind:
            self = .call(Call(ticket: try reader.integer(8), challenge: try reader.integer(8)))
        default: throw .unknownKind
        }
        guard reader.isAtEnd else { throw .size }
    }

    private static func hello(_ reader: inout PayloadReader) throws(PeerFrameError) -> Hello {
        let cluster = try reader.text()
        guard cluster.utf8.count <= 255 else { throw .field }
        let replica = UInt16(truncatingIfNeeded: try reader.integer(2))
        let incarnation = try reader.integer(8)
        let life = try Handshake.life(&reader)
        let ancestorCount = Int(try reader.integer(1))
        guard incarnation != 0, life.isSound, ancestorCount <= Life.mostAncestors else { throw .field }
        var ancestors: [UInt64] = []
        for _ in 0..<ancestorCount { ancestors.append(try reader.integer(8)) }
        let word = UInt8(truncatingIfNeeded: try reader.integer(1))
        guard let founding = Acquaintances.Founding(rawValue: word) else { throw .field }
        let skipping = try Handshake.skipping(&reader)
        let (ticket, proof) = (try reader.integer(8), try reader.integer(8))
        let fingerprint = try reader.integer(8)
        let (maxRequest, sessions, stateSize) = (try reader.integer(8), try reader.integer(8), try reader.integer(8))
        let machineVersion = Int64(bitPattern: try reader.integer(8))
        let machine = try reader.text()
        let count = Int(try reader.integer(1))
        guard count <= Charter.mostMembers else { throw .field }
        var members: [Member] = []
        members.reserveCapacity(count)
        for _ in 0..<count {
            let id = UInt16(truncatingIfNeeded: try reader.integer(2))
            let (known, life) = (try reader.integer(8), try Handshake.life(&reader))
            let peer = try reader.text()
            members.append(
                Member(
                    id: id, incarnation: known, life: life, peerEndpoint: peer, clientEndpoint: try reader.text()))
        }
        let charter = Charter(
            members: members.map(\.id), maxRequest: maxRequest, sessions: sessions, stateSize: stateSize,
            machine: machine, machineVersion: machineVersion)
        guard charter.isSound else { throw .field }
        return Hello(
            cluster: cluster, replica: replica, incarnation: incarnation, life: life, ancestors: ancestors,
            founding: founding, skipping: skipping, ticket: ticket, proof: proof, charter: charter,
            fingerprint: fingerprint, members: members)
    }

    private static func skipping(_ reader: inout PayloadReader) throws(PeerFrameError) -> Skipping {
        let position = try reader.integer(8)
        let count = Int(try reader.integer(1))
        guard count <= Skipping.mostNamed else { throw .field }
        var named: [UInt64] = []
        for _ in 0..<count { named.append(try reader.integer(8)) }
        return Skipping(position: position, named: named)
    }

    private static func life(_ reader: inout PayloadReader) throws(PeerFrameError) -> Life {
        Life(bootCount: try reader.integer(8), nonce: try reader.integer(8))
    }

    private static func append(_ hello: Hello, to payload: inout [UInt8]) {
        invariant(hello.charter.members == hello.members.map(\.id), "the members are those of the charter")
        invariant(hello.cluster.utf8.count <= 255, "a cluster's name has at most 255 bytes")
        append(hello.cluster, to: &payload)
        append(hello.replica, to: &payload)
        append(hello.incarnation, to: &payload)
        append(hello.life, to: &payload)
        invariant(hello.ancestors.count <= Life.mostAncestors, "a replica names so many of its lives at most")
        payload.append(UInt8(hello.ancestors.count))
        for nonce in hello.ancestors { append(nonce, to: &payload) }
        payload.append(hello.founding.rawValue)
        invariant(hello.skipping.named.count <= Skipping.mostNamed, "a replica skips so many commands at most")
        append(hello.skipping.position, to: &payload)
        payload.append(UInt8(hello.skipping.named.count))
        for position in hello.skipping.named { append(position, to: &payload) }
        append(hello.ticket, to: &payload)
        append(hello.proof, to: &payload)
        append(hello.fingerprint, to: &payload)
        for word in [hello.charter.maxRequest, hello.charter.sessions, hello.charter.stateSize] {
            append(word, to: &payload)
        }
        append(hello.charter.machineVersion, to: &payload)
        append(hello.charter.machine, to: &payload)
        payload.append(UInt8(hello.members.count))
        for member in hello.members {
            append(member.id, to: &payload)
            append(member.incarnation, to: &payload)
            append(member.life, to: &payload)
            append(member.peerEndpoint, to: &payload)
            append(member.clientEndpoint, to: &payload)
        }
    }

    private static func append<T: FixedWidthInteger>(_ value: T, to payload: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { payload.append(contentsOf: $0) }
    }

    private static func append(_ life: Life, to payload: inout [UInt8]) {
        append(life.bootCount, to: &payload)
        append(life.nonce, to: &payload)
    }

    private static func append(_ text: String, to payload: inout [UInt8]) {
        // Cut between characters: half of one would be no text.
        var bytes = text.utf8.prefix(longestText)
        while bytes.endIndex < text.utf8.endIndex, text.utf8[bytes.endIndex] & 0xC0 == 0x80 { bytes.removeLast() }
        append(UInt16(bytes.count), to: &payload)
        payload.append(contentsOf: bytes)
    }

    private struct PayloadReader {
        let bytes: UnsafeRawBufferPointer
        var at = 0

        init(_ bytes: UnsafeRawBufferPointer) {
            self.bytes = bytes
        }

        var isAtEnd: Bool { at == bytes.count }

        mutating func integer(_ size: Int) throws(PeerFrameError) -> UInt64 {
            guard bytes.count - at >= size else { throw .size }
            var value: UInt64 = 0
            for index in 0..<size { value |= UInt64(bytes[at + index]) << UInt64(8 * index) }
            at += size
            return value
        }

        /// Plain text, since it is logged.
        mutating func text() throws(PeerFrameError) -> String {
            let count = Int(try integer(2))
            guard count <= longestText, count <= bytes.count - at else { throw .size }
            let slice = bytes[at..<at + count]
            at += count
            guard let text = String(validating: slice, as: UTF8.self), text.isPlainText else { throw .field }
            return text
        }
    }
}
