import Testing

@testable import MPaxosConsensus
@testable import MPaxosWire

@Suite struct PeerFrameTests {
    static let batch = Batch(offset: 0x1234_5678, length: 5, checksum: 0xA1B2_C3D4)

    /// What the core sends, made by its own factory functions: every kind in every shape.
    static let messages: [Message] = [
        .preVote(view: 3, decided: 9),
        .preVoteGrant(view: 3),
        .prepare(view: 3, after: 9),
        .promise(view: 3, decided: 9, after: 10, instance: 12, acceptedView: 2, batch: batch, more: false),
        .promise(view: 3, decided: 9, after: 10, instance: 12, acceptedView: decidedView, batch: batch, more: true),
        .promise(view: 3, decided: 9, after: 10, instance: 12, acceptedView: 2, batch: .noop, more: false),
        .lastPromise(view: 3, decided: 9, after: 12),
        .accept(view: 3, instance: 12, base: 9, commit: 11, round: 0, batch: batch),
        .accept(view: 3, instance: 12, base: 9, commit: 11, round: 6, batch: .noop),
        .accepted(view: 3, upTo: 12, base: 9, decided: 11, round: 0, flags: .none),
        .accepted(view: 3, upTo: 12, base: 9, decided: 11, round: 6, flags: .gap),
        .accepted(view: 3, upTo: 12, base: 9, decided: 11, round: 6, flags: .full),
        .heartbeat(view: 3, highest: 12, base: 9, commit: 11, round: .max, quiet: false),
        .heartbeat(view: 3, highest: 12, base: 9, commit: 11, round: 6, quiet: true),
        .catchUpRequest(view: 3, from: 1, through: .max),
        .decided(view: 3, instance: 12, decided: 20, batch: batch, last: false),
        .decided(view: 3, instance: 12, decided: 20, batch: .noop, last: true),
        .belowFloor(view: 3, floor: 7, decided: 20),
        .nack(view: .max, decided: 20),
    ]

    /// The others have 0 there, and so has a Promise that carries no entry.
    static let usesFifthNumber: Set<Message.Kind> = [.accept, .accepted, .heartbeat]

    static func encode(_ message: Message, sender: Int = 2) -> [UInt8] {
        let bytes = [UInt8]((0..<message.batch.length).map { UInt8(truncatingIfNeeded: $0 + 1) })
        return written(PeerFrame.size(of: message)) { place in
            bytes.withUnsafeBytes { PeerFrame.encode(message, sender: sender, batch: $0, into: place) }
        }
    }

    static func decode(_ frame: [UInt8]) throws -> (sender: Int, message: Message?, payload: [UInt8]) {
        try withExactBytes(frame) { bytes in
            let frame = try PeerFrame(decoding: bytes)
            if case .message(let message) = frame.content { return (frame.sender, message, Array(frame.payload)) }
            return (frame.sender, nil, Array(frame.payload))
        }
    }

    @Test func bytesOfAPropose() {
        let frame = Self.encode(
            .accept(
                view: 0x0102, instance: 0x0304, base: 0x0506, commit: 0x0708, round: 0x090A, batch: Self.batch),
            sender: 8)
        #expect(Array(frame[0..<8]) == [0x4D, 0x50, 0x50, 0x31, 6, 5, 8, 0])
        #expect(Array(frame[12..<24]) == [5, 0, 0, 0, 0xD4, 0xC3, 0xB2, 0xA1, 0, 0, 0, 0])
        #expect(
            Array(frame[24...]) == [
                2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 6, 5, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0,
                10, 9, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5,
            ])
    }

    @Test func bytesOfAPromiseAndItsEnd() {
        let promise = Self.encode(
            .promise(view: 1, decided: 2, after: 3, instance: 4, acceptedView: .max, batch: .noop, more: true))
        #expect(Array(promise[4..<8]) == [6, 4, 2, 2])
        #expect(
            Array(promise[24...]) == [
                1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                255, 255, 255, 255, 255, 255, 255, 255,
            ])
        let last = Self.encode(.lastPromise(view: 1, decided: 2, after: 3))
        #expect(Array(last[4..<8]) == [6, 4, 2, 1])
        #expect(last.count == 64)
    }

    /// Kinds, flags and fields of every message, in the order of `messages`: kind, flags, size, the five numbers.
    @Test func everyKindKeepsItsPlaces() {
        let max = UInt64.max
        let golden: [(UInt8, UInt8, Int, [UInt64])] = [
            (1, 0, 64, [3, 0, 0, 9, 0]), (2, 0, 64, [3, 0, 0, 0, 0]), (3, 0, 64, [3, 9, 0, 0, 0]),
            (4, 0, 69, [3, 12, 10, 9, 2]), (4, 2, 69, [3, 12, 10, 9, max]), (4, 0, 64, [3, 12, 10, 9, 2]),
            (4, 1, 64, [3, 0, 12, 9, 0]), (5, 0, 69, [3, 12, 9, 11, 0]), (5, 0, 64, [3, 12, 9, 11, 6]),
            (6, 0, 64, [3, 12, 9, 11, 0]), (6, 4, 64, [3, 12, 9, 11, 6]), (6, 16, 64, [3, 12, 9, 11, 6]),
            (7, 0, 64, [3, 12, 9, 11, max]), (7, 8, 64, [3, 12, 9, 11, 6]), (8, 0, 64, [3, 1, max, 0, 0]),
            (9, 0, 69, [3, 12, 0, 20, 0]),
            (9, 1, 64, [3, 12, 0, 20, 0]), (10, 0, 64, [3, 7, 0, 20, 0]), (11, 0, 64, [max, 0, 0, 20, 0]),
        ]
        #expect(golden.count == Self.messages.count)
        #expect(Set(golden.map(\.0)) == Set(Message.Kind.allCases.map(\.rawValue)))
        for (message, (kind, flags, size, numbers)) in zip(Self.messages, golden) {
            let frame = Self.encode(message)
            #expect(frame[5] == kind && frame[7] == flags && frame.count == size, "\(message.kind)")
            let found = frame.withUnsafeBytes { bytes in
                (0..<5).map { bytes.loadUnaligned(fromByteOffset: 24 + 8 * $0, as: UInt64.self) }
            }
            #expect(found == numbers, "\(message.kind)")
        }
    }

    @Test func messagesComeBackWithoutTheirOffset() throws {
        for message in Self.messages {
            for sender in [0, 8] {
                let decoded = try Self.decode(Self.encode(message, sender: sender))
                var expected = message
                expected.batch.offset = 0
                #expect(decoded.message == expected)
                #expect(decoded.sender == sender)
                #expect(decoded.payload == (0..<message.batch.length).map { UInt8($0 + 1) })
            }
        }
    }

    @Test func forwardsComeBack() throws {
        let record = CommandRecordTests.encode(
            .init(kind: .submit, origin: 1, tag: 2, session: 3, sequence: 4, body: [1, 2, 3]))
        let frame =
            written(64) {
                PeerFrame.encodeForwardHeader(
                    count: record.count, checksum: 0x0403_0201, view: 9, sender: 1, into: $0)
            } + record
        #expect(Array(frame[4..<8]) == [6, 0x80, 1, 0])
        #expect(Array(frame[12..<32]) == [40, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
        try withExactBytes(frame) { bytes in
            let decoded = try PeerFrame(decoding: bytes)
            #expect(decoded.sender == 1 && Array(decoded.payload) == record)
            guard case .forward(let view, let checksum) = decoded.content else {
                Issue.record("not a forward")
                return
            }
            #expect(view == 9 && checksum == 0x0403_0201)
        }
    }

    @Test func digestsComeBack() throws {
        let standing = DigestComparison.Standing(executed: 0x0102, value: .max)
        let frame = written(64) { PeerFrame.encode(standing, sender: 8, into: $0) }
        #expect(Array(frame[5..<8]) == [0x86, 8, 0] && frame[12..<24].allSatisfy { $0 == 0 })
        #expect(Array(frame[24..<40]) == [2, 1, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 255, count: 8))
        try withExactBytes(frame) { bytes in
            let decoded = try PeerFrame(decoding: bytes)
            guard case .digest(let found) = decoded.content else {
                Issue.record("not a digest")
                return
            }
            #expect(decoded.sender == 8 && found == standing && decoded.payload.isEmpty)
        }
        // Fields that it does not use are zero.
        let header = try withExactBytes(frame) { try PeerHeader(decoding: $0) }
        let changes: [(inout PeerHeader) -> Void] = [
            { $0.flags = 1 }, { $0.small = 1 }, { $0.payloadChecksum = 1 }, { $0.sender = 9 }, { $0.numbers.2 = 1 },
            { $0.numbers.3 = 1 }, { $0.numbers.4 = 1 },
        ]
        for change in changes {
            var changed = header
            change(&changed)
            let forged = written(64) { changed.encode(into: $0) }
            #expect(throws: PeerFrameError.field) { try Self.decode(forged) }
        }
        let long = written(64) { PeerHeader(kind: 0x86, sender: 0, payloadCount: 8, 1, 2).encode(into: $0) }
        #expect(throws: PeerFrameError.field) { try Self.decode(long + [UInt8](repeating: 0, count: 8)) }
    }

    @Test func handshakesAreRecognised() throws {
        let frame = Handshake.refused(.init(.members, "x")).encode(sender: 4)
        try withExactBytes(frame) { bytes in
            let decoded = try PeerFrame(decoding: bytes)
            guard case .handshake(let header) = decoded.content else {
                Issue.record("not a handshake")
                return
            }
            #expect(try Handshake(header: header, payload: decoded.payload) == .refused(.init(.members, "x")))
        }
    }

    @Test func everyFlippedBitOfTheHeaderIsFound() {
        for message in Self.messages {
            let frame = Self.encode(message)
            for bit in 0..<64 * 8 {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: PeerFrameError.self, "\(message.kind), bit \(bit)") { try Self.decode(damaged) }
            }
        }
    }

    @Test func everyCutIsFound() {
        for message in Self.messages {
            let frame = Self.encode(message)
            for count in 0..<frame.count {
                #expect(throws: PeerFrameError.size) { try Self.decode(Array(frame.prefix(count))) }
            }
            #expect(throws: PeerFrameError.size) { try Self.decode(frame + [0]) }
        }
    }

    /// Headers with right checksums and wrong fields, as a replica with a defect might send them.
    @Test func fieldsThatAKindDoesNotUseMustBeZero() throws {
        for message in Self.messages {
            let good = Self.encode(message)
            let header = try withExactBytes(good) { try PeerHeader(decoding: $0) }
            let payload = Array(good[64...])
            func expectRefusal(_ error: PeerFrameError, _ change: (inout PeerHeader) -> Void) {
                var changed = header
                change(&changed)
                let frame = written(64) { changed.encode(into: $0) } + payload
                #expect(throws: error, "\(message)") { try Self.decode(frame) }
            }
            if header.numbers.1 == 0 { expectRefusal(.field) { $0.numbers.1 = 1 } }
            if header.numbers.2 == 0 { expectRefusal(.field) { $0.numbers.2 = 1 } }
            if header.numbers.3 == 0 { expectRefusal(.field) { $0.numbers.3 = 1 } }
            if !Self.usesFifthNumber.contains(message.kind) && header.numbers.4 == 0 {
                expectRefusal(.field) { $0.numbers.4 = 1 }
            }
            if payload.isEmpty { expectRefusal(.field) { $0.payloadChecksum = 1 } }
            expectRefusal(.field) { $0.small = 1 }
            expectRefusal(.field) { $0.sender = 9 }
            expectRefusal(.field) { $0.flags |= 0x20 }
            if message.kind != .accepted { expectRefusal(.field) { $0.flags |= 0x10 } }
            expectRefusal(.size) { $0.payloadCount += 1 }
            expectRefusal(.size) { $0.payloadCount = .max }
            for kind in [0, 12, 0x7F, 0x87, 0xEF] { expectRefusal(.unknownKind) { $0.kind = UInt8(kind) } }
            if !message.carriesBatch {
                let frame = written(64) { place in
                    var changed = header
                    changed.payloadCount = 8
                    changed.encode(into: place)
                }
                #expect(throws: PeerFrameError.field) { try Self.decode(frame + [0, 0, 0, 0, 0, 0, 0, 0]) }
            }
        }
    }

    @Test func forgedFramesDecodeToWhatEncodesToThem() throws {
        var random = SeededRandom(seed: 51)
        var outcomes = (good: 0, refused: 0)
        for _ in 0..<20_000 {
            var bytes = mutated(Self.encode(Self.messages.randomElement(using: &random)!), using: &random)
            if bytes.count >= 64, Bool.random(using: &random) {
                // Repair what a checksum would catch, so that the rest of the decoder is reached.
                bytes.replaceSubrange(0..<5, with: [0x4D, 0x50, 0x50, 0x31, peerProtocolVersion])
                let count = UInt32(bytes.count - 64)
                let sum = bytes.withUnsafeMutableBytes { raw in
                    raw.baseAddress!.storeInteger(count, 12)
                    return PeerHeader.checksum(UnsafeRawPointer(raw.baseAddress!))
                }
                bytes.withUnsafeMutableBytes { $0.baseAddress!.storeInteger(sum, 8) }
            }
            do {
                let decoded = try Self.decode(bytes)
                if let message = decoded.message {
                    let again = written(PeerFrame.size(of: message)) { place in
                        decoded.payload.withUnsafeBytes {
                            PeerFrame.encode(message, sender: decoded.sender, batch: $0, into: place)
                        }
                    }
                    #expect(again == bytes)
                    outcomes.good += 1
                }
            } catch {
                outcomes.refused += 1
            }
        }
        #expect(outcomes.good > 500 && outcomes.refused > 5000)
    }
}
