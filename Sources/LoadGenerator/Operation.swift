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

    /// Whether `body` answers the operation: tag 0 or 1, and what belongs to it.
    @inline(__always) func isAnswered(by body: UnsafeRawBufferPointer) -> Bool {
        guard body.count >= 1 else { return false }
        switch self {
        case .create: return body[0] == 1 || body[0] == 0 && body.count >= 2
        default: return body[0] == 1 || body[0] == 0 && body.count == 1
        }
    }

    /// Whether it needs no session: a QUERY.
    @inline(__always) var isQuery: Bool { self == .query || self == .localQuery }
}
