import Glibc
import MPaxosCZeroMQ
import MPaxosInvariants
import Synchronization

/// libzmq's context: its I/O threads and in-process endpoints. Sockets keep theirs alive.
///
/// Thread-safe, as libzmq's own.
package final class Context: Sendable {
    nonisolated(unsafe) let handle: UnsafeMutableRawPointer  // libzmq locks inside
    private let shutDown = Atomic(false)

    /// - Parameter ioThreads: threads that do the socket I/O, 1 or more.
    package init(ioThreads: Int) throws(MessagingError) {
        invariant(ioThreads >= 1 && ioThreads <= 64, "a context has 1 to 64 I/O threads")
        Self.seedNames
        guard let handle = zmq_ctx_new() else {
            throw MessagingError("create a messaging context", code: lastError())
        }
        self.handle = handle
        try set(ZMQ_IO_THREADS, to: Int32(ioThreads), named: "io_threads")
        // libzmq's default of 1023 sockets is less than a load generator may want.
        try set(ZMQ_MAX_SOCKETS, to: min(65535, zmq_ctx_get(handle, ZMQ_SOCKET_LIMIT)), named: "the socket limit")
    }

    /// libzmq names connections that do not name themselves by a counter, which begins at what rand() gives, and ends
    /// the process when the next name is one that somebody has claimed. It never seeds rand(): without this the names
    /// would be the same in each process, and known to everybody.
    private static let seedNames: Void = srand(UInt32.random(in: 0...UInt32.max))

    private func set(_ option: Int32, to value: Int32, named name: String) throws(MessagingError) {
        if zmq_ctx_set(handle, option, value) != 0 {
            throw MessagingError("set \(name) to \(value)", code: lastError())
        }
    }

    /// From now on every operation on this context's sockets fails, and blocked ones return: sends say `.terminated`,
    /// receives `false`, `Poller.wait` sets its `isTerminated`. Does not block. Any thread, any number of times.
    package func shutdown() {
        if !shutDown.exchange(true, ordering: .acquiringAndReleasing) { zmq_ctx_shutdown(handle) }
    }

    deinit {
        // The sockets are closed, since each held a reference. Waits for the I/O threads to send off what the linger
        // allows.
        while zmq_ctx_term(handle) != 0 && lastError() == EINTR {}
    }
}
