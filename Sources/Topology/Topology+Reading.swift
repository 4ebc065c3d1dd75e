import TOMLKit

extension Topology {
    /// Reads and checks the topology file at `path`.
    /// - Throws: the first thing that is wrong, as one line.
    public init(contentsOf path: String) throws(TopologyError) {
        try self.init(parsing: try TopologyFile.read(path), file: path)
        if hasKeys { try TopologyFile.requireGuarded(path) }
    }

    /// The same for a replica that runs, and has no time for a pipe into which nobody writes.
    package static func readAgain(_ path: String) throws(TopologyError) -> Topology {
        let topology = try Topology(parsing: try TopologyFile.read(path, isPatient: false), file: path)
        if topology.hasKeys { try TopologyFile.requireGuarded(path) }
        return topology
    }

    /// Checks `bytes` as if they had been read from `file`.
    package init(parsing bytes: [UInt8], file: String) throws(TopologyError) {
        let table = try TopologyFile.parse(bytes, file: file)
        let top = TableReader(file: file, path: "", table: table)
        try top.allowOnly([
            "name", "replica", "storage", "protocol", "client", "pipeline", "limits", "http", "security",
        ])
        let name = try Self.readName(top)
        let storage = try Storage(top.table("storage"), clusterName: name)
        let readers = try top.tables("replica", count: 1...9)
        var members: [Member] = []
        for reader in readers {
            members.append(try Member(reader, directory: storage.directory))
        }
        try Self.checkUniqueness(of: members, readers)
        try Self.checkKeys(of: members, readers)
        self.file = file
        self.name = name
        self.storage = storage
        replicas = members.sorted { $0.id < $1.id }
        `protocol` = try ProtocolOptions(top.table("protocol"))
        security = try Security(top.table("security"))
        let hasKeys = members.contains { !$0.publicKeys.isEmpty }
        http = try HTTPOptions(top.table("http"))
        try Self.checkHTTP(of: members, readers, http, hasKeys: hasKeys)
        client = try ClientOptions(top.table("client"), logSize: storage.logSize, hasKeys: hasKeys)
        pipeline = try Pipeline(top.table("pipeline"))
        limits = try Limits(top.table("limits"), maxRequest: client.maxRequest)
    }

    private static func readName(_ top: TableReader) throws(TopologyError) -> String {
        let expected = "a string of 1 to 255 bytes"
        let name = try require(top.string("name"), or: top.missing("name", expected: expected))
        guard (1...255).contains(name.utf8.count) else {
            throw top.error("name", "has \(name.utf8.count) bytes", expected: expected)
        }
        guard !name.contains(where: isUnprintable) else {
            throw top.error("name", "has control characters", expected: "\(expected) without them")
        }
        return name
    }

    /// No two replicas under one id, no two listeners at one place.
    private static func checkUniqueness(of members: [Member], _ readers: [TableReader]) throws(TopologyError) {
        var ids: [UInt16: String] = [:]
        var connected: [Endpoint.Place: String] = [:]
        for (member, reader) in zip(members, readers) {
            if let other = ids.updateValue(reader.path(of: "id"), forKey: member.id) {
                throw reader.error("id", "\(member.id) is \(other) already", expected: "a unique id")
            }
            for (key, endpoint) in [("peer", member.peer), ("client", member.client)] {
                if let other = connected.updateValue(reader.path(of: key), forKey: endpoint.place) {
                    throw reader.error(key, "\"\(endpoint)\" is \(other) already", expected: "a unique endpoint")
                }
            }
        }
        for (number, member) in members.enumerated() {
            let reader = readers[number]
            let listeners = member.listeners
            for (position, listener) in listeners.enumerated() {
                guard let other = listeners[..<position].first(where: { $0.place.clashes(with: listener.place) }) else {
                    continue
                }
                throw reader.error(
                    listener.key, "is taken by \(reader.path(of: other.key))", expected: "a unique endpoint")
            }
            guard let http = member.http else { continue }
            for (otherNumber, other) in members.enumerated() where otherNumber != number {
                // One address of the loopback interface may serve on every host: it is a clash only within one host.
                let clashes = other.listeners.contains { $0.place.clashes(with: .network(http)) }
                if clashes && member.sharesHost(with: other) {
                    throw reader.error(
                        "http", "\"\(http)\" is taken by \(readers[otherNumber].path)", expected: "a unique address")
                }
            }
        }
    }
}

extension Topology.Member {
    static let keys = ["id", "peer", "client", "http", "peer_bind", "client_bind", "directory", "public_key"]

    init(_ table: TableReader, directory: String) throws(TopologyError) {
        try table.allowOnly(Self.keys)
        let range = 0...Int(UInt16.max)
        let number = try require(
            table.integer("id", in: range), or: table.missing("id", expected: "an integer from 0 to 65535"))
        id = UInt16(number)
        peer = try Self.readEndpoint(table, "peer")
        client = try Self.readEndpoint(table, "client")
        peerBind = try table.endpoint("peer_bind") ?? peer
        clientBind = try table.endpoint("client_bind") ?? client
        http = try table.httpAddress("http")
        publicKeys = try table.publicKeys("public_key")
        let ownDirectory = try Topology.Storage.readDirectory(table)
        folder = "\(ownDirectory ?? directory)/\(number)"
    }

    /// An endpoint that others connect to.
    private static func readEndpoint(_ table: TableReader, _ key: String) throws(TopologyError) -> Endpoint {
        let endpoint = try require(table.endpoint(key), or: table.missing(key, expected: Endpoint.expected))
        guard !endpoint.isWildcard else {
            throw table.error(
                key, "\"\(endpoint)\" is nothing to connect to",
                expected: "\(Endpoint.expected) with a host that others can reach, and the wildcard as \(key)_bind")
        }
        return endpoint
    }

    /// What this replica listens at, by key.
    var listeners: [(key: String, place: Endpoint.Place)] {
        var listeners = [("peer_bind", peerBind.place), ("client_bind", clientBind.place)]
        if let http { listeners.append(("http", .network(http))) }
        return listeners
    }

    /// Whether two replicas run on one host, as far as their peer endpoints tell.
    func sharesHost(with other: Self) -> Bool {
        switch (peer.place, other.peer.place) {
        case (.path, .path): return true
        case (.network(let mine), .network(let theirs)):
            return mine.host == theirs.host || (mine.isLoopback && theirs.isLoopback)
        default: return true
        }
    }
}

extension Topology.Storage {
    /// A pool is one object of libpmemobj, which has less than 16 GiB, and what the pool keeps beside it.
    private static let largestPool = 14 * ByteSize.gibibyte

    init(_ table: TableReader, clusterName: String) throws(TopologyError) {
        try table.allowOnly(["directory", "log_size", "state_size"])
        if let given = try Self.readDirectory(table) {
            directory = given
        } else {
            guard !clusterName.contains("/"), clusterName != ".", clusterName != ".." else {
                throw table.missing("directory", expected: "one, as the cluster's name is no name for a folder")
            }
            directory = Defaults.directoryParent + clusterName
        }
        logSize = try table.size("log_size", in: 8 * ByteSize.mebibyte...Self.largestPool) ?? Defaults.logSize
        stateSize = try table.size("state_size", in: 32 * ByteSize.mebibyte...Self.largestPool) ?? Defaults.stateSize
    }

    /// `directory`, without a slash at its end.
    static func readDirectory(_ table: TableReader) throws(TopologyError) -> String? {
        guard var path = try table.string("directory") else { return nil }
        guard !path.isEmpty, !path.contains(where: isUnprintable) else {
            throw table.error("directory", "\"\(path)\" is no folder", expected: "the path of a folder")
        }
        while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
        return path
    }
}

extension Topology.ProtocolOptions {
    init(_ table: TableReader) throws(TopologyError) {
        try table.allowOnly(["window", "batch_bytes", "batch_delay_us", "heartbeat_ms", "suspect_ms"])
        window = try table.integer("window", in: 1...1024) ?? Defaults.window
        batchBytes =
            try table.size("batch_bytes", in: 4 * ByteSize.kibibyte...4 * ByteSize.mebibyte) ?? Defaults.batchBytes
        batchDelayMicroseconds =
            try table.integer("batch_delay_us", in: 0...1_000_000) ?? Defaults.batchDelayMicroseconds
        let heartbeat = try table.integer("heartbeat_ms", in: 1...60_000) ?? Defaults.heartbeatMilliseconds
        let suspect = try table.integer("suspect_ms", in: 1...3_600_000) ?? Defaults.suspectMilliseconds
        guard suspect >= 2 * heartbeat else {
            throw table.error(
                "suspect_ms", "\(suspect) is too short for a heartbeat of \(heartbeat) ms",
                expected: "at least 2 heartbeats, \(2 * heartbeat)")
        }
        heartbeatMilliseconds = heartbeat
        suspectMilliseconds = suspect
    }
}

extension Topology.ClientOptions {
    init(_ table: TableReader, logSize: Int, hasKeys: Bool) throws(TopologyError) {
        try table.allowOnly(["sessions", "max_request", "max_outstanding", "socket", "security"])
        sessions = try table.integer("sessions", in: 16...1_048_576) ?? Defaults.sessions
        let limit = try table.size("max_request", in: 1...16 * ByteSize.mebibyte) ?? Defaults.maxRequest
        guard limit <= logSize / 8 else {
            throw table.error(
                "max_request",
                "\(ByteSize.describe(limit)) is too large for a log_size of \(ByteSize.describe(logSize))",
                expected: "at most an eighth of it, \(ByteSize.describe(logSize / 8))")
        }
        maxRequest = limit
        maxOutstanding = try table.integer("max_outstanding", in: 1...1_048_576) ?? Defaults.maxOutstanding
        socket = try table.choice("socket", Socket.self) ?? Defaults.socket
        security = try table.choice("security", Security.self) ?? .none
        guard security == .none || hasKeys else {
            throw table.error(
                "security", "is \"curve\", and replicas have no keys that clients could know them by",
                expected: "a public_key for each [[replica]]")
        }
    }
}

extension Topology.Pipeline {
    init(_ table: TableReader) throws(TopologyError) {
        try table.allowOnly(["threads", "io_threads"])
        threads = try table.choice("threads", Threads.self) ?? Defaults.threads
        ioThreads = try table.integer("io_threads", in: 1...64) ?? Defaults.ioThreads
    }
}

extension Topology.Limits {
    init(_ table: TableReader, maxRequest: Int) throws(TopologyError) {
        try table.allowOnly([
            "peer_input", "client_input", "message_s", "silence_s", "http_connections", "private_memory",
        ])
        peerInput = try Self.readInput(table, "peer_input", maxRequest) ?? Defaults.peerInput
        clientInput = try Self.readInput(table, "client_input", maxRequest) ?? Defaults.clientInput
        messageSeconds = try table.integer("message_s", in: 1...3600) ?? Defaults.messageSeconds
        silenceSeconds = try table.integer("silence_s", in: 1...86_400) ?? Defaults.silenceSeconds
        httpConnections = try table.integer("http_connections", in: 1...4096) ?? Defaults.httpConnections
        privateMemory = try table.size("private_memory", in: 16 * ByteSize.mebibyte...ByteSize.tebibyte)
    }

    /// A budget below what one message may need would refuse that message for ever.
    private static func readInput(
        _ table: TableReader, _ key: String, _ maxRequest: Int
    ) throws(TopologyError) -> Int? {
        let least = max(16 * ByteSize.mebibyte, 4 * maxRequest)
        return try table.size(key, in: least...16 * ByteSize.gibibyte)
    }
}
