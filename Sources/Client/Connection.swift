import Foundation
import MPaxosKeys
import MPaxosMessaging
import MPaxosWire
import Synchronization

/// A blocking connection to one replica: one request, one reply. It neither retries nor goes elsewhere; see
/// `ClusterClient`.
///
/// Not thread-safe.
public final class Connection {
    private let link: Link
    private var poller: Poller
    private let item: Int
    private var lastNumber = FreeNumber.firstBit
    private static let lookInterval: UInt64 = 20_000_000

    /// The replica's client endpoint.
    public var endpoint: String { link.endpoint }

    /// Connects to a replica's client endpoint, as in "tcp://127.0.0.1:7200"; returns before the connection is made.
    /// - Parameter keys: where clients of the cluster have keys; the endpoint's must be among them.
    public convenience init(to endpoint: String, keys: ClusterKeys? = nil) throws(ClientError) {
        let context: Context
        do { context = try Context(ioThreads: 1) } catch { throw .setUp(error) }
        try self.init(to: endpoint, keys: keys, in: context)
    }

    /// The same, on the I/O threads of `context`.
    package init(to endpoint: String, keys: ClusterKeys?, in context: Context) throws(ClientError) {
        let link = try Link(to: endpoint, keys: keys, in: context)
        var poller = Poller(capacity: 1)
        item = poller.add(link.socket)
        self.link = link
        self.poller = poller
    }

    /// A sequence for a request whose sequence is free (session 0, OPEN, QUERY, CLOSE, STATUS, PING), each time
    /// another.
    public func freeSequence() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    /// Sends a request and waits for its reply, whatever its status; replies to earlier requests are passed over. A
    /// reply belongs to a request by its sequence, and by its session where the sequence is not one of `freeSequence`.
    public func request(
        _ header: RequestHeader, body: [UInt8] = [], timeout: Duration = .seconds(10)
    ) throws(ClientError) -> ClientReply {
        let deadline = monotonicNanoseconds() + timeout.nanoseconds
        poller.watch(item, reading: true, writing: true)
        defer { link.stopLooking() }
        while !link.send(header, body) {
            // What libzmq gives up on, it does in silence.
            let pause = link.hasKeys ? min(deadline, monotonicNanoseconds() + Self.lookInterval) : deadline
            guard wait(until: pause) || monotonicNanoseconds() < deadline else {
                throw .unanswered(reason: link.obstacle ?? "\(endpoint) takes no connection", uncertain: false)
            }
        }
        poller.watch(item, reading: true)
        while true {
            while let reply = link.receive() {
                let same = reply.header.sequence == header.sequence
                if same && (FreeNumber.contains(header.sequence) || reply.header.session == header.session) {
                    return reply
                }
                // A refusal that names nothing is about the request just sent: its header was not understood.
                if reply.header.status == .malformed && reply.header.sequence == 0 && reply.header.session == 0 {
                    return reply
                }
            }
            guard wait(until: deadline) else {
                throw .unanswered(reason: "\(endpoint) sent no reply", uncertain: true)
            }
        }
    }

    /// The replica's status, as JSON.
    public func status(timeout: Duration = .seconds(10)) throws(ClientError) -> [UInt8] {
        let reply = try request(RequestHeader(.status, sequence: freeSequence()), timeout: timeout)
        if reply.header.status == .denied { throw .denied(reply.text) }
        guard reply.header.status == .ok else { throw .unintelligible("status \(reply.header.status) to STATUS") }
        return reply.body
    }

    /// The status of every replica, asked all at once; results in the order of `endpoints`. Takes `timeout` when one is
    /// away.
    public static func statuses(
        of endpoints: [String], keys: ClusterKeys? = nil, timeout: Duration = .seconds(2)
    ) throws(ClientError) -> [Result<[UInt8], ClientError>] {
        let context: Context
        do { context = try Context(ioThreads: 1) } catch { throw .setUp(error) }
        let results = Mutex([Result<[UInt8], ClientError>](repeating: .failure(.cancelled), count: endpoints.count))
        DispatchQueue.concurrentPerform(iterations: endpoints.count) { index in
            let result = Result { () throws(ClientError) in
                try Connection(to: endpoints[index], keys: keys, in: context).status(timeout: timeout)
            }
            results.withLock { $0[index] = result }
        }
        return results.withLock { $0 }
    }

    /// False: the deadline has passed.
    private func wait(until deadline: UInt64) -> Bool {
        let now = monotonicNanoseconds()
        guard now < deadline else { return false }
        _ = poller.wait(timeoutMilliseconds: Int((deadline - now) / 1_000_000) + 1)
        return true
    }
}

func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
