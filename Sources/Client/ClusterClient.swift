import Foundation
import MPaxosInvariants
import MPaxosKeyValueFormat
import MPaxosWire

/// A blocking client of a cluster: tries its replicas in turn until one gives a final answer or the time is over. For
/// tools and simple programs; each call waits.
///
/// Thread-safe; calls of one session take turns.
public final class ClusterClient: Sendable {
    private let exchange: Exchange

    /// - Parameter endpoints: client endpoints of the replicas, all or some, as in "tcp://127.0.0.1:7200".
    public init(endpoints: [String], options: ClientOptions = ClientOptions()) throws(ClientError) {
        exchange = try Exchange(endpoints: endpoints, options: options)
    }

    /// Opens a session; its id.
    public func open() throws(ClientError) -> UInt64 {
        try perform(.open).header.session
    }

    /// Executes a state machine's command: exactly once in a session, which must be one that this client opened (it
    /// counts the session's sequences); at least once with session 0.
    public func submit(_ body: [UInt8], session: UInt64 = 0) throws(ClientError) -> ClientReply {
        try perform(.submit, session: session, body: body)
    }

    /// A linearizable read; with `local` from one replica's own state, at least as new as `position`.
    public func query(_ body: [UInt8], local: Bool = false, position: UInt64 = 0) throws(ClientError) -> ClientReply {
        invariant(local || position == 0, "a position belongs to local queries only")
        return try perform(.query, flags: local ? .local : [], position: position, body: body)
    }

    /// Ends a session. One that is gone already is no error.
    public func close(session: UInt64) throws(ClientError) {
        _ = try perform(.close, session: session)
    }

    /// The status of the first replica that answers, as JSON.
    public func status() throws(ClientError) -> [UInt8] { try perform(.status).body }

    private func perform(
        _ command: CommandCode, flags: RequestFlags = [], session: UInt64 = 0, position: UInt64 = 0, body: [UInt8] = []
    ) throws(ClientError) -> ClientReply {
        let slot = Slot()
        exchange.perform(
            Order(
                command: command, flags: flags, session: session, position: position, body: body,
                identifier: exchange.newIdentifier(), complete: { slot.fill($0) }))
        return try slot.wait().get()
    }
}

/// Where a blocked thread waits for its result.
private final class Slot: @unchecked Sendable {
    // Unchecked: written once before the signal, read once after the wait.
    private var result: Result<ClientReply, ClientError>?
    private let filled = DispatchSemaphore(value: 0)

    func fill(_ value: Result<ClientReply, ClientError>) {
        invariant(result == nil, "a request completes once")
        result = value
        filled.signal()
    }

    func wait() -> Result<ClientReply, ClientError> {
        filled.wait()
        return result!
    }
}

extension ClusterClient {
    /// One operation of the key-value service: a read as a query, a write exactly once, in a session of its own.
    public func perform(_ command: KeyValueCommand) throws(ClientError) -> KeyValueReply {
        if command.isQuery { return try KeyValueReply(query(command.body), of: command) }
        let session = try open()
        let reply = try submit(command.body, session: session)
        // The session would be evicted some day; that it is gone at once is a courtesy, and not worth a failure.
        try? close(session: session)
        return try KeyValueReply(reply, of: command)
    }
}

extension KeyValueReply {
    init(_ reply: ClientReply, of command: KeyValueCommand) throws(ClientError) {
        do {
            try self.init(decoding: reply.body, of: command.operation)
        } catch {
            throw .unintelligible(error.description)
        }
    }
}
