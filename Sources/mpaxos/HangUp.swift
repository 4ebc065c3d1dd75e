import Foundation
import Logging
import Synchronization

/// SIGHUP: a replica with keys, or with files of HTTP, reads them again, another one says that there is nothing to be
/// read.
final class HangUp: Sendable {
    private struct State {
        var action: (@Sendable () throws -> Void)?
        /// Whether it is known what is to be done. What comes before is kept until then: files may have been read
        /// already.
        var isSettled = false
        var isBusy = false
        /// It came while it was answered: what was changed meanwhile may not have been read.
        var isDue = false
    }

    private let state = Mutex(State())
    private let logger: Logger

    init(_ logger: Logger) { self.logger = logger }

    /// - Parameter action: what a SIGHUP asks for, from now on; nil where there is nothing to be read.
    func answer(_ action: (@Sendable () throws -> Void)?) {
        let isDue = state.withLock { state in
            state.action = action
            state.isSettled = true
            defer { state.isDue = false }
            return state.isDue
        }
        if isDue { take() }
    }

    /// A SIGHUP has come. Files, and a log whose reader has hung up, take their time: a thread waits for them, and one
    /// is enough.
    func take() {
        let isFirst = state.withLock { state in
            guard state.isSettled, !state.isBusy else {
                state.isDue = true
                return false
            }
            state.isBusy = true
            return true
        }
        guard isFirst else { return }
        Thread.detachNewThread { [self] in
            repeat { react() } while isAskedAgain()
        }
    }

    private func isAskedAgain() -> Bool {
        state.withLock { state in
            defer { state.isDue = false }
            state.isBusy = state.isDue
            return state.isDue
        }
    }

    private func react() {
        guard let action = state.withLock(\.action) else {
            logger.notice(
                "SIGHUP is ignored: a replica reads its topology when it starts, and has no other file to read again; SIGTERM stops it"
            )
            return
        }
        do {
            try action()
        } catch {
            logger.error("keys are as they were before the SIGHUP: \(error)")
        }
    }
}
