import MPaxosKeys

/// What a client may do, by its key. Each role may do what those before it may.
public enum Role: String, Sendable, CaseIterable, Comparable {
    /// STATUS, PING and QUERY.
    case read
    /// Besides, OPEN, SUBMIT and CLOSE.
    case write
    /// Besides, what changes the cluster.
    case admin

    /// 1 for `read`, and higher for each that may do more; 0 is nobody's.
    package var rank: UInt8 {
        switch self {
        case .read: 1
        case .write: 2
        case .admin: 3
        }
    }

    public static func < (a: Role, b: Role) -> Bool { a.rank < b.rank }
}

/// Which keys clients may have, and what each may do: a TOML file of its own, which a replica reads again while it
/// runs.
///
/// ```toml
/// [[client]]
/// name = "billing"
/// public_key = "..."
/// role = "write"
/// ```
public struct ClientKeys: Sendable {
    /// A client that may come in.
    public struct Entry: Sendable, Equatable {
        /// For people: 1 to 255 bytes, unique.
        public let name: String
        /// Unique.
        public let publicKey: PublicKey
        public let role: Role
    }

    /// In the order of the file.
    public let entries: [Entry]

    /// More than any cluster has clients; a bound for memory.
    static let most = 65_536

    /// Reads and checks the file at `path`.
    /// - Throws: the first thing that is wrong, as one line.
    public init(contentsOf path: String) throws(TopologyError) {
        try TopologyFile.requireGuarded(path)
        try self.init(
            parsing: try TopologyFile.read(path, largest: TopologyFile.largestKeys, isPatient: false), file: path)
    }

    /// Checks `bytes` as if they had been read from `file`.
    package init(parsing bytes: [UInt8], file: String) throws(TopologyError) {
        let table = try TopologyFile.parse(bytes, file: file)
        let top = TableReader(file: file, path: "", table: table)
        try top.allowOnly(["client"])
        var entries: [Entry] = []
        var names: [String: String] = [:]
        var keys: [PublicKey: String] = [:]
        for reader in try top.tables("client", count: 0...Self.most, isRequired: false) {
            let entry = try Entry(reader)
            if let other = names.updateValue(reader.path(of: "name"), forKey: entry.name) {
                throw reader.error("name", "\"\(entry.name)\" is \(other) already", expected: "a unique name")
            }
            if let other = keys.updateValue(reader.path(of: "public_key"), forKey: entry.publicKey) {
                throw reader.error(
                    "public_key", "\"\(entry.publicKey)\" is \(other) already",
                    expected: "a key that belongs to one client")
            }
            entries.append(entry)
        }
        self.entries = entries
    }
}

extension ClientKeys.Entry {
    init(_ table: TableReader) throws(TopologyError) {
        try table.allowOnly(["name", "public_key", "role"])
        let expectedName = "a string of 1 to 255 bytes without control characters"
        let name = try require(table.string("name"), or: table.missing("name", expected: expectedName))
        guard (1...255).contains(name.utf8.count), !name.contains(where: isUnprintable) else {
            throw table.error("name", "is no name", expected: expectedName)
        }
        self.name = name
        publicKey = try require(
            table.publicKey("public_key"), or: table.missing("public_key", expected: PublicKey.expected))
        role = try require(
            table.choice("role", Role.self),
            or: table.missing("role", expected: "\"read\" or \"write\" or \"admin\""))
    }
}
