import Testing

@testable import MPaxosWire

@Suite struct CommandRecordTests {
    struct Value: Equatable {
        var kind: CommandRecord.Kind
        var origin: UInt16
        var tag: UInt64
        var session: UInt64
        var sequence: UInt64
        var body: [UInt8]
    }

    static func encode(_ value: Value) -> [UInt8] {
        written(CommandRecord.size(bodyCount: value.body.count)) { bytes in
            value.body.withUnsafeBytes {
                let size = CommandRecord.write(
                    into: bytes, kind: value.kind, origin: value.origin, tag: value.tag, session: value.session,
                    sequence: value.sequence, body: $0)
                precondition(size == CommandRecord.size(bodyCount: $0.count))
            }
        }
    }

    static func decode(_ bytes: [UInt8]) -> (values: [Value], damaged: Bool) {
        withExactBytes(bytes) { run in
            var records = CommandRecords(run)
            var values: [Value] = []
            while let record = records.next() {
                values.append(
                    Value(
                        kind: record.kind, origin: record.origin, tag: record.tag, session: record.session,
                        sequence: record.sequence, body: Array(record.body)))
            }
            return (values, records.isDamaged)
        }
    }

    static func random(_ random: inout SeededRandom) -> Value {
        Value(
            kind: .allCases.randomElement(using: &random)!, origin: .random(in: 0...UInt16.max, using: &random),
            tag: random.next(), session: random.next(), sequence: random.next(),
            body: (0..<Int.random(in: 0...40, using: &random)).map { _ in .random(in: 0...255, using: &random) })
    }

    @Test func bytesOfARecord() {
        let value = Value(
            kind: .query, origin: 0x0201, tag: 0x0807_0605_0403_0201, session: 3, sequence: 4, body: [9, 8, 7])
        #expect(
            Self.encode(value) == [
                3, 0, 0, 0, 3, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
                9, 8, 7, 0, 0, 0, 0, 0,
            ])
    }

    @Test func sizesAreMultiplesOfEight() {
        #expect(
            (0...17).map(CommandRecord.size(bodyCount:)) == [32] + .init(repeating: 40, count: 8)
                + .init(repeating: 48, count: 8) + [56])
    }

    @Test func runsComeBackAsTheyWere() {
        var random = SeededRandom(seed: 21)
        for count in 0..<60 {
            let values = (0..<count).map { _ in Self.random(&random) }
            let bytes = values.flatMap(Self.encode)
            let decoded = Self.decode(bytes)
            #expect(decoded.values == values)
            #expect(!decoded.damaged)
            #expect(withExactBytes(bytes) { CommandRecords.count(in: $0) } == count)
        }
    }

    @Test func everyCutIsDamage() {
        let values = [
            Value(kind: .submit, origin: 1, tag: 2, session: 3, sequence: 4, body: [1, 2, 3]),
            Value(kind: .open, origin: 1, tag: 2, session: 0, sequence: 0, body: []),
        ]
        let bytes = values.flatMap(Self.encode)
        #expect(bytes.count == 72)
        for count in 0...bytes.count {
            let decoded = Self.decode(Array(bytes.prefix(count)))
            #expect(decoded.damaged == ![0, 40, 72].contains(count))
            #expect(decoded.values == Array(values.prefix(count < 40 ? 0 : count < 72 ? 1 : 2)))
        }
    }

    @Test func fieldsOutOfPlaceAreDamage() {
        let good = Self.encode(Value(kind: .submit, origin: 1, tag: 2, session: 3, sequence: 4, body: [1, 2, 3]))
        for (at, value) in [(0, 9), (0, 0xFF), (3, 0xFF), (4, 0), (4, 5), (5, 1), (35, 1), (39, 0x80)] {
            var bytes = good
            bytes[at] = UInt8(value)
            #expect(Self.decode(bytes).damaged, "byte \(at) = \(value)")
            #expect(withExactBytes(bytes) { CommandRecords.count(in: $0) } == nil)
        }
        // A longer body whose end still lies in the padding is another record, not damage; a shorter one leaves dirt.
        var longer = good
        longer[0] = 8
        #expect(Self.decode(longer).values.first?.body == [1, 2, 3, 0, 0, 0, 0, 0])
        var shorter = good
        shorter[0] = 2
        #expect(Self.decode(shorter).damaged)
    }

    @Test func damageIsFinal() {
        withExactBytes([UInt8](repeating: 0xFF, count: 64)) { bytes in
            var records = CommandRecords(bytes)
            #expect(records.next() == nil && records.isDamaged)
            #expect(records.next() == nil && records.isDamaged)
            #expect(records.offset == 0)
        }
    }

    @Test func mutatedRunsNeverReadBeyond() {
        var random = SeededRandom(seed: 22)
        var damaged = 0
        for _ in 0..<10_000 {
            let values = (0..<Int.random(in: 0...4, using: &random)).map { _ in Self.random(&random) }
            let bytes = mutated(values.flatMap(Self.encode), using: &random)
            let decoded = Self.decode(bytes)
            // What was read encodes to exactly the part of the run that was accepted.
            let accepted = decoded.values.flatMap(Self.encode)
            #expect(accepted == Array(bytes.prefix(accepted.count)))
            #expect(decoded.damaged == (accepted.count != bytes.count))
            if decoded.damaged { damaged += 1 }
        }
        #expect(damaged > 3000)
    }
}
