import CSupport
import Foundation
import Glibc
import Invariants
import Messaging
import Synchronization

/// Cuts off the connections to the peer port that are no links and want too much, on a thread of its own.
///
/// libzmq reads as fast as a connection sends, and keeps a message until its last part has come: 64 bytes of memory a
/// part, of which two bytes on the way are enough. It has no bound for that. So this one asks the kernel how much each
/// connection has sent, and shuts those down that send more than a replica does before its proof, or are no link after
/// a while, or are too many.
final class StrangerWatch: @unchecked Sendable {
    // Unchecked: the monitor is the thread's alone from `start` on; what others touch is behind locks.

    struct Bounds {
        /// Bytes that a connection may send before it is a link. A HELLO has some hundred; a few are said.
        var bytes: UInt64 = 32 << 10
        /// Connections at once. What each has sent takes 32 times that at most.
        var connections: Int
        /// Microseconds after which a connection that is no link is shut down.
        var time: UInt64

        /// - Parameter budget: bytes of memory for all of them.
        init(budget: Int, seconds: Int) {
            connections = max(8, budget / (32 * Int(bytes)))
            time = UInt64(seconds) * 1_000_000
        }
    }

    private struct Stranger {
        let since: UInt64
        let host: String
        var isShutDown = false
    }

    /// Milliseconds between two looks while there are strangers.
    private static let interval = 20

    private let monitor: Monitor
    private let bounds: Bounds
    private let cutOff: Counter
    private let trusted = Mutex<[Int32]>([])
    private let ended = DispatchSemaphore(value: 0)
    private var strangers: [Int32: Stranger] = [:]

    /// - Parameter router: the peer port, not bound yet.
    init(over router: borrowing Socket, bounds: Bounds, cutOff: Counter) throws(MessagingError) {
        monitor = try Monitor(of: router)
        self.bounds = bounds
        self.cutOff = cutOff
    }

    /// Until the port is not monitored any more.
    func start() {
        let thread = Thread { [self] in
            csupport_name_thread("strangers")
            run()
            ended.signal()
        }
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// Waits for the end of the thread.
    func join() { ended.wait() }

    /// The connection of this file descriptor is a link. Any thread.
    func trust(_ file: Int32) {
        trusted.withLock { $0.append(file) }
    }

    private func run() {
        var poller = Poller(capacity: 1)
        _ = monitor.add(to: &poller)
        while true {
            _ = poller.wait(timeoutMilliseconds: strangers.isEmpty ? -1 : Self.interval)
            if poller.isTerminated { return }
            // First those that are trusted: what they are trusted after has been told by then.
            let links = trusted.withLock { files in
                defer { files.removeAll() }
                return files
            }
            let now = csupport_monotonic_us()
            while let event = monitor.next() {
                switch event {
                case .accepted(_, let file): strangers[file] = Stranger(since: now, host: Self.host(of: file))
                case .disconnected(_, let file): strangers[file] = nil
                case .stopped: return
                default: break
                }
            }
            for file in links { strangers[file] = nil }
            examine(now: now)
        }
    }

    private func examine(now: UInt64) {
        for (file, stranger) in strangers where !stranger.isShutDown {
            if csupport_tcp_received(file) > bounds.bytes || now >= stranger.since + bounds.time { shutDown(file) }
        }
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
