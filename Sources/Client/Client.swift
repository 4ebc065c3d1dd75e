import MPaxosInvariants
import MPaxosWire

/// A client of a cluster for Swift concurrency: any number of sessions and queries under way at once over one
/// connection to each replica. It retries with the same sequence, changes replicas when one fails, and follows
/// redirects.
///
/// Cancelling a task ends its waiting at once; the command may have been executed, or may yet be.
public final class Client: Sendable {
    private let exchange: Exchange

    /// - Parameter endpoints: client endpoints of the replicas, all or some, as in "tcp://127.0.0.1:7200".
    public init(endpoints: [String], options: ClientOptions = ClientOptions()) throws(ClientError) {
        exchange = try Exchange(endpoints: endpoints, options: options)
    }

    /// Opens a session.
    public func open() async throws(ClientError) -> ClientSession {
        ClientSession(client: self, id: try await perform(.open).header.session)
    }

    /// Executes a command outside any session: at least once. For idempotent commands.
    public func submit(_ body: [UInt8]) async throws(ClientError) -> ClientReply {
        try await perform(.submit, body: body)
    }

    /// A linearizable read; with `local` from one replica's own state, at least as new as `position`.
    public func query(
        _ body: [UInt8], local: Bool = false, position: UInt64 = 0
    ) async throws(ClientError) -> ClientReply {
        invariant(local || position == 0, "a position belongs to local queries only")
        return try await perform(.query, flags: local ? .local : [], position: position, body: body)
    }

    /// The status of the first replica that answers, as JSON.
    public func status() async throws(ClientError) -> [UInt8] { try await perform(.status).body }

    /// Fails all that is under way, and all that follows, with `.shutDown`. Letting go of the client and its sessions
    /// does the same.
    public func shutdown() { exchange.stop() }

    func perform(
        _ command: CommandCode, flags: RequestFlags = [], session: UInt64 = 0, position: UInt64 = 0, body: [UInt8] = []
    ) async throws(ClientError) -> ClientReply {
        let identifier = exchange.newIdentifier()
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation {
                (continuation: CheckedContinuation<Result<ClientReply, ClientError>, Never>) in
                if Task.isCancelled {
                    continuation.resume(returning: .failure(.cancelled))
                    return
                }
                exchange.perform(
                    Order(
                        command: command, flags: flags, session: session, position: position, body: body,
                        identifier: identifier, complete: { continuation.resume(returning: $0) }))
                // Cancelled between the check and the hand-over: the handler may have run before there was anything to
                // cancel.
                if Task.isCancelled { exchange.cancel(identifier) }
            }
        } onCancel: {
            exchange.cancel(identifier)
        }
        return try result.get()
    }
}

/// A session of a client: its commands are executed exactly once, one after another in the order of the calls.
public final class ClientSession: Sendable {
    private let client: Client

    /// The cluster's number for the session, never reused.
    public let id: UInt64

    init(client: Client, id: UInt64) {
        self.client = client
        self.id = id
    }

    /// Executes a state machine's command exactly once. After `.unanswered` or `.cancelled` it was executed once or not
    /// at all, and the session goes on with the next command.
    public func submit(_ body: [UInt8]) async throws(ClientError) -> ClientReply {
        try await client.perform(.submit, session: id, body: body)
    }

    /// Ends the session. One that is gone already is no error.
    public func close() async throws(ClientError) {
        _ = try await client.perform(.close, session: id)
    }
}
