import MPaxosKeyValueFormat
import Testing

@testable import MPaxosConsensus
@testable import MPaxosWire

/// Inputs by chance for each decoder of this module, see `Corpus` and `Fuzz`.
@Suite struct WireFuzzTests {
    @Test func clientFrames() throws {
        let fuzz = try Fuzz(Corpus("client"), rounds: 20_000, WireProperties.client)
        #expect(fuzz.accepted > 200 && fuzz.refused > 5_000)
    }

    @Test func peerFrames() throws {
        let fuzz = try Fuzz(Corpus("peer"), rounds: 20_000, WireProperties.peer)
        #expect(fuzz.accepted > 500 && fuzz.refused > 2_000)
    }

    @Test func commandRecords() throws {
        let fuzz = try Fuzz(Corpus("records"), rounds: 20_000, WireProperties.records)
        #expect(fuzz.accepted > 200 && fuzz.refused > 5_000)
    }

    @Test func repliesOfTheKeyValueService() throws {
        let fuzz = try Fuzz(Corpus("replies"), rounds: 20_000, WireProperties.replies)
        #expect(fuzz.accepted > 2_000 && fuzz.refused > 2_000)
    }

    // MARK: What is kept

    @Test func aRequestOfEachKindIsKept() throws {
        var seeds: [String: [UInt8]] = [:]
        func keep(_ name: String, _ header: RequestHeader, body: [UInt8] = []) {
            seeds[name] = written(clientHeaderSize) { header.encode(into: $0) } + body
        }
        let body = KeyValueCommand.put(key: [1, 2], value: [3]).body
        keep("open", RequestHeader(.open))
        keep("submit", RequestHeader(.submit, session: 0x10_0001, sequence: 5), body: body)
        keep("submit-outside-sessions", RequestHeader(.submit, flags: .noForward), body: body)
        keep("query", RequestHeader(.query, sequence: 9), body: KeyValueCommand.get(key: [1, 2]).body)
        keep(
            "query-local", RequestHeader(.query, flags: .local, position: 77),
            body: KeyValueCommand.scan(prefix: [], limit: 0).body)
        keep("close", RequestHeader(.close, session: 0x10_0001))
        keep("status", RequestHeader(.status))
        keep("ping", RequestHeader(.ping, sequence: 1), body: [1, 2, 3])
        for status in StatusCode.allCases {
            let header = ReplyHeader(status, flags: .noForward, replica: 2, session: 3, sequence: 4, position: 5)
            seeds["reply-\(status)"] = written(clientHeaderSize) { header.encode(into: $0) }
        }
        #expect(try Corpus.differences("client", from: seeds) == [])
    }

    @Test func aFrameOfEachKindIsKept() throws {
        var seeds: [String: [UInt8]] = [:]
        for (index, message) in PeerFrameTests.messages.enumerated() {
            seeds["\(message.kind)-\(index)"] = PeerFrameTests.encode(message)
        }
        for handshake in HandshakeTests.all {
            let frame = handshake.encode(sender: 1)
            seeds["handshake-\(frame[5])"] = frame
        }
        for (index, message) in TransferMessageTests.messages.enumerated() {
            seeds["transfer-\(index)"] = TransferMessageTests.encode(message)
        }
        for (index, (link, payload)) in LinkFrameTests.frames.enumerated() {
            seeds["link-\(index)"] = LinkFrameTests.encode(link, payload)
        }
        let standing = DigestComparison.Standing(executed: 9, value: .max)
        seeds["digest"] = written(PeerHeader.size) { PeerFrame.encode(standing, sender: 2, into: $0) }
        let record = CommandRecordTests.encode(
            .init(kind: .submit, origin: 1, tag: 2, session: 3, sequence: 4, body: [1]))
        seeds["forward"] =
            written(PeerHeader.size) {
                PeerFrame.encodeForwardHeader(count: record.count, checksum: 7, view: 9, sender: 1, into: $0)
            } + record
        #expect(try Corpus.differences("peer", from: seeds) == [])
    }

    @Test func aRecordOfEachKindIsKept() throws {
        var seeds: [String: [UInt8]] = [:]
        for kind in CommandRecord.Kind.allCases {
            seeds["\(kind)"] = CommandRecordTests.encode(
                .init(kind: kind, origin: 1, tag: 2, session: 3, sequence: 4, body: kind == .submit ? [1, 2, 3] : []))
        }
        seeds["run"] = seeds.keys.sorted().flatMap { seeds[$0]! }
        #expect(try Corpus.differences("records", from: seeds) == [])
    }

    @Test func aReplyOfEachKindIsKept() throws {
        var seeds: [String: [UInt8]] = [:]
        for (index, (operation, bytes, _)) in KeyValueTests.replies.enumerated() {
            seeds["\(operation)-\(index)"] = [operation.rawValue] + bytes
        }
        #expect(try Corpus.differences("replies", from: seeds) == [])
    }
}
