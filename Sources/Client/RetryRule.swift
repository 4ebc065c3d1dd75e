import MPaxosWire

/// What a client does with an answer: the column "what the client does" of the protocol's table of statuses. Pure.
enum RetryRule {
    enum Decision: Equatable {
        case finish(Result<ClientReply, ClientError>)
        /// Again with the same session and sequence. `uncertain`: this attempt may have been executed.
        case retry(Place, afterMilliseconds: UInt32, uncertain: Bool, reason: String)
    }

    enum Place: Equatable {
        case same, next
        case endpoint(String)
    }

    /// Longest wait that a replica's word is taken for, ms.
    static let longestWait: UInt32 = 1000

    /// - Parameters:
    ///   - size: of the request's body, in bytes.
    ///   - uncertain: whether an earlier attempt may have been executed.
    static func decide(
        _ reply: ClientReply, to command: CommandCode, size: Int, session: UInt64, uncertain: Bool
    ) -> Decision {
        switch reply.header.status {
        case .ok:
            return .finish(.success(reply))
        case .full:
            return .finish(.failure(.full(reply.text)))
        case .redirect:
            // A redirect to nowhere, or from a replica that is mistaken about the leader, must not spin.
            let endpoint = reply.text
            let place = endpoint.isEmpty ? Place.next : .endpoint(endpoint)
            return .retry(place, afterMilliseconds: 1, uncertain: false, reason: "sent on to \(endpoint)")
        case .busy:
            return .retry(.same, afterMilliseconds: wait(reply), uncertain: false, reason: "busy")
        case .noLeader:
            return .retry(.next, afterMilliseconds: wait(reply), uncertain: true, reason: "knows no leader")
        case .expired:
            // A retried CLOSE finds the session gone: that is what it wanted.
            if command == .close { return .finish(.success(reply)) }
            return .finish(.failure(.sessionExpired(session: session, uncertain: uncertain)))
        case .stale:
            return .finish(.failure(.stale(session: session, sequence: reply.header.sequence)))
        case .malformed:
            return .finish(.failure(.malformed(reply.text)))
        case .denied:
            return .finish(.failure(.denied(reply.text)))
        case .tooLarge:
            // A request within the limit was not too large itself: its reply would be.
            let limit = Int(reply.number ?? 0)
            return .finish(.failure(size > limit ? .tooLarge(limit: limit) : .replyTooLarge(limit: limit)))
        }
    }

    private static func wait(_ reply: ClientReply) -> UInt32 { min(max(reply.number ?? 10, 1), longestWait) }
}
