import MPaxosKeys

extension Topology {
    /// Where this host keeps the keys of a cluster that has some.
    public struct Security: Sendable {
        /// The folder of the secret keys.
        public let folder: String
        /// Who may do what with which key.
        public let clientKeysFile: String
    }

    /// Whether replicas are known by keys. Then all of them have one, and links are encrypted.
    public var hasKeys: Bool { replicas.contains { !$0.publicKeys.isEmpty } }

    /// Whether clients are known by keys, too.
    public var clientsHaveKeys: Bool { client.security == .curve }

    /// The file of replica `id`'s secret key.
    public func secretKeyFile(of id: UInt16) -> String { "\(security.folder)/replica-\(id).key" }

    /// The file of the key that tools on this host use where none is named.
    public var operatorKeyFile: String { "\(security.folder)/operator.key" }

    /// All replicas have a key, or none has; and a key belongs to one.
    static func checkKeys(of members: [Member], _ readers: [TableReader]) throws(TopologyError) {
        guard let first = members.firstIndex(where: { !$0.publicKeys.isEmpty }) else { return }
        var owners: [PublicKey: String] = [:]
        for (member, reader) in zip(members, readers) {
            guard !member.publicKeys.isEmpty else {
                throw reader.error(
                    "public_key", "missing, while \(readers[first].path) has one",
                    expected: "a key for each replica, or for none")
            }
            for key in member.publicKeys {
                if let other = owners.updateValue(reader.path(of: "public_key"), forKey: key) {
                    throw reader.error(
                        "public_key", "\"\(key)\" is \(other) already", expected: "a key that belongs to one replica")
                }
            }
        }
    }
}

extension Topology.Security {
    init(_ table: TableReader) throws(TopologyError) {
        try table.allowOnly(["keys", "client_keys"])
        folder = try table.filePath("keys") ?? table.besideTopology("keys")
        clientKeysFile = try table.filePath("client_keys") ?? "\(folder)/clients.toml"
    }
}

extension TableReader {
    /// A path; one that does not begin with a slash begins at the folder of the topology file.
    func filePath(_ key: String) throws(TopologyError) -> String? {
        guard var path = try string(key) else { return nil }
        guard !path.isEmpty, !path.contains(where: isUnprintable) else {
            throw error(key, "\"\(path)\" is no path", expected: "the path of a file or folder")
        }
        while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
        return besideTopology(path)
    }

    func besideTopology(_ path: String) -> String {
        guard !path.hasPrefix("/"), let slash = file.lastIndex(of: "/") else { return path }
        return "\(file[...slash])\(path)"
    }

    func publicKey(_ key: String) throws(TopologyError) -> PublicKey? {
        guard let text = try string(key) else { return nil }
        return try publicKey(text, key)
    }

    private func publicKey(_ text: String, _ key: String) throws(TopologyError) -> PublicKey {
        guard let parsed = PublicKey(text) else {
            throw error(key, "\"\(text)\" is no public key", expected: PublicKey.expected)
        }
        return parsed
    }

    /// One key, or two of which the first is the one in use: none where there is none.
    func publicKeys(_ key: String) throws(TopologyError) -> [PublicKey] {
        let texts = try strings(key, count: 1...2)
        var keys: [PublicKey] = []
        for text in texts { keys.append(try publicKey(text, key)) }
        return keys
    }
}
