import MPaxosConsensus
import MPaxosKeyValueFormat

@testable import MPaxosWire

/// What holds of any bytes that reach the decoders of frames: what is accepted is what encodes to it, all else is
/// refused. Each says whether it was accepted. Used by the tests and by `scripts/fuzz`.
enum WireProperties {
    // MARK: Client frames: HEADER and, behind it, BODY

    static func client(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        let header = UnsafeRawBufferPointer(rebasing: input.prefix(clientHeaderSize))
        if let reply = ReplyHeader(decoding: header) {
            try hold(bytes(clientHeaderSize) { reply.encode(into: $0) }.elementsEqual(header), "a reply's header")
        }
        let limit = 64
        let examination = RequestExamination(
            frames: 2, header: header, bodySize: input.count - header.count, maxRequest: limit, replica: 7)
        switch examination {
        case .accepted(let request, let code):
            try hold(bytes(clientHeaderSize) { request.encode(into: $0) }.elementsEqual(header), "a request's header")
            try hold(request.code == code && input.count <= clientHeaderSize + limit, "a request beyond the rules")
            return true
        case .rejected(let rejection):
            var count = 0
            _ = bytes(Rejection.largestBody) { count = rejection.writeBody(into: $0) }
            try hold(count >= 4 && count <= Rejection.largestBody, "a rejection without a reason")
            return false
        }
    }

    // MARK: Peer frames

    /// The frame as it is, and with the sums repaired that keep chance from all behind them.
    static func peer(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        let plain = try peerFrame(input)
        guard input.count >= PeerHeader.size else { return plain }
        let repaired = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count, alignment: 1)
        defer { repaired.deallocate() }
        repaired.copyMemory(from: input)
        let start = repaired.baseAddress!
        start.storeInteger(peerMagic, 0)
        start.storeInteger(peerProtocolVersion, 4)
        start.storeInteger(UInt32(input.count - PeerHeader.size), 12)
        if UnsafeRawPointer(start).loadUInt8(5) >= Handshake.firstKind {
            let payload = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(repaired)[PeerHeader.size...])
            start.storeInteger(FoldedChecksum.of(payload), 16)
        }
        start.storeInteger(PeerHeader.checksum(UnsafeRawPointer(start)), 8)
        return try peerFrame(UnsafeRawBufferPointer(repaired)) || plain
    }

    private static func peerFrame(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        let again: [UInt8]
        do throws(PeerFrameError) {
            let frame = try PeerFrame(decoding: input)
            switch frame.content {
            case .message(let message):
                again = bytes(PeerFrame.size(of: message)) {
                    PeerFrame.encode(message, sender: frame.sender, batch: frame.payload, into: $0)
                }
            case .forward(let view, let checksum):
                again =
                    bytes(PeerHeader.size) {
                        PeerFrame.encodeForwardHeader(
                            count: frame.payload.count, checksum: checksum, view: view, sender: frame.sender, into: $0)
                    } + frame.payload
            case .digest(let standing):
                again = bytes(PeerHeader.size) { PeerFrame.encode(standing, sender: frame.sender, into: $0) }
            case .transfer(let message):
                again =
                    bytes(PeerHeader.size) {
                        PeerFrame.encodeHeader(
                            of: message, payloadCount: frame.payload.count, sender: frame.sender, into: $0)
                    } + frame.payload
            case .link(let link):
                again =
                    bytes(PeerHeader.size) {
                        link.encodeHeader(payloadCount: frame.payload.count, sender: frame.sender, into: $0)
                    } + frame.payload
            case .handshake(let header):
                again = try Handshake(header: header, payload: frame.payload).encode(sender: header.sender)
            }
        } catch {
            return false
        }
        try hold(again.elementsEqual(input), "a frame of kind \(input[5]) encodes to other bytes")
        return true
    }

    // MARK: Command records, as in batches and forwarded runs

    static func records(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        var records = CommandRecords(input)
        var (count, end) = (0, 0)
        while let record = records.next() {
            let again = bytes(record.size) {
                CommandRecord.write(
                    into: $0, kind: record.kind, origin: record.origin, tag: record.tag, session: record.session,
                    sequence: record.sequence, body: record.body)
            }
            try hold(again.elementsEqual(input[end..<records.offset]), "a record encodes to other bytes")
            end = records.offset
            count += 1
        }
        try hold(records.isDamaged == (end != input.count), "a run that is damaged and whole")
        try hold(CommandRecords.count(in: input) == (records.isDamaged ? nil : count), "a run is counted otherwise")
        return !records.isDamaged
    }

    // MARK: Replies of the key-value service: the operation's letter and, behind it, the reply

    static func replies(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        guard let first = input.first, let operation = KeyValueCommand.Operation(rawValue: first) else { return false }
        let reply: KeyValueReply
        do throws(KeyValueError) {
            reply = try KeyValueReply(decoding: Array(input.dropFirst()), of: operation)
        } catch {
            try hold(!error.description.isEmpty, "a refusal without a reason")
            return false
        }
        let again = encoded(reply)
        // A reason is for people: bytes that are no text are replaced.
        if case .refused = reply {
            let second = try? KeyValueReply(decoding: again, of: operation)
            try hold(second == reply, "a reply decodes to another")
        } else {
            try hold(again.elementsEqual(input.dropFirst()), "a reply of \(operation) encodes to other bytes")
        }
        return true
    }

    private static func encoded(_ reply: KeyValueReply) -> [UInt8] {
        switch reply {
        case .absent: [0]
        case .value(let value), .swapped(let value): [1] + value
        case .notSwapped(let found): [0, found == nil ? 0 : 1] + (found ?? [])
        case .length(let length): [1] + littleEndian(length)
        case .sum(let sum): [1] + littleEndian(sum)
        case .entries(let entries, let more):
            [1, more ? 1 : 0] + littleEndian(UInt32(entries.count))
                + entries.flatMap {
                    littleEndian(UInt32($0.key.count)) + $0.key + littleEndian(UInt32($0.value.count)) + $0.value
                }
        case .refused(let reason): [2] + Array(reason.utf8)
        }
    }

    private static func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// What is written into a block of so many bytes.
    private static func bytes(_ count: Int, _ write: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
        let block = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        defer { block.deallocate() }
        write(block.baseAddress!)
        return Array(block)
    }
}
