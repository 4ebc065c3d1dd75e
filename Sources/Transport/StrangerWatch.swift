import Foundation
import Glibc
import MPaxosCSupport
import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import Synchronization

/// Cuts off the connections to a port of libzmq's that are strangers and want too much, on a thread of its own.
///
/// libzmq reads as fast as a connection sends, and keeps a message until its last part has come: 64 bytes of memory a
/// part, of which two bytes on the way are enough. It has no bound for that, nor one for connections. So this one asks
/// the kernel how much each connection has sent, and shuts those down that send more than one of ours does before it is
/// known, or are not known after a while, or are too many.
///
/// At the peer port a connection is known when it is a link, at the client port when its key was found good.
package final class StrangerWatch: @unchecked Sendable {
    // Unchecked: the monitor is the thread's alone from `start` on; what others touch is behind locks.

    package struct Bounds {
        /// Bytes that a connection may send before it is known. A HELLO has some hundred; a few are said.
        var bytes: UInt64 = 32 << 10
        /// Connections at once. What each has sent takes 32 times that at most.
        var connections: Int
        /// Microseconds after which a connection that is not known is shut down.
        var time: UInt64
        /// Known connections at once; beyond it those go that have been silent for longest. Strangers do not count:
        /// they take no place from who is known.
        var known = Int.max

        init(bytes: UInt64, connections: Int, time: UInt64) {
            (self.bytes, self.connections, self.time) = (bytes, connections, time)
        }

        /// For handshakes of CURVE, which have some 700 bytes. libzmq looks at each message before it reads on, so that
        /// nothing gathers, and many clients may come at once.
        ///
        /// - Parameter descriptors: those that the process has for strangers and known ones together.
        static func ofHandshakes(budget: Int, seconds: Int, descriptors: Int) -> Bounds {
            // 27 KiB were measured, 50 for those that claim to send much.
            let strangers = min(max(64, budget / (64 << 10)), max(1, descriptors / 4))
            var bounds = Bounds(bytes: 4 << 10, connections: strangers, time: UInt64(seconds) * 1_000_000)
            bounds.known = max(1, descriptors - strangers)
            return bounds
        }

        /// - Parameter budget: bytes of memory for all strangers.
        package init(budget: Int, seconds: Int) {
            connections = max(8, budget / (32 * Int(bytes)))
            time = UInt64(seconds) * 1_000_000
        }
    }

    private struct Stranger {
        let since: UInt64
        let host: String
        var isShutDown = false
    }

    /// How a stranger becomes known.
    enum Introduction {
        /// Somebody says so, by `trust`.
        case word
        /// It has got more from a CURVE server than those get whose key is not good.
        case curveHandshake
    }

    private struct Requests {
        var trusted: [Int32] = []
        /// With the time at which each was asked for.
        var unwanted: [(file: Int32, at: UInt64)] = []
    }

    /// Milliseconds between two looks while there are strangers, and while there are none that might be unwanted.
    private static let interval = 20
    private static let longInterval = 500
    /// What a CURVE server says before it has judged the key: a greeting of 64 bytes and WELCOME of 170. READY has 50
    /// and more behind that, the ERROR that ends the connection 12 (ZeroMQ RFC 26 and 23).
    private static let bytesBeforeReady: UInt64 = 64 + 170 + 12

    private let monitor: Monitor
    private let bounds: Bounds
    private let introduction: Introduction
    private let cutOff: Counter
    private let requests = Mutex(Requests())
    private let begun = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)
    /// Where the process has no memory for one more thread, none begins, and nobody says so.
    private var hasBegun = false
    private var strangers: [Int32: Stranger] = [:]
    /// Since when each connection is there.
    private var known: [Int32: UInt64] = [:]
    /// Whether anybody asks for the end of a connection.
    private let endsKnown: Bool

    /// - Parameters:
    ///   - router: the port, not bound yet.
    ///   - endsKnown: whether `end` may be called.
    init(
        over router: borrowing Socket, bounds: Bounds, introduction: Introduction, endsKnown: Bool, cutOff: Counter
    ) throws(MessagingError) {
        self.endsKnown = endsKnown
        monitor = try Monitor(of: router)
        self.bounds = bounds
        self.introduction = introduction
        self.cutOff = cutOff
    }

    /// Binds the port that is watched. With a monitor libzmq loses the reason for which it cannot, which the monitor
    /// tells.
    func bind(_ router: borrowing Socket, to endpoint: String) throws(MessagingError) {
        do throws(MessagingError) {
            try router.bind(endpoint)
        } catch {
            var reason = error.code
            while let event = monitor.next() { if case .bindFailed(_, let code) = event { reason = code } }
            throw MessagingError(error.operation, endpoint: endpoint, code: reason)
        }
    }

    /// Until the port is not monitored any more.
    func start() {
        let thread = Thread { [self] in
            csupport_name_thread("strangers")
            begun.signal()
            run()
            ended.signal()
        }
        thread.stackSize = 1 << 20
        thread.start()
        hasBegun = begun.wait(timeout: .now() + 1) == .success
    }

    /// Waits for the end of the thread.
    func join() {
        if hasBegun || begun.wait(timeout: .now()) == .success { ended.wait() }
    }

    /// The connection of this file descriptor is known. Any thread.
    func trust(_ file: Int32) {
        requests.withLock { $0.trusted.append(file) }
    }

    /// The connection that has this file descriptor now is to end, if it is to the port. One that was made a moment
    /// ago may be missed. Any thread.
    func end(_ file: Int32) {
        requests.withLock { $0.unwanted.append((file, csupport_monotonic_us())) }
    }

    private func run() {
        var poller = Poller(capacity: 1)
        _ = monitor.add(to: &poller)
        while true {
            let pause = endsKnown ? Self.longInterval : -1
            _ = poller.wait(timeoutMilliseconds: strangers.isEmpty ? pause : Self.interval)
            if poller.isTerminated { return }
            // First what was asked for: of which connection that was has been told by then.
            let requests = requests.withLock { requests in
                defer { requests = Requests() }
                return requests
            }
            let now = csupport_monotonic_us()
            while let event = monitor.next() {
                switch event {
                case .accepted(_, let file): strangers[file] = Stranger(since: now, host: Self.host(of: file))
                case .disconnected(_, let file):
                    strangers[file] = nil
                    known[file] = nil
                case .stopped: return
                default: break
                }
            }
            for file in requests.trusted { know(file) }
            for (file, time) in requests.unwanted {
                // A later connection may have the same descriptor.
                guard let since = strangers[file]?.since ?? known[file], since < time else { continue }
                if strangers[file]?.isShutDown != true { shutDown(file) }
            }
            examine(now: now)
        }
    }

    private func know(_ file: Int32) {
        if let stranger = strangers.removeValue(forKey: file) { known[file] = stranger.since }
    }

    private func examine(now: UInt64) {
        for (file, stranger) in strangers where !stranger.isShutDown {
            if introduction == .curveHandshake, csupport_tcp_acknowledged(file) > Self.bytesBeforeReady {
                know(file)
            } else if csupport_tcp_received(file) > bounds.bytes || now >= stranger.since + bounds.time {
                shutDown(file)
            }
        }
        if known.count > bounds.known {
            let silent = known.keys.map { (file: $0, silence: csupport_tcp_silence_ms($0)) }
                .sorted { $0.silence > $1.silence }
            for connection in silent.prefix(known.count - bounds.known) { shutDown(connection.file) }
        }
        boundStrangers()
    }

    private func boundStrangers() {
        let standing = strangers.filter { !$0.value.isShutDown }.sorted { $0.value.since > $1.value.since }
        guard standing.count > bounds.connections else { return }
        var hosts = Dictionary(grouping: standing) { $0.value.host }
        for _ in bounds.connections..<standing.count {
            // The oldest of the host that has most of them: so a host that comes with many does not keep out another.
            guard let most = hosts.max(by: { $0.value.count < $1.value.count })?.key,
                let oldest = hosts[most]?.popLast()
            else { return }
            shutDown(oldest.key)
        }
    }

    /// The socket is libzmq's: it finds the connection at its end, and closes it.
    private func shutDown(_ file: Int32) {
        strangers[file]?.isShutDown = true
        if let since = known.removeValue(forKey: file) {
            // Until libzmq has closed it.
            strangers[file] = Stranger(since: since, host: "", isShutDown: true)
        }
        cutOff.add(1)
        shutdown(file, Int32(SHUT_RDWR))
    }

    /// The address of the other side, without its port; empty for ipc.
    private static func host(of file: Int32) -> String {
        var address = sockaddr_storage()
        var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let found = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                getpeername(file, $0, &size) == 0
                    && getnameinfo($0, size, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
            }
        }
        return found ? String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : ""
    }
}
