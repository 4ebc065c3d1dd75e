import MPaxosConsensus
import Testing

@testable import MPaxosWire

@Suite struct HandshakeTests {
    static let hello = Handshake.Hello(
        cluster: "ab", replica: 0x0203, incarnation: 0x0102_0304_0506_0708,
        life: Life(bootCount: 7, nonce: 0x99), ancestors: [0x77, 0x66], founding: .founded,
        skipping: Skipping(position: 0x1234, named: [0x39, 0x1300]), ticket: 0x55, proof: 0x44,
        charter: Charter(
            members: [1, 0x0203], maxRequest: 0x11, sessions: 0x2200, stateSize: 0x33_0000, machine: "mc",
            machineVersion: -2),
        fingerprint: 0x0A0B_0C0D_0E0F_1011,
        members: [
            .init(id: 1, incarnation: 0, life: .none, peerEndpoint: "tcp://h:1", clientEndpoint: "tcp://h:2"),
            .init(
                id: 0x0203, incarnation: 5, life: Life(bootCount: 6, nonce: 0x88), peerEndpoint: "p", clientEndpoint: ""
            ),
        ])
    static let all: [Handshake] = [
        .hello(hello), .welcome(hello), .refused(.init(.cluster, "this is another cluster – go away")),
        .call(.init(ticket: 0x55, challenge: 0x44)),
    ]

    static func decode(_ frame: [UInt8]) throws -> (PeerHeader, Handshake) {
        try withExactBytes(frame) { bytes in
            let header = try PeerHeader(decoding: bytes)
            return (header, try Handshake(header: header, payload: UnsafeRawBufferPointer(rebasing: bytes[64...])))
        }
    }

    @Test func bytesOfAHello() {
        let frame = Handshake.hello(Self.hello).encode(sender: 3)
        #expect(Array(frame[0..<8]) == [0x4D, 0x50, 0x50, 0x31, 6, 0xF0, 3, 0])
        #expect(frame[12] == UInt8(frame.count - 64) && frame[13...15].allSatisfy { $0 == 0 })
        #expect(frame[20..<64].allSatisfy { $0 == 0 })
        func word(_ value: UInt8) -> [UInt8] { [value, 0, 0, 0, 0, 0, 0, 0] }
        let charter: [UInt8] =
            [0x11, 0, 0, 0, 0, 0, 0, 0] + [0, 0x22, 0, 0, 0, 0, 0, 0] + [0, 0, 0x33, 0, 0, 0, 0, 0]
            + [0xFE] + Array(repeating: 0xFF, count: 7) + [2, 0] + Array("mc".utf8)
        let skipping: [UInt8] = [0x34, 0x12, 0, 0, 0, 0, 0, 0, 2] + word(0x39) + [0, 0x13, 0, 0, 0, 0, 0, 0]
        #expect(
            Array(frame[64...]) == [2, 0] + Array("ab".utf8) + [3, 2] + [8, 7, 6, 5, 4, 3, 2, 1]
                + word(7) + word(0x99) + [2] + word(0x77) + word(0x66) + [2]
                + skipping + word(0x55) + word(0x44) + [0x11, 0x10, 0x0F, 0x0E, 0x0D, 0x0C, 0x0B, 0x0A] + charter + [2]
                + [1, 0] + word(0) + word(0) + word(0) + [9, 0] + Array("tcp://h:1".utf8) + [9, 0]
                + Array("tcp://h:2".utf8)
                + [3, 2] + word(5) + word(6) + word(0x88) + [1, 0] + Array("p".utf8) + [0, 0])
    }

    /// The checksums are part of the format: a change of the function is a change of the protocol's version.
    @Test func checksumsStayWhatTheyAre() {
        let frame = Handshake.refused(.init(.version, "no")).encode(sender: 1)
        #expect(Array(frame[64...]) == [1, 2, 0, 0x6E, 0x6F])
        #expect(Array(frame[8..<12]) == [8, 52, 221, 155])
        #expect(Array(frame[16..<20]) == [229, 56, 104, 47])
    }

    @Test func roundTrips() throws {
        for handshake in Self.all {
            let (header, decoded) = try Self.decode(handshake.encode(sender: 8))
            #expect(decoded == handshake)
            #expect(header.sender == 8)
            #expect(header.kind >= Handshake.firstKind)
        }
    }

    @Test func overlongTextIsCut() throws {
        let long = Handshake.refused(.init(.malformed, String(repeating: "x", count: 70_000)))
        let (_, decoded) = try Self.decode(long.encode(sender: 0))
        #expect(decoded == .refused(.init(.malformed, String(repeating: "x", count: 4096))))
    }

    /// Bytes that are no text were once replaced by longer ones, and so encoded to another frame.
    @Test func textIsUTF8AndCutBetweenCharacters() throws {
        let (_, decoded) = try Self.decode(
            Handshake.refused(.init(.malformed, "x" + String(repeating: "–", count: 2000))).encode(sender: 0))
        #expect(decoded == .refused(.init(.malformed, "x" + String(repeating: "–", count: 1365))))
        let payload: [UInt8] = [6, 2, 0, 0x61, 0xFF]
        let header = PeerHeader(
            kind: 0xF2, sender: 1, payloadCount: UInt32(payload.count),
            payloadChecksum: payload.withUnsafeBytes(FoldedChecksum.of))
        let frame = written(64) { header.encode(into: $0) } + payload
        #expect(throws: PeerFrameError.field) { try Self.decode(frame) }
    }

    /// They are logged, and shown by `mpaxos status`: nobody writes lines of his own there, nor to the terminal.
    @Test(arguments: ["two\nlines", "\u{1B}[2J", "\u{7F}", "\0", "\u{9B}2J", "a\u{2028}b", "\u{202E}a"])
    func textsWithControlCharactersAreRefused(text: String) {
        var hellos = [Self.hello, Self.hello, Self.hello]
        hellos[0].cluster = text
        hellos[1].members[0].peerEndpoint = text
        hellos[2].members[1].clientEndpoint = text
        for handshake in [.refused(.init(.charter, text))] + hellos.map(Handshake.hello) {
            #expect(throws: PeerFrameError.field) { try Self.decode(handshake.encode(sender: 0)) }
        }
    }

    @Test func anotherVersionIsToldFromGarbage() {
        let newer = Handshake.hello(Self.hello).encode(sender: 2, version: 7)
        #expect(throws: PeerFrameError.version(7)) { try Self.decode(newer) }
        var garbage = Handshake.hello(Self.hello).encode(sender: 2)
        garbage[4] = 1
        #expect(throws: PeerFrameError.headerChecksum) { try Self.decode(garbage) }
    }

    @Test func everyFlippedBitIsFound() {
        for handshake in Self.all {
            let frame = handshake.encode(sender: 1)
            for bit in 0..<frame.count * 8 {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: PeerFrameError.self, "bit \(bit)") { try Self.decode(damaged) }
            }
        }
    }

    @Test func everyCutIsFound() {
        for handshake in Self.all {
            let frame = handshake.encode(sender: 1)
            for count in 0..<frame.count {
                #expect(throws: PeerFrameError.size) { try Self.decode(Array(frame.prefix(count))) }
            }
            #expect(throws: PeerFrameError.size) { try Self.decode(frame + [0]) }
        }
    }

    /// Payloads that are damaged but carry the right checksums, as a hostile peer would send them.
    @Test func hostilePayloadsNeverTrap() throws {
        var random = SeededRandom(seed: 41)
        var refused = 0
        for _ in 0..<20_000 {
            let frame = Self.all.randomElement(using: &random)!.encode(sender: 1)
            let payload = mutated(Array(frame[64...]), using: &random)
            let header = PeerHeader(
                kind: frame[5], sender: 1, payloadCount: UInt32(payload.count),
                payloadChecksum: payload.withUnsafeBytes(FoldedChecksum.of))
            let forged = written(64) { header.encode(into: $0) } + payload
            do {
                _ = try Self.decode(forged)
            } catch {
                #expect([PeerFrameError.size, .field].contains(error as? PeerFrameError))
                refused += 1
            }
        }
        #expect(refused > 5000)
    }

    @Test func membersOutOfOrderAreRefused() throws {
        var hello = Self.hello
        func expectRefusal() {
            hello.charter.members = hello.members.map(\.id)
            #expect(throws: PeerFrameError.field) { try Self.decode(Handshake.hello(hello).encode(sender: 0)) }
        }
        hello.members.swapAt(0, 1)
        expectRefusal()
        hello.members[1] = hello.members[0]
        expectRefusal()
        hello.members = []
        expectRefusal()
        hello.members = (0..<10).map {
            .init(id: $0, incarnation: 1, life: .none, peerEndpoint: "p", clientEndpoint: "c")
        }
        expectRefusal()
    }

    @Test(arguments: ["", String(repeating: "m", count: 256), "two\nlines", String(repeating: "–", count: 86)])
    func aMachineWithoutAProperNameIsRefused(name: String) throws {
        var hello = Self.hello
        hello.charter.machine = name
        for handshake in [Handshake.hello(hello), .welcome(hello)] {
            #expect(throws: PeerFrameError.field) { try Self.decode(handshake.encode(sender: 0)) }
        }
        hello.charter.machine = String(repeating: "m", count: 255)
        #expect(try Self.decode(Handshake.hello(hello).encode(sender: 0)).1 == .hello(hello))
    }
}
