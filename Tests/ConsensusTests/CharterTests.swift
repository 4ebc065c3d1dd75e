import Testing

@testable import MPaxosConsensus

@Suite struct CharterTests {
    static let charter = Charter(
        members: [0, 1, 2], maxRequest: 1 << 20, sessions: 64, stateSize: 3 << 30, machine: "Machine", machineVersion: 1
    )

    /// One for each value, and more than one for those that could be mixed up.
    static let others: [(Charter.Term, Charter)] = {
        func changed(_ change: (inout Charter) -> Void) -> Charter {
            var charter = charter
            change(&charter)
            return charter
        }
        return [
            (.members, changed { $0.members = [0, 1, 3] }), (.members, changed { $0.members = [0, 1] }),
            (.maxRequest, changed { $0.maxRequest = 64 }), (.sessions, changed { $0.sessions = 1 << 20 }),
            (.stateSize, changed { $0.stateSize = 1 }), (.machine, changed { $0.machine = "Machin" }),
            (.machine, changed { $0.machineVersion = 2 }), (.machine, changed { $0.machineVersion = .min }),
        ]
    }()

    @Test func everyDifferenceIsNamed() {
        #expect(Self.charter.differences(from: Self.charter) == [])
        var prints: Set<UInt64> = [Self.charter.fingerprint(layout: 7), Self.charter.fingerprint(layout: 8)]
        for (term, other) in Self.others {
            #expect(Self.charter.differences(from: other) == [term])
            #expect(other.differences(from: Self.charter) == [term])
            #expect(Self.charter.statement(of: term) != other.statement(of: term))
            prints.insert(other.fingerprint(layout: 7))
        }
        #expect(prints.count == Self.others.count + 2, "two of them have one fingerprint")
    }

    @Test func statements() {
        #expect(
            Charter.Term.allCases.map(Self.charter.statement(of:)) == [
                "members = 0, 1, 2", "max_request = 1 MiB", "sessions = 64", "state_size = 3 GiB",
                "machine = 'Machine' version 1",
            ])
        var odd = Self.charter
        (odd.maxRequest, odd.stateSize) = (0, 1025)
        #expect(odd.statement(of: .maxRequest) == "max_request = 0 bytes")
        #expect(odd.statement(of: .stateSize) == "state_size = 1025 bytes")
        #expect(odd.differences(from: Self.charter) == [.maxRequest, .stateSize])
    }

    /// Peers compare it: another function is another version of their protocol.
    @Test func theFingerprintStaysWhatItIs() {
        #expect(Self.charter.fingerprint(layout: 7) == 0x8262_72B6_FCCF_B0B0)
    }

    @Test func soundness() {
        #expect(Self.charter.isSound)
        for members in [[], [1, 1], [2, 1], Array(0..<10)] as [[UInt16]] {
            var charter = Self.charter
            charter.members = members
            #expect(!charter.isSound)
        }
        for name in ["", "a\nb", "\u{7F}", "\u{85}", "a\u{2028}b", "\u{202E}a", String(repeating: "x", count: 256)] {
            #expect(!Charter.isName(name))
        }
        for name in ["x", "Größe", String(repeating: "x", count: 255)] { #expect(Charter.isName(name)) }
    }
}
