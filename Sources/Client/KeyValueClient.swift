import MPaxosKeyValueFormat

/// The key-value service, typed. Writes go through one session, opened when first needed, one after another; reads are
/// linearizable queries beside it. For writes in parallel use several of these over one `Client`.
public actor KeyValueClient {
    private let client: Client
    private var session: ClientSession?

    public init(_ client: Client) {
        self.client = client
    }

    /// Sets a key's value; the one that was replaced, or nil.
    public func put(_ key: [UInt8], _ value: [UInt8]) async throws(ClientError) -> [UInt8]? {
        try await replaced(.put(key: key, value: value))
    }

    /// A key's value, or nil.
    public func get(_ key: [UInt8]) async throws(ClientError) -> [UInt8]? {
        try await replaced(.get(key: key))
    }

    /// Removes a key; the value it had, or nil.
    public func delete(_ key: [UInt8]) async throws(ClientError) -> [UInt8]? {
        try await replaced(.delete(key: key))
    }

    /// Sets a key's value to `new` if it is `expected` (nil: if there is none). `found`: the value now.
    public func compareAndSwap(
        _ key: [UInt8], expected: [UInt8]?, new: [UInt8]
    ) async throws(ClientError) -> (swapped: Bool, found: [UInt8]?) {
        switch try await perform(.compareAndSwap(key: key, expected: expected, new: new)) {
        case .swapped(let value): return (true, value)
        case .notSwapped(let found): return (false, found)
        case let other: throw unexpected(other)
        }
    }

    /// Appends to a key's value; its length after.
    public func append(_ key: [UInt8], _ bytes: [UInt8]) async throws(ClientError) -> UInt64 {
        guard case .length(let length) = try await perform(.append(key: key, bytes: bytes)) else {
            throw .unintelligible("append")
        }
        return length
    }

    /// Adds to a key's value as a 64-bit integer; the sum.
    public func add(_ key: [UInt8], _ delta: Int64) async throws(ClientError) -> Int64 {
        guard case .sum(let sum) = try await perform(.add(key: key, delta: delta)) else { throw .unintelligible("add") }
        return sum
    }

    /// Keys that begin with `prefix`, and their values, in no particular order; `more`: some were left out, for `limit`
    /// (0: none given) or for the size of a reply.
    public func scan(
        prefix: [UInt8] = [], limit: UInt32 = 0
    ) async throws(ClientError) -> (entries: [KeyValueEntry], more: Bool) {
        guard case .entries(let entries, let more) = try await perform(.scan(prefix: prefix, limit: limit)) else {
            throw .unintelligible("scan")
        }
        return (entries, more)
    }

    /// Ends the session, if one is open.
    public func close() async throws(ClientError) {
        guard let open = session else { return }
        session = nil
        try await open.close()
    }

    /// Any operation; `.refused` comes back as an error.
    public func perform(_ command: KeyValueCommand) async throws(ClientError) -> KeyValueReply {
        let answer = command.isQuery ? try await client.query(command.body) : try await submit(command.body)
        let reply = try KeyValueReply(answer, of: command)
        if case .refused(let reason) = reply { throw .refused(reason) }
        return reply
    }

    private func submit(_ body: [UInt8]) async throws(ClientError) -> ClientReply {
        let used = try await currentSession()
        do throws(ClientError) {
            return try await used.submit(body)
        } catch .sessionExpired(_, uncertain: false) {
            // Evicted while idle. No attempt can have been executed, so another session may try.
            if session === used { session = nil }
            return try await currentSession().submit(body)
        }
    }

    private func currentSession() async throws(ClientError) -> ClientSession {
        if let session { return session }
        let opened = try await client.open()
        // Another call may have opened one meanwhile; the surplus one stays idle until it is evicted.
        if let session { return session }
        session = opened
        return opened
    }

    private func replaced(_ command: KeyValueCommand) async throws(ClientError) -> [UInt8]? {
        switch try await perform(command) {
        case .value(let value): return value
        case .absent: return nil
        case let other: throw unexpected(other)
        }
    }

    private func unexpected(_ reply: KeyValueReply) -> ClientError { .unintelligible("\(reply)") }
}
