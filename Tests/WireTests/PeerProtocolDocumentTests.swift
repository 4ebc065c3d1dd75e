import Testing

@testable import MPaxosConsensus
@testable import MPaxosWire

/// `docs/peer-protocol.md`, held against the codecs.
@Suite struct PeerProtocolDocumentTests {
    let document: FormatDocument

    init() throws { document = try FormatDocument("peer-protocol.md") }

    /// CRC32C as the document defines it, bit by bit.
    static func crc32c(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(UInt32.max) { register, byte in
            (0..<8).reduce(register ^ UInt32(byte)) { crc, _ in crc >> 1 ^ (crc & 1 == 1 ? 0x82F6_3B78 : 0) }
        }
    }

    static func name(of kind: Message.Kind) -> String { "\(kind)" }

    private static func types(_ cell: String) -> [String] { cell.split(separator: ", ").map(String.init) }

    private func number(_ text: String) throws -> UInt64 { try #require(FormatDocument.number(text), "\(text)") }

    @Test func linesAreNotTooLong() {
        #expect(document.overlongLines == [])
    }

    @Test func versionIsThatOfTheProtocol() throws {
        #expect(document.title.hasSuffix("version \(peerProtocolVersion)"))
        let rows = try document.rows(under: "Header: 64 bytes, little-endian", "offset", "size", "type", "field")
        #expect(rows.contains { $0[3] == "version: \(peerProtocolVersion)" })
    }

    // MARK: Examples

    static let submit: [UInt8] = {
        let body = Array("P".utf8) + [8, 0, 0, 0] + Array("greetinghello".utf8)
        return written(CommandRecord.size(bodyCount: body.count)) { place in
            _ = body.withUnsafeBytes {
                CommandRecord.write(
                    into: place, kind: .submit, origin: 0, tag: 0x0A0B_0C00_0010_0005, session: 0x5EC2_E700_0000_0003,
                    sequence: 1, body: $0)
            }
        }
    }()

    @Test func acceptIsAsItIsEncoded() throws {
        #expect(Self.crc32c(Array("123456789".utf8)) == 0xE306_9283)
        let batch = Batch(offset: 0, length: UInt32(Self.submit.count), checksum: Self.crc32c(Self.submit))
        let message = Message(
            kind: .accept, view: 3, instance: 42, bound: 40, commit: 41,
            acceptedView: 0, batch: batch)
        let frame = written(PeerFrame.size(of: message)) { place in
            Self.submit.withUnsafeBytes { PeerFrame.encode(message, sender: 0, batch: $0, into: place) }
        }
        #expect(try document.example("accept") == frame)
        #expect(try PeerFrameTests.decode(try document.example("accept")).message == message)
    }

    static let hello = Handshake.Hello(
        cluster: "demo", replica: 1, incarnation: 0x1122_3344_5566_7788,
        life: Life(bootCount: 2, nonce: 0xA1A2_A3A4_A5A6_A7A8), ancestors: [0xB1B2_B3B4_B5B6_B7B8], founding: .founded,
        skipping: Skipping(position: 1000, named: []), ticket: 0xC1C2_C3C4_C5C6_C7C8, proof: 0xD1D2_D3D4_D5D6_D7D9,
        charter: Charter(
            members: [0, 1], maxRequest: 1 << 20, sessions: 65_536, stateSize: 256 << 20, machine: "KeyValueService",
            machineVersion: 1),
        fingerprint: 0xE1E2_E3E4_E5E6_E7E8,
        members: [
            .init(
                id: 0, incarnation: 0x99AA_BBCC_DDEE_FF00, life: Life(bootCount: 1, nonce: 0xF1F2_F3F4_F5F6_F7F8),
                peerEndpoint: "tcp://a:7100", clientEndpoint: "tcp://a:7200"),
            .init(
                id: 1, incarnation: 0x1122_3344_5566_7788, life: Life(bootCount: 2, nonce: 0xA1A2_A3A4_A5A6_A7A8),
                peerEndpoint: "tcp://b:7100", clientEndpoint: "tcp://b:7200"),
        ])

    @Test func handshakesAreAsTheyAreEncoded() throws {
        #expect(try document.example("hello") == Handshake.hello(Self.hello).encode(sender: 1))
        let refusal = Handshake.Refusal(.version, "run version 6")
        #expect(try document.example("refused") == Handshake.refused(refusal).encode(sender: 0))
    }

    /// The tables of the introduction, read along the example: each field begins with a line of it, the last ends it.
    @Test func introductionHasItsFieldsInTheirOrder() throws {
        let (bytes, lines) = (try document.example("hello"), try document.offsets(ofExample: "hello"))
        let heading = "Handshake: 0xF0 to 0xF3"
        let fields = try document.rows(under: heading, "field", "type", "must be")
        // The first such table is that of a member.
        let member = try document.rows(under: heading, "field", "type", "")
        var at = PeerHeader.size
        func skip(_ type: String) throws {
            #expect(lines.contains(at), "\(type) at \(at)")
            let count = Int(try #require(bytes.indices.contains(at) ? bytes[at] : nil, "\(type) at \(at)"))
            switch type {
            case "u8": at += 1
            case "u16": at += 2
            case "u64", "i64": at += 8
            case "text": at += 2 + count
            case "u8, then so many u64":
                at += 1
                for _ in 0..<count { try skip("u64") }
            case "u8, then so many members":
                at += 1
                for _ in 0..<count { for row in member { try Self.types(row[1]).forEach(skip) } }
            default: Issue.record("what is '\(type)'?")
            }
        }
        for row in fields {
            if row[1].contains("then") { try skip(row[1]) } else { try Self.types(row[1]).forEach(skip) }
        }
        #expect(at == bytes.count)
    }

    @Test func markIsAsItIsEncoded() throws {
        let mark = LinkFrame.mark(stamp: 0x0102_0304_0506_0708)
        #expect(try document.example("mark") == written(64) { mark.encodeHeader(sender: 2, into: $0) })
    }

    // MARK: Places

    /// Each row of a table of offsets names just the bytes that change with its field; together they are all bytes.
    private func expectPlaces(_ rows: [[String]], _ fields: [String: [UInt8]], in bytes: [UInt8]) throws {
        var end: UInt64 = 0
        for row in rows {
            let field = FormatDocument.head(row[3])
            let (offset, size) = (try number(row[0]), FormatDocument.number(row[1]))
            #expect(offset == end, "\(field)")
            let expected = try #require(fields[field], "\(field)")
            if let size { #expect(size == UInt64(expected.count), "\(field)") }
            end = offset + UInt64(expected.count)
            #expect(Array(bytes[Int(offset)..<Int(end)]) == expected, "\(field)")
        }
        #expect(rows.count == fields.count && end == UInt64(bytes.count))
    }

    private static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    @Test func headerHasItsPlaces() throws {
        let header = PeerHeader(
            kind: 0x11, sender: 0x12, flags: 0x13, payloadCount: 0x1415_1617, payloadChecksum: 0x1819_2021,
            small: 0x2223_2425, 0x31, 0x32, 0x33, 0x34, 0x35)
        let frame = written(PeerHeader.size) { header.encode(into: $0) }
        let checksum = frame.withUnsafeBytes { PeerHeader.checksum($0.baseAddress!) }
        try expectPlaces(
            document.rows(under: "Header: 64 bytes, little-endian", "offset", "size", "type", "field"),
            [
                "magic": Array("MPP1".utf8), "version": [peerProtocolVersion], "kind": [0x11], "sender": [0x12],
                "flags": [0x13], "header checksum": Self.bytes(checksum),
                "payload count": Self.bytes(header.payloadCount),
                "payload checksum": Self.bytes(header.payloadChecksum), "small": Self.bytes(header.small),
                "first number": Self.bytes(header.numbers.0), "second number": Self.bytes(header.numbers.1),
                "third number": Self.bytes(header.numbers.2), "fourth number": Self.bytes(header.numbers.3),
                "fifth number": Self.bytes(header.numbers.4),
            ], in: frame)
    }

    @Test func recordHasItsPlaces() throws {
        let record = written(CommandRecord.size(bodyCount: 3)) { place in
            _ = [UInt8]([7, 8, 9]).withUnsafeBytes {
                CommandRecord.write(
                    into: place, kind: .close, origin: 0x0102, tag: 0x0304, session: 0x0506, sequence: 0x0708, body: $0)
            }
        }
        try expectPlaces(
            document.rows(under: "Records of commands", "offset", "size", "type", "field"),
            [
                "body count": [3, 0, 0, 0], "command": [4], "zero": [0], "origin": [2, 1],
                "tag": Self.bytes(0x0304 as UInt64), "session": Self.bytes(0x0506 as UInt64),
                "sequence": Self.bytes(0x0708 as UInt64), "body": [7, 8, 9, 0, 0, 0, 0, 0],
            ], in: record)
        let commands = try document.rows(
            under: "Records of commands", "command", "name", "session", "body", "executed")
        #expect(
            commands.map { "\($0[0]) \(FormatDocument.head($0[1]))" }
                == CommandRecord.Kind.allCases.map { "\($0.rawValue) \($0)" })
    }

    // MARK: Kinds

    static let flags: [String: Message.Flags] = [
        "last": .last, "more": .more, "gap": .gap, "full": .full, "quiet": .quiet,
    ]

    @Test func kindsOfMessagesUseTheFieldsThatTheyAreSaidToUse() throws {
        let rows = try document.rows(
            under: "Messages of the core: 1 to 11", "kind", "name", "flags", "instance", "bound", "commit", "fifth",
            "payload")
        var named: Set<UInt8> = []
        for row in rows {
            let kind = try #require(Message.Kind(rawValue: UInt8(try number(row[0]))))
            #expect(FormatDocument.head(row[1]) == Self.name(of: kind))
            named.insert(kind.rawValue)
            let names = row[2].split(separator: ",").map { FormatDocument.head(String($0)) }.filter { $0 != "-" }
            let allowed = Message.Flags(try names.map { try #require(Self.flags[$0], "\($0)") })
            // What tells the two shapes of a promise apart is in each of the one, and in none of the other.
            let isLastPromise = kind == .promise && allowed.contains(.last)
            let always: UInt8 = isLastPromise ? Message.Flags.last.rawValue : 0
            let used = row[3...6].map { $0 != "-" }
            let carries = row[7] != "-"
            func error(flags: UInt8 = 0, _ numbers: [Bool], payload: Bool = false) -> PeerFrameError? {
                let values = numbers.map { $0 ? 7 as UInt64 : 0 }
                let header = PeerHeader(
                    kind: kind.rawValue, sender: 0, flags: always | flags, payloadCount: payload ? 8 : 0, 7, values[0],
                    values[1], values[2], values[3])
                let frame = written(64) { header.encode(into: $0) } + [UInt8](repeating: 0, count: payload ? 8 : 0)
                do {
                    _ = try withExactBytes(frame) { try PeerFrame(decoding: $0) }
                    return nil
                } catch {
                    return error as? PeerFrameError
                }
            }
            #expect(error(flags: allowed.rawValue, used, payload: carries) == nil, "\(row)")
            #expect(carries || error(used, payload: true) == .field, "\(row)")
            for place in 0..<4 where !used[place] {
                var more = used
                more[place] = true
                #expect(error(more) == .field, "\(row), \(place)")
            }
            for bit in 0..<8 as Range<UInt8> where allowed.rawValue & 1 << bit == 0 {
                if kind == .promise, 1 << bit == Message.Flags.last.rawValue { continue }
                #expect(error(flags: 1 << bit, used) == .field, "\(row), flag \(1 << bit)")
            }
        }
        #expect(named == Set(Message.Kind.allCases.map(\.rawValue)))
        let said = try document.rows(under: "Messages of the core: 1 to 11", "kind", "says")
        #expect(said.map { FormatDocument.head($0[0]) } == Message.Kind.allCases.map(Self.name))
    }

    /// Who leads the view of a message that a replica does not refuse.
    @Test func messagesArePlausibleFromWhomTheyAreSaidToCome() throws {
        let (sender, receiver, third) = (0, 1, 2)
        let core = Core(
            configuration: Configuration(
                replica: receiver, replicaCount: 3, window: 1, slotCount: 16, heartbeat: 1, suspect: 2, retransmit: 1,
                seed: 1),
            promised: 0, established: nil, floor: 1, executed: 0)
        let rows = try document.rows(under: "Messages of the core: 1 to 11", "kind", "leader of the view", "and")
        var named: [String] = []
        for row in rows {
            let leaders = ["sender": [sender], "receiver": [receiver], "anybody": [sender, receiver, third]]
            let allowed = try #require(leaders[row[1]], "\(row)")
            for name in row[0].split(separator: ",").map({ FormatDocument.head(String($0)) }) {
                named.append(name)
                let kind = try #require(Message.Kind.allCases.first { Self.name(of: $0) == name }, "\(name)")
                for leader in [sender, receiver, third] {
                    var message = Message(
                        kind: kind, view: View(3 + leader), instance: 9, bound: 5, commit: 12, acceptedView: 2)
                    let isPlausible = core.isPlausible(message, from: sender)
                    #expect(isPlausible == allowed.contains(leader), "\(name), \(leader)")
                    message.commit = 1 << 62
                    let isPlausibleFromAfar = core.isPlausible(message, from: sender)
                    #expect(!isPlausibleFromAfar, "\(name)")
                }
            }
        }
        #expect(named.sorted() == Message.Kind.allCases.map(Self.name).sorted())
    }

    @Test func flagsHaveTheirValues() throws {
        let rows = try document.rows(under: "Messages of the core: 1 to 11", "flag", "value", "of", "says")
        for row in rows {
            #expect(try number(row[1]) == UInt64(try #require(Self.flags[FormatDocument.head(row[0])]).rawValue))
        }
        #expect(Set(rows.map { FormatDocument.head($0[0]) }) == Set(Self.flags.keys))
    }

    /// The numbers of kinds in one table are those that are encoded.
    private func expectKinds(
        _ heading: String, _ columns: [String], _ encoded: [(name: String, frame: [UInt8])]
    ) throws {
        let rows = try document.rows(under: heading, columns: columns)
        let kinds = try rows.map { "\(try number($0[0])) \($0[1])" }
        #expect(kinds == encoded.map { "\($0.frame[5]) \($0.name)" }, "\(heading)")
    }

    @Test func otherKindsHaveTheirNumbers() throws {
        let forward = written(64) {
            PeerFrame.encodeForwardHeader(count: 32, checksum: 0, view: 1, sender: 0, into: $0)
        }
        let digest = written(64) { PeerFrame.encode(.init(executed: 1, value: 2), sender: 0, into: $0) }
        try expectKinds(
            "FORWARD and DIGEST", ["kind", "name", "first", "second", "payload checksum", "payload"],
            [("FORWARD", forward), ("DIGEST", digest)])
        let transfers: [(String, TransferMessage)] = [
            ("request", .request(ticket: 1, decided: 2, geometry: 3)),
            ("offer", .offer(ticket: 1, .init(executed: 2, view: 3, size: 4, position: 5, checksum: 6))),
            ("ask", .ask(ticket: 1, offset: 2)), ("chunk", .chunk(ticket: 1, offset: 2, checksum: 3)),
            ("refusal", .refusal(ticket: 1, .busy)),
        ]
        try expectKinds(
            "State transfer: 0x81 to 0x85",
            ["kind", "name", "first", "second", "third", "fourth", "fifth", "small", "payload"],
            transfers.map { name, message in
                (name, written(64) { PeerFrame.encodeHeader(of: message, payloadCount: 0, sender: 0, into: $0) })
            })
        let links: [(String, LinkFrame)] = [
            ("PIECE", .piece(parcel: 1, offset: 0, size: 1)), ("DELIVER", .deliver(parcel: 1)),
            ("MARK", .mark(stamp: 1)), ("ECHO", .echo(stamp: 1)),
        ]
        try expectKinds(
            "The link: 0x90 to 0x93", ["kind", "name", "first", "second", "third", "payload"],
            links.map { name, frame in (name, written(64) { frame.encodeHeader(sender: 0, into: $0) }) })
        try expectKinds(
            "Handshake: 0xF0 to 0xF3", ["kind", "name", "from, to", "payload"],
            zip(["HELLO", "WELCOME", "REFUSED", "CALL"], HandshakeTests.all).map { ($0, $1.encode(sender: 0)) })
    }

    @Test func reasonsAndCausesHaveTheirNumbers() throws {
        let reasons = try document.rows(under: "State transfer: 0x81 to 0x85", "reason", "name", "")
        #expect(
            reasons.map { "\($0[0]) \(FormatDocument.head($0[1]))" }
                == TransferMessage.Refusal.allCases.map { "\($0.rawValue) \($0)" })
        let causes = try document.rows(under: "Handshake: 0xF0 to 0xF3", "cause", "name", "")
        #expect(
            causes.map { "\($0[0]) \(FormatDocument.head($0[1]))" }
                == Handshake.Refusal.Cause.allCases.map { "\($0.rawValue) \($0)" })
    }

    // MARK: Limits

    /// Numbers that stand in sentences: each is that of the code, and the document has it where it is said to be.
    @Test func limitsAreThoseOfTheCode() throws {
        let introduction = try document.rows(under: "Handshake: 0xF0 to 0xF3", "field", "type", "must be")
        func rule(_ field: String) throws -> String { try #require(introduction.first { $0[0] == field })[2] }
        #expect(try rule("ancestors").hasSuffix("at most \(Life.mostAncestors)"))
        #expect(try rule("skipped").hasSuffix("at most \(Skipping.mostNamed)"))
        #expect(try rule("members").hasPrefix("1 to \(Charter.mostMembers),"))
        let text = document.lines.joined(separator: " ")
        #expect(plausibleLimit == 1 << 62 && text.contains("below 2^62"))
        #expect(mostViewsAtOnce == 65_536 && text.contains("65,536 views further at most"))
        #expect(TransferMessage.chunkSize == 262_144 && text.contains("1 to 262,144 bytes"))
        #expect(DigestComparison.ordinaryInterval == 1024 && text.contains("a multiple of 1,024"))
        #expect(Core.burst == 32 && Core.burstBytes == 1 << 20 && text.contains("at most 32, and 1 MiB of batches"))
    }
}
