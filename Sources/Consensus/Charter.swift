/// What every replica of a cluster is formatted for and has to have alike: whose votes are counted, and what the
/// outcome of a command depends on beside the commands before it. Pools keep it, a start compares it with the topology
/// and the program, and peers compare it when they meet.
package struct Charter: Equatable, Sendable, Codable {
    package static let mostMembers = 9
    private static let longestName = 255

    /// The ids of all replicas, ascending.
    package var members: [UInt16]
    /// A request, and with it a value, that has more bytes is refused.
    package var maxRequest: UInt64
    /// When so many are open, the next one evicts another.
    package var sessions: UInt64
    /// Bytes of the state pool: decides which commands find the store full.
    package var stateSize: UInt64
    /// The name and the version of the state machine.
    package var machine: String
    package var machineVersion: Int64

    package init(
        members: [UInt16], maxRequest: UInt64, sessions: UInt64, stateSize: UInt64, machine: String,
        machineVersion: Int64
    ) {
        self.members = members
        self.maxRequest = maxRequest
        self.sessions = sessions
        self.stateSize = stateSize
        self.machine = machine
        self.machineVersion = machineVersion
    }

    /// Whether it can be one: 1 to 9 members, ascending, and a machine with a name.
    package var isSound: Bool {
        (1...Self.mostMembers).contains(members.count) && zip(members, members.dropFirst()).allSatisfy(<)
            && Self.isName(machine)
    }

    /// Whether a machine may be called so: 1 to 255 bytes of UTF-8, plain text, since it is logged.
    package static func isName(_ name: String) -> Bool {
        (1...longestName).contains(name.utf8.count) && name.isPlainText
    }

    /// One of its values, for messages: the raw value is the name, which is the key in the topology file where there is
    /// one.
    package enum Term: String, CaseIterable, Sendable {
        case members
        case maxRequest = "max_request"
        case sessions
        case stateSize = "state_size"
        case machine
    }

    /// The terms on which two charters differ.
    package func differences(from other: Charter) -> [Term] { Term.allCases.filter { self[$0] != other[$0] } }

    /// A term with its value, as in `max_request = 1 MiB`.
    package func statement(of term: Term) -> String { "\(term.rawValue) = \(self[term])" }

    /// A value is spelled so that values that differ are spelled differently.
    private subscript(term: Term) -> String {
        switch term {
        case .members: members.map { String($0) }.joined(separator: ", ")
        case .maxRequest: Self.size(maxRequest)
        case .sessions: String(sessions)
        case .stateSize: Self.size(stateSize)
        case .machine: "'\(machine)' version \(machineVersion)"
        }
    }

    /// A size with the largest unit that is exact.
    package static func size(_ bytes: UInt64) -> String {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] as [(String, UInt64)] {
            if bytes > 0, bytes & (1 << shift - 1) == 0 { return "\(bytes >> shift) \(unit)" }
        }
        return "\(bytes) bytes"
    }

    /// A hash of all of it, and of `layout`: whatever else of a state pool has to be alike. FNV-1a.
    package func fingerprint(layout: UInt64) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        func take(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        func take(_ word: UInt64) { for shift in stride(from: 0, to: 64, by: 8) { take(UInt8(word >> shift & 0xFF)) } }
        take(UInt64(members.count))
        for id in members { take(UInt64(id)) }
        take(maxRequest)
        take(sessions)
        take(stateSize)
        take(UInt64(bitPattern: machineVersion))
        take(layout)
        for byte in machine.utf8 { take(byte) }
        return hash
    }
}
