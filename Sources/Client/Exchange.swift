import Foundation
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire
import Synchronization

/// How long a client tries, and who it is.
public struct ClientOptions: Sendable {
    /// For a request altogether, retries included.
    public var timeout: Duration
    /// For one attempt, before the next replica is tried with the same sequence.
    public var attempt: Duration
    /// Where clients of the cluster have keys: the client's own, and those of the replicas; nil: connections are in the
    /// clear. Replicas that a redirect names are connected to only when their keys are among these.
    public var keys: ClusterKeys?

    public init(timeout: Duration = .seconds(10), attempt: Duration = .seconds(1), keys: ClusterKeys? = nil) {
        self.timeout = timeout
        self.attempt = attempt
        self.keys = keys
    }
}

/// A request on its way to the exchange's thread, and where its result goes.
struct Order: Sendable {
    var command: CommandCode
    var flags: RequestFlags = []
    var session: UInt64 = 0
    var position: UInt64 = 0
    var body: [UInt8] = []
    /// Identifies the order for `cancel`; given by `Exchange.newIdentifier`.
    var identifier: UInt64 = 0
    /// Called exactly once, on the exchange's thread (or the caller's, when the exchange has stopped).
    let complete: @Sendable (Result<ClientReply, ClientError>) -> Void
}

/// Carries requests of many sessions to the replicas and their replies back, on a thread of its own that retries and
/// changes replicas. The façades `Client` (async) and `ClusterClient` (blocking) only hand it orders.
final class Exchange: Sendable {
    private let inbox: Inbox
    private let lastIdentifier = Atomic<UInt64>(0)

    init(endpoints: [String], options: ClientOptions) throws(ClientError) {
        guard let inbox = Inbox() else {
            throw .setUp("too many open files for a client: raise the limit (ulimit -n)")
        }
        self.inbox = inbox
        let loop = try ExchangeLoop(endpoints: endpoints, options: options, inbox: inbox)
        // The loop is touched by this thread alone from here on; it ends when `stop` says so.
        nonisolated(unsafe) let owned = loop
        let thread = Thread { owned.run() }
        thread.name = "mpaxos-client"
        thread.start()
    }

    func newIdentifier() -> UInt64 { lastIdentifier.wrappingAdd(1, ordering: .relaxed).newValue }

    /// Hands in an order. Its `complete` is called in any case.
    func perform(_ order: Order) {
        if !inbox.put(.perform(order)) { order.complete(.failure(.shutDown)) }
    }

    /// Ends the order's retries and completes it with `.cancelled`, if it is not complete yet.
    func cancel(_ identifier: UInt64) { _ = inbox.put(.cancel(identifier)) }

    /// Completes everything under way with `.shutDown` and ends the thread. Idempotent.
    func stop() { inbox.close() }

    deinit { stop() }
}

/// What the façades' threads hand to the exchange's thread, with a pipe to wake it.
final class Inbox: Sendable {
    enum Entry: Sendable {
        case perform(Order)
        case cancel(UInt64)
    }

    private struct State {
        var entries: [Entry] = []
        var closed = false
    }

    private let state = Mutex(State())
    let readEnd: Int32
    private let writeEnd: Int32

    init?() {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        readEnd = ends[0]
        writeEnd = ends[1]
    }

    deinit {
        Glibc.close(readEnd)
        Glibc.close(writeEnd)
    }

    /// False: closed.
    func put(_ entry: Entry) -> Bool {
        let (accepted, first) = state.withLock { state in
            if state.closed { return (false, false) }
            state.entries.append(entry)
            return (true, state.entries.count == 1)
        }
        if first { signal() }
        return accepted
    }

    func close() {
        state.withLock { $0.closed = true }
        signal()
    }

    /// Everything put since the last call; whether there will be no more.
    func take() -> (entries: [Entry], closed: Bool) {
        var byte: UInt64 = 0
        while read(readEnd, &byte, 8) > 0 {}
        return state.withLock { state in
            defer { state.entries.removeAll() }
            return (state.entries, state.closed)
        }
    }

    private func signal() {
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)  // full means that there is a wake-up under way already
    }
}
