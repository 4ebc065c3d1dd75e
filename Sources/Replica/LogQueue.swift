import Dispatch
import Foundation
import Logging
import MPaxosCSupport
import MPaxosMetrics
import MPaxosStatus
import Synchronization

/// Lines on their way to where they are written, which may be slow, or stand still for ever. Who adds one never waits:
/// a thread of the queue's own writes them. What finds no room is dropped and counted, and told of once there is room.
package final class LineQueue<Line: Sendable>: Sendable {
    private struct State {
        var waiting: [(line: Line, bytes: Int)] = []
        /// Of those that wait and the one that is being written.
        var lines = 0
        var bytes = 0
        var dropped: UInt64 = 0
        var isClosed = false
    }

    private let state = Mutex(State())
    private let bell = DispatchSemaphore(value: 0)
    private let write: @Sendable (Line) -> Void
    private let tellOfDropped: @Sendable (UInt64) -> Void

    static var mostLines: Int { 1024 }
    static var mostBytes: Int { 512 << 10 }

    /// - Parameters:
    ///   - write: may block; called by the queue's thread.
    ///   - tellOfDropped: the same, with how many lines were dropped since the last time.
    package init(
        write: @escaping @Sendable (Line) -> Void, tellOfDropped: @escaping @Sendable (UInt64) -> Void
    ) {
        self.write = write
        self.tellOfDropped = tellOfDropped
        let thread = Thread { [self] in
            csupport_name_thread("log")
            run()
        }
        thread.start()
    }

    /// Any thread; waits for nobody.
    /// - Parameter bytes: about what it holds.
    /// - Returns: false when it was dropped.
    @discardableResult
    package func add(_ line: Line, bytes: Int) -> Bool {
        let isTaken = state.withLock { state in
            guard state.lines < Self.mostLines, state.bytes + bytes <= Self.mostBytes, !state.isClosed else {
                state.dropped += 1
                return false
            }
            state.waiting.append((line, bytes))
            state.lines += 1
            state.bytes += bytes
            return true
        }
        if isTaken { csupport_lines_waiting(1) }
        bell.signal()
        return isTaken
    }

    /// Waits until all that was added is written, and no longer than so many milliseconds.
    package func flush(milliseconds: Int) {
        let end = csupport_monotonic_us() + UInt64(milliseconds) * 1000
        while state.withLock({ $0.lines > 0 || $0.dropped > 0 }), csupport_monotonic_us() < end { usleep(500) }
    }

    /// The thread ends when it has written what waits.
    package func close() {
        state.withLock { $0.isClosed = true }
        bell.signal()
    }

    private func run() {
        while true {
            bell.wait()
            let (lines, dropped, isClosed) = state.withLock { state in
                defer { state.waiting = [] }
                return (state.waiting, state.dropped, state.isClosed)
            }
            for (line, bytes) in lines {
                write(line)
                csupport_lines_waiting(-1)
                state.withLock { state in
                    state.lines -= 1
                    state.bytes -= bytes
                }
            }
            if dropped > 0 {
                tellOfDropped(dropped)
                state.withLock { $0.dropped -= dropped }
            }
            if isClosed { return }
        }
    }
}

/// Stands before a log handler, any one, so that no lane waits for it.
struct QueuedLog: LogHandler {
    struct Line: Sendable {
        let event: LogEvent
        /// Microseconds of the monotonic clock at which it happened.
        let at: UInt64
    }

    let queue: LineQueue<Line>
    let dropped: Counter
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    var logLevel: Logger.Level

    /// - Parameters:
    ///   - logger: what the lines go to in the end.
    ///   - dropped: counts those that do not.
    init(before logger: Logger, dropped: Counter) {
        logLevel = logger.logLevel
        self.dropped = dropped
        queue = LineQueue(
            write: { line in
                var event = line.event
                let waited = csupport_monotonic_us() - line.at
                // Its time of writing is not that of what it tells.
                if waited >= 1_000_000 {
                    event.metadata = event.metadata ?? [:]
                    event.metadata?["late_s"] = "\(StatusReport.thousandths(waited / 1000))"
                }
                logger.handler.log(event: event)
            },
            tellOfDropped: {
                logger.warning("dropped \($0) log lines, since the reader of the log (of standard error) was too slow")
            })
    }

    /// What was said so far is written, unless its reader takes longer than a second.
    func end() { queue.flush(milliseconds: 1000) }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var event = event
        let own = metadata.merging(metadataProvider?.get() ?? [:]) { _, newer in newer }
        if !own.isEmpty { event.metadata = own.merging(event.metadata ?? [:]) { _, newer in newer } }
        let line = Line(event: event, at: csupport_monotonic_us())
        if !queue.add(line, bytes: 256 + event.message.description.utf8.count) { dropped.addShared(1) }
    }
}
