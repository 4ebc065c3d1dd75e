import Testing

@testable import MPaxosConsensus
@testable import MPaxosWire

@Suite struct TransferMessageTests {
    static let offer = TransferMessage.Offer(executed: 9, view: 3, size: 8192, position: 7, checksum: 0xA1B2_C3D4)
    static let messages: [TransferMessage] =
        [
            .request(ticket: 5, decided: 9, geometry: .max), .offer(ticket: .max, offer), .ask(ticket: 5, offset: 0),
            .ask(ticket: 5, offset: 4096), .chunk(ticket: 5, offset: 4096, checksum: 0x0403_0201),
        ] + TransferMessage.Refusal.allCases.map { .refusal(ticket: 5, $0) }

    static func encode(_ message: TransferMessage, chunk: [UInt8] = [1, 2, 3], sender: Int = 2) -> [UInt8] {
        var payload: [UInt8] = []
        if case .chunk = message { payload = chunk }
        return written(PeerHeader.size) {
            PeerFrame.encodeHeader(of: message, payloadCount: payload.count, sender: sender, into: $0)
        } + payload
    }

    static func decode(_ frame: [UInt8]) throws -> (sender: Int, message: TransferMessage?, payload: [UInt8]) {
        try withExactBytes(frame) { bytes in
            let frame = try PeerFrame(decoding: bytes)
            guard case .transfer(let message) = frame.content else { return (frame.sender, nil, []) }
            return (frame.sender, message, Array(frame.payload))
        }
    }

    /// Kind, small and numbers, in the order of `messages`.
    @Test func everyKindKeepsItsPlaces() {
        let golden: [(UInt8, UInt32, [UInt64])] =
            [
                (0x81, 0, [5, 9, .max, 0, 0]), (0x82, 0xA1B2_C3D4, [.max, 9, 3, 8192, 7]), (0x83, 0, [5, 0, 0, 0, 0]),
                (0x83, 0, [5, 4096, 0, 0, 0]), (0x84, 0, [5, 4096, 0, 0, 0]),
            ] + (1...8).map { (0x85, UInt32($0), [5, 0, 0, 0, 0]) }
        #expect(golden.count == Self.messages.count)
        for (message, (kind, small, numbers)) in zip(Self.messages, golden) {
            let frame = Self.encode(message)
            let found = frame.withUnsafeBytes { bytes in
                (0..<5).map { bytes.loadUnaligned(fromByteOffset: 24 + 8 * $0, as: UInt64.self) }
            }
            let foundSmall = frame.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 20, as: UInt32.self) }
            #expect(frame[5] == kind && frame[7] == 0 && foundSmall == small && found == numbers, "\(message)")
        }
        let chunk = Self.encode(Self.messages[4])
        #expect(Array(chunk[12..<20]) == [3, 0, 0, 0, 1, 2, 3, 4] && Array(chunk[64...]) == [1, 2, 3])
    }

    @Test func messagesComeBack() throws {
        for message in Self.messages {
            for sender in [0, 8] {
                let decoded = try Self.decode(Self.encode(message, sender: sender))
                #expect(decoded.message == message && decoded.sender == sender)
            }
        }
        let largest = [UInt8](repeating: 7, count: TransferMessage.chunkSize)
        #expect(try Self.decode(Self.encode(Self.messages[4], chunk: largest)).payload == largest)
    }

    @Test func everyFlippedBitOfTheHeaderAndEveryCutIsFound() {
        for message in Self.messages {
            let frame = Self.encode(message)
            for bit in 0..<64 * 8 {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: PeerFrameError.self, "\(message), bit \(bit)") { try Self.decode(damaged) }
            }
            for count in 0..<frame.count {
                #expect(throws: PeerFrameError.size) { try Self.decode(Array(frame.prefix(count))) }
            }
        }
    }

    /// Headers with right checksums and wrong fields, as a replica with a defect might send them.
    @Test func fieldsOutsideOfTheirBoundsAreRefused() throws {
        for message in Self.messages {
            let good = Self.encode(message)
            let header = try withExactBytes(good) { try PeerHeader(decoding: $0) }
            func expectRefusal(
                _ error: PeerFrameError, payload: [UInt8]? = nil, _ change: (inout PeerHeader) -> Void
            ) {
                var changed = header
                change(&changed)
                let payload = payload ?? Array(good[64...])
                changed.payloadCount = UInt32(payload.count)
                #expect(throws: error, "\(message)") {
                    try Self.decode(written(64) { changed.encode(into: $0) } + payload)
                }
            }
            expectRefusal(.field) { $0.numbers.0 = 0 }
            expectRefusal(.field) { $0.flags = 1 }
            expectRefusal(.field) { $0.sender = 9 }
            switch message {
            case .request:
                expectRefusal(.field) { $0.numbers.3 = 1 }
                expectRefusal(.field) { $0.numbers.4 = 1 }
                expectRefusal(.field) { $0.small = 1 }
            case .offer: break
            case .ask, .chunk:
                expectRefusal(.field) { $0.numbers.2 = 1 }
                expectRefusal(.field) { $0.small = 1 }
            case .refusal:
                expectRefusal(.field) { $0.numbers.1 = 1 }
                expectRefusal(.field) { $0.small = 0 }
                expectRefusal(.field) { $0.small = 9 }
            }
            if case .chunk = message {
                expectRefusal(.size, payload: []) { _ in }
                expectRefusal(.size, payload: Array(repeating: 0, count: TransferMessage.chunkSize + 1)) { _ in }
            } else {
                expectRefusal(.field, payload: [0]) { _ in }
                expectRefusal(.field) { $0.payloadChecksum = 1 }
            }
        }
    }

    @Test func everyRefusalHasAReason() {
        #expect(Set(TransferMessage.Refusal.allCases.map(\.reason)).count == TransferMessage.Refusal.allCases.count)
    }
}
