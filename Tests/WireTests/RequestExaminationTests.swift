import Testing

@testable import MPaxosWire

@Suite struct RequestExaminationTests {
    private static let limit = 1000

    private static func examine(
        _ header: RequestHeader, bodySize: Int = 0, frames: Int = 2
    ) -> RequestExamination {
        let bytes = written(32) { header.encode(into: $0) }
        return withExactBytes(bytes) {
            RequestExamination(frames: frames, header: $0, bodySize: bodySize, maxRequest: limit, replica: 7)
        }
    }

    private static func raw(
        _ command: UInt8, flags: UInt8 = 0, reserved: UInt16 = 0, session: UInt64 = 0, sequence: UInt64 = 0,
        position: UInt64 = 0
    ) -> RequestHeader {
        var header = RequestHeader(
            .ping, flags: RequestFlags(rawValue: flags), session: session, sequence: sequence, position: position)
        header.command = command
        header.reserved = reserved
        return header
    }

    /// The rules in their plainest form, written down a second time as a table: what breaks, or nil.
    struct Row: Sendable, CustomTestStringConvertible {
        let what: String
        let header: RequestHeader
        let body: Int
        let expected: Rejection.Cause?

        init(_ what: String, _ header: RequestHeader, body: Int = 0, _ expected: Rejection.Cause? = nil) {
            self.what = what
            self.header = header
            self.body = body
            self.expected = expected
        }

        var testDescription: String { what }
    }

    static let table: [Row] = [
        Row("OPEN", raw(1)),
        Row("OPEN may not be forwarded", raw(1, flags: 1, sequence: 9)),
        Row("OPEN with LOCAL", raw(1, flags: 2), .malformed(.localMisplaced)),
        Row("OPEN with a session", raw(1, session: 1), .malformed(.sessionNotZero)),
        Row("OPEN with a body", raw(1), body: 1, .malformed(.unexpectedBody)),
        Row("OPEN with a position", raw(1, position: 1), .malformed(.positionNotZero)),
        Row("OPEN, oversized", raw(1), body: limit + 1, .tooLarge(limit: 1000)),
        Row("SUBMIT in a session", raw(2, session: 5, sequence: 1), body: 10),
        Row("SUBMIT, no body: the state machine's matter", raw(2, session: 5, sequence: 1)),
        Row("SUBMIT, largest sequence", raw(2, flags: 1, session: .max, sequence: .max), body: limit),
        Row("SUBMIT with sequence 0", raw(2, session: 5), body: 10, .malformed(.sequenceZero)),
        Row("SUBMIT outside sessions", raw(2), body: 10),
        Row("SUBMIT outside sessions, sequence free", raw(2, sequence: 77), body: 10),
        Row("SUBMIT with LOCAL", raw(2, flags: 2), body: 10, .malformed(.localMisplaced)),
        Row("SUBMIT with both flags", raw(2, flags: 3), body: 10, .malformed(.localMisplaced)),
        Row("SUBMIT with a position", raw(2, position: 1), body: 10, .malformed(.positionNotZero)),
        Row("SUBMIT with reserved bytes", raw(2, reserved: 0x100), body: 10, .malformed(.reservedNotZero)),
        Row("SUBMIT at the limit", raw(2), body: limit),
        Row("SUBMIT beyond the limit", raw(2), body: limit + 1, .tooLarge(limit: 1000)),
        Row(
            "SUBMIT beyond the limit and malformed", raw(2, session: 5), body: limit + 1, .malformed(.sequenceZero)),
        Row("QUERY", raw(3, sequence: 4), body: 10),
        Row("QUERY NO_FORWARD", raw(3, flags: 1), body: 10),
        Row("QUERY LOCAL", raw(3, flags: 2), body: 10),
        Row("QUERY LOCAL at a position", raw(3, flags: 2, position: .max), body: 10),
        Row("QUERY LOCAL and NO_FORWARD", raw(3, flags: 3, position: 3), body: 10),
        Row("QUERY at a position, not LOCAL", raw(3, position: 3), body: 10, .malformed(.positionNotZero)),
        Row("QUERY with a session", raw(3, session: 1), body: 10, .malformed(.sessionNotZero)),
        Row("QUERY beyond the limit", raw(3), body: limit + 1, .tooLarge(limit: 1000)),
        Row("CLOSE", raw(4, session: 5)),
        Row("CLOSE NO_FORWARD", raw(4, flags: 1, session: 5, sequence: 3)),
        Row("CLOSE without a session", raw(4), .malformed(.sessionMissing)),
        Row("CLOSE with a body", raw(4, session: 5), body: 1, .malformed(.unexpectedBody)),
        Row("CLOSE with LOCAL", raw(4, flags: 2, session: 5), .malformed(.localMisplaced)),
        Row("STATUS", raw(5, sequence: 1)),
        Row("STATUS with a body", raw(5), body: 1, .malformed(.unexpectedBody)),
        Row("STATUS NO_FORWARD", raw(5, flags: 1), .malformed(.noForwardMisplaced)),
        Row("STATUS LOCAL", raw(5, flags: 2), .malformed(.localMisplaced)),
        Row("STATUS with a session", raw(5, session: 1), .malformed(.sessionNotZero)),
        Row("PING", raw(6, sequence: 1)),
        Row("PING with a body", raw(6), body: limit),
        Row("PING beyond the limit", raw(6), body: limit + 1, .tooLarge(limit: 1000)),
        Row("PING NO_FORWARD", raw(6, flags: 1), .malformed(.noForwardMisplaced)),
        Row("PING with a session", raw(6, session: 1), .malformed(.sessionNotZero)),
        Row("PING with a position", raw(6, position: 1), .malformed(.positionNotZero)),
        Row("command 0", raw(0), .malformed(.unknownCommand)),
        Row("command 7", raw(7, session: 5, sequence: 6, position: 7), .malformed(.unknownCommand)),
        Row("command 255, oversized", raw(255), body: limit + 1, .malformed(.unknownCommand)),
        Row("flag 4", raw(3, flags: 4), body: 1, .malformed(.unknownFlag)),
        Row("flag 128 with known ones", raw(3, flags: 0x83), body: 1, .malformed(.unknownFlag)),
        Row("QUERY with reserved bytes", raw(3, reserved: 1), body: 1, .malformed(.reservedNotZero)),
    ]

    @Test(arguments: table) func rulesOfTheTable(row: Row) {
        switch Self.examine(row.header, bodySize: row.body) {
        case .accepted(let header, let code):
            #expect(row.expected == nil, "accepted")
            #expect(header == row.header)
            #expect(code.rawValue == row.header.command)
        case .rejected(let rejection):
            #expect(rejection.cause == row.expected)
            // What could be read is echoed; the position never is.
            #expect(rejection.header.flags == row.header.flags)
            #expect(rejection.header.session == row.header.session)
            #expect(rejection.header.sequence == row.header.sequence)
            #expect(rejection.header.position == 0)
            #expect(rejection.header.replica == 7)
            if case .tooLarge = rejection.cause {
                #expect(rejection.header.status == .tooLarge)
            } else {
                #expect(rejection.header.status == .malformed)
            }
        }
    }

    @Test func withoutAReadableHeaderNothingIsEchoed() {
        let header = Self.raw(2, flags: 1, session: 5, sequence: 6, position: 0)
        let good = written(32) { header.encode(into: $0) }
        var badMagic = good
        badMagic[3] = 0x32
        let cases: [([UInt8], Int, MalformedReason)] = [
            (good, 0, .frameCount), (good, 1, .frameCount), (good, 3, .frameCount), (good, 100, .frameCount),
            ([], 2, .headerSize), (Array(good.prefix(31)), 2, .headerSize), (good + [0], 2, .headerSize),
            (badMagic, 2, .magic),
        ]
        for (bytes, frames, reason) in cases {
            let examination = withExactBytes(bytes) {
                RequestExamination(frames: frames, header: $0, bodySize: 5000, maxRequest: Self.limit, replica: 7)
            }
            guard case .rejected(let rejection) = examination else {
                Issue.record("accepted: \(reason)")
                continue
            }
            #expect(rejection.cause == .malformed(reason))
            #expect(
                rejection.header
                    == ReplyHeader(.malformed, flags: [], replica: 7, session: 0, sequence: 0, position: 0))
        }
    }

    @Test func bodiesOfRefusals() {
        for reason in MalformedReason.allCases {
            let header = ReplyHeader(.malformed, flags: [], replica: 0, session: 0, sequence: 0, position: 0)
            var count = 0
            let bytes = written(Rejection.largestBody) {
                count = Rejection(cause: .malformed(reason), header: header).writeBody(into: $0)
            }
            #expect(String(decoding: bytes.prefix(count), as: UTF8.self) == "\(reason.text)")
            #expect(count > 10)
        }
        let header = ReplyHeader(.tooLarge, flags: [], replica: 0, session: 0, sequence: 0, position: 0)
        var count = 0
        let bytes = written(4) {
            count = Rejection(cause: .tooLarge(limit: 0x0102_0304), header: header).writeBody(into: $0)
        }
        #expect(count == 4 && bytes == [4, 3, 2, 1])
    }

    @Test func mutatedRequestsAreJudgedWithoutReadingBeyond() {
        var random = SeededRandom(seed: 11)
        var verdicts = (accepted: 0, rejected: 0)
        for _ in 0..<20_000 {
            let row = Self.table.randomElement(using: &random)!
            let bytes = mutated(written(32) { row.header.encode(into: $0) }, using: &random)
            let body = Int.random(in: 0...1100, using: &random)
            let examination = withExactBytes(bytes) {
                RequestExamination(frames: 2, header: $0, bodySize: body, maxRequest: Self.limit, replica: 7)
            }
            switch examination {
            case .accepted(let header, _):
                // Whatever is accepted is canonical: it encodes to the very bytes that came.
                #expect(written(32) { header.encode(into: $0) } == bytes)
                verdicts.accepted += 1
            case .rejected:
                verdicts.rejected += 1
            }
        }
        #expect(verdicts.accepted > 100 && verdicts.rejected > 10_000)
    }
}
