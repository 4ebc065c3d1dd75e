import MPaxosKeyValueFormat

/// What a session asks of the key-value service.
enum Operation: UInt8 {
    case put
    /// A get as a linearizable QUERY.
    case query
    /// A get that one replica answers from its own state, no older than what the session has seen.
    case localQuery
    /// A get that goes through the log.
    case orderedGet
    case delete
    /// Sets a key that is absent.
    case create

    /// Whether `body` answers the operation: `some` or `none`, and what belongs to it.
    @inline(__always) func isAnswered(by body: UnsafeRawBufferPointer) -> Bool {
        guard let tag = body.first else { return false }
        if tag == KeyValueFormat.Tag.some { return true }
        return tag == KeyValueFormat.Tag.none && (self == .create ? body.count >= 2 : body.count == 1)
    }

    /// Whether it needs no session: a QUERY.
    @inline(__always) var isQuery: Bool { self == .query || self == .localQuery }
}
