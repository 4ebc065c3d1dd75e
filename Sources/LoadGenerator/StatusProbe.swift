import FoundationEssentials
import Glibc
import MPaxosWire
import MPaxosZMTP

/// The parts of a STATUS body that the generator looks at.
struct ReplicaStatus: Decodable, Equatable, Sendable {
    var id: Int
    var leader: Int?
    /// Process of the replica, on its own host.
    var pid: Int32?
}

/// Asks a replica for its STATUS, waiting for the answer: used before and after the load, not under it.
enum StatusProbe {
    private static let largestReply = 16 << 20

    /// Nil when the replica does not answer in time, or not in a way that is understood.
    static func ask(_ endpoint: Endpoint, milliseconds: Int) -> ReplicaStatus? {
        let file = endpoint.makeSocket(nonBlocking: false)
        guard file >= 0 else { return nil }
        defer { Glibc.close(file) }
        let deadline = MonotonicClock.now() + UInt64(milliseconds) * 1_000_000
        limit(file, SO_SNDTIMEO, milliseconds)
        guard endpoint.connect(file) == 0, sendAll(file, Link.opening) else { return nil }
        var received: [UInt8] = []
        var hasAsked = false
        while MonotonicClock.now() < deadline, received.count < largestReply {
            let left = (deadline - MonotonicClock.now()) / 1_000_000
            limit(file, SO_RCVTIMEO, max(1, Int(left)))
            var chunk = [UInt8](repeating: 0, count: 64 << 10)
            let count = recv(file, &chunk, chunk.count, 0)
            guard count > 0 else { return nil }
            received += chunk[..<count]
            switch reply(in: received) {
            case .incomplete: continue
            case .ready:
                if hasAsked { continue }
                hasAsked = true
                guard sendAll(file, request()) else { return nil }
            case .bad: return nil
            case .body(let body): return decode(body)
            }
        }
        return nil
    }

    /// The same by CURVE.
    static func ask(_ endpoint: Endpoint, by dialer: CurveDialer, milliseconds: Int) -> ReplicaStatus? {
        let deadline = MonotonicClock.now() + UInt64(milliseconds) * 1_000_000
        while let connection = dialer.dial(endpoint.text) {
            guard wait(for: connection, until: deadline) else {
                let hasAnotherKey = dialer.hasAnotherKey(after: connection)
                dialer.failed(connection)
                if hasAnotherKey { continue }
                return nil
            }
            dialer.succeeded()
            return ask(over: connection, until: deadline)
        }
        return nil
    }

    /// Waits until the connection is made; false when it cannot be.
    private static func wait(for connection: CurveConnection, until deadline: UInt64) -> Bool {
        repeat {
            switch connection.progress() {
            case .up: return true
            case .failed: return false
            case .pending: break
            }
        } while sleep(over: connection, until: deadline)
        return false
    }

    private static func ask(over connection: CurveConnection, until deadline: UInt64) -> ReplicaStatus? {
        var (output, input) = (ByteQueue(), ByteQueue())
        defer {
            output.release()
            input.release()
        }
        output.append(request())
        guard connection.send(&output) else { return nil }
        repeat {
            while connection.receive(into: &input) {
                if input.count > largestReply { return nil }
                switch message(in: input.bytes, at: 0) {
                case .incomplete, .ready: continue
                case .bad: return nil
                case .body(let body): return decode(body)
                }
            }
        } while connection.state.isUp && sleep(over: connection, until: deadline)
        return nil
    }

    /// Until something happens to the connection; false when the time is over.
    private static func sleep(over connection: CurveConnection, until deadline: UInt64) -> Bool {
        let now = MonotonicClock.now()
        guard now < deadline else { return false }
        var files = connection.fileDescriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        _ = poll(&files, nfds_t(files.count), Int32(clamping: (deadline - now) / 1_000_000 + 1))
        return true
    }

    private enum Outcome {
        case incomplete
        /// The server is ready for the request, and has not answered it.
        case ready
        case bad
        case body([UInt8])
    }

    /// The body of the first OK reply in everything that came so far, the greeting included.
    private static func reply(in received: [UInt8]) -> Outcome {
        received.withUnsafeBytes { bytes in
            switch Codec.checkGreeting(bytes) {
            case .incomplete: return .incomplete
            case .bad, .old: return .bad
            case .good: break
            }
            return message(in: bytes, at: Codec.greetingSize)
        }
    }

    /// The same of what follows the greeting.
    private static func message(in bytes: UnsafeRawBufferPointer, at start: Int) -> Outcome {
        var offset = start
        var frames: [Range<Int>] = []
        var isReady = false
        while true {
            switch Codec.frame(bytes, at: offset, limit: largestReply) {
            case .incomplete: return isReady ? .ready : .incomplete
            case .bad: return .bad
            case .frame(let head):
                offset = head.bodyOffset + head.bodyCount
                if head.isCommand {
                    isReady = true
                    continue
                }
                frames.append(head.bodyOffset..<offset)
                if head.hasMore { continue }
                guard frames.count == 3, frames[0].isEmpty,
                    let header = ReplyHeader(decoding: UnsafeRawBufferPointer(rebasing: bytes[frames[1]])),
                    header.status == .ok
                else { return .bad }
                return .body(Array(bytes[frames[2]]))
            }
        }
    }

    private static func decode(_ body: [UInt8]) -> ReplicaStatus? {
        try? JSONDecoder().decode(ReplicaStatus.self, from: Data(body))
    }

    private static func request() -> [UInt8] {
        let template = RequestTemplate.status()
        defer { template.release() }
        return [UInt8](unsafeUninitializedCapacity: template.count(valueSize: 0)) { buffer, count in
            template.write(into: UnsafeMutableRawPointer(buffer.baseAddress!), session: 0, sequence: 1)
            count = template.count(valueSize: 0)
        }
    }

    private static func sendAll(_ file: Int32, _ bytes: [UInt8]) -> Bool {
        // A few hundred bytes into an empty socket buffer: they fit, or the peer is of no use.
        send(file, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
    }

    private static func limit(_ file: Int32, _ option: Int32, _ milliseconds: Int) {
        var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        _ = setsockopt(file, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
    }
}
