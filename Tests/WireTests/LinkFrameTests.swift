import Testing

@testable import MPaxosConsensus
@testable import MPaxosWire

@Suite struct LinkFrameTests {
    static let largest = UInt64(UInt32.max)
    static let frames: [(frame: LinkFrame, payload: [UInt8])] = [
        (.piece(parcel: 7, offset: 0, size: 3), [1, 2, 3]), (.piece(parcel: .max, offset: 9, size: 14), [1, 2, 3]),
        (.piece(parcel: 7, offset: largest - 3, size: largest), [1, 2, 3]),
        (.deliver(parcel: 7), PeerFrameTests.encode(PeerFrameTests.messages[7]).prefix(64).map(\.self)),
        (.mark(stamp: 0x0102_0304_0506_0708), []), (.echo(stamp: .max), []),
    ]

    static func encode(_ frame: LinkFrame, _ payload: [UInt8], sender: Int = 2) -> [UInt8] {
        written(PeerHeader.size) { frame.encodeHeader(payloadCount: payload.count, sender: sender, into: $0) } + payload
    }

    static func decode(_ frame: [UInt8]) throws -> (sender: Int, frame: LinkFrame?, payload: [UInt8]) {
        try withExactBytes(frame) { bytes in
            let frame = try PeerFrame(decoding: bytes)
            guard case .link(let link) = frame.content else { return (frame.sender, nil, []) }
            return (frame.sender, link, Array(frame.payload))
        }
    }

    /// Kind, bytes of payload and numbers, in the order of `frames`.
    @Test func everyKindKeepsItsPlaces() {
        let golden: [(UInt8, UInt32, [UInt64])] = [
            (0x90, 3, [7, 0, 3, 0, 0]), (0x90, 3, [.max, 9, 14, 0, 0]),
            (0x90, 3, [7, 0xFFFF_FFFC, 0xFFFF_FFFF, 0, 0]),
            (0x91, 64, [7, 0, 0, 0, 0]), (0x92, 0, [0x0102_0304_0506_0708, 0, 0, 0, 0]), (0x93, 0, [.max, 0, 0, 0, 0]),
        ]
        #expect(golden.count == Self.frames.count)
        for ((link, payload), (kind, count, numbers)) in zip(Self.frames, golden) {
            let frame = Self.encode(link, payload)
            let found = frame.withUnsafeBytes { bytes in
                (0..<5).map { bytes.loadUnaligned(fromByteOffset: 24 + 8 * $0, as: UInt64.self) }
            }
            let foundCount = frame.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self) }
            #expect(Array(frame[0..<8]) == [0x4D, 0x50, 0x50, 0x31, 6, kind, 2, 0], "\(link)")
            #expect(foundCount == count && found == numbers && frame[16..<24].allSatisfy { $0 == 0 }, "\(link)")
            #expect(Array(frame[64...]) == payload, "\(link)")
        }
    }

    @Test func framesComeBack() throws {
        for (link, payload) in Self.frames {
            for sender in [0, 8] {
                let decoded = try Self.decode(Self.encode(link, payload, sender: sender))
                #expect(decoded.frame == link && decoded.sender == sender && decoded.payload == payload)
            }
        }
    }

    @Test func everyFlippedBitOfTheHeaderAndEveryCutIsFound() {
        for (link, payload) in Self.frames {
            let frame = Self.encode(link, payload)
            for bit in 0..<64 * 8 {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: PeerFrameError.self, "\(link), bit \(bit)") { try Self.decode(damaged) }
            }
            for count in 0..<frame.count {
                #expect(throws: PeerFrameError.size) { try Self.decode(Array(frame.prefix(count))) }
            }
            #expect(throws: PeerFrameError.size) { try Self.decode(frame + [0]) }
        }
    }

    /// Headers with right checksums and wrong fields, as a replica with a defect might send them.
    @Test func fieldsThatAKindDoesNotUseMustBeZero() throws {
        for (link, payload) in Self.frames {
            let header = try withExactBytes(Self.encode(link, payload)) { try PeerHeader(decoding: $0) }
            func expectRefusal(_ change: (inout PeerHeader) -> Void) {
                var changed = header
                change(&changed)
                let frame = written(64) { changed.encode(into: $0) } + payload
                #expect(throws: PeerFrameError.field, "\(link)") { try Self.decode(frame) }
            }
            expectRefusal { $0.flags = 1 }
            expectRefusal { $0.small = 1 }
            expectRefusal { $0.payloadChecksum = 1 }
            expectRefusal { $0.sender = 9 }
            expectRefusal { $0.numbers.3 = 1 }
            expectRefusal { $0.numbers.4 = .max }
            if case .piece = link { continue }
            expectRefusal { $0.numbers.2 = 1 << 63 }
            expectRefusal { $0.numbers.1 = 1 }
        }
    }

    /// Places that no piece has, and lengths that no DELIVER or mark has: also those whose sum is beyond what a number
    /// holds.
    @Test(arguments: [
        (LinkFrame.piece(parcel: 1, offset: 0, size: 0), 0), (.piece(parcel: 1, offset: 0, size: 9), 0),
        (.piece(parcel: 1, offset: 9, size: 9), 1), (.piece(parcel: 1, offset: 10, size: 9), 1),
        (.piece(parcel: 1, offset: 7, size: 9), 3), (.piece(parcel: 1, offset: .max, size: 9), 1),
        (.piece(parcel: 1, offset: .max, size: .max), 1), (.piece(parcel: 1, offset: .max - 1, size: .max), 3),
        (.piece(parcel: 1, offset: 0, size: largest + 1), 1), (.piece(parcel: 1, offset: largest, size: largest), 1),
        (.deliver(parcel: 1), 0), (.deliver(parcel: 1), 63), (.deliver(parcel: 1), 65),
    ])
    func lengthsThatCannotBeAreRefused(link: LinkFrame, count: Int) {
        let frame = Self.encode(link, [UInt8](repeating: 0, count: count))
        #expect(throws: PeerFrameError.size) { try Self.decode(frame) }
    }

    @Test(arguments: [LinkFrame.mark(stamp: 1), .echo(stamp: 1)])
    func marksCarryNothing(link: LinkFrame) {
        #expect(throws: PeerFrameError.field) { try Self.decode(Self.encode(link, [0])) }
    }
}
