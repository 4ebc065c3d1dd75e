import Foundation
import Glibc
import Synchronization

/// That a replica was asked to stop: by the first signal, at any moment of its start or its run. A replica that does
/// not manage to, since its disk does not answer, is ended without it.
final class StopRequest: Sendable {
    private struct State {
        var isMade = false
        var stop: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Seconds that a stop may take.
    private static let patience: UInt32 = 10

    /// - Parameter stop: called when the request is made, or at once when it was; does not block.
    func answer(with stop: @escaping @Sendable () -> Void) {
        let isMade = state.withLock { state in
            state.stop = stop
            return state.isMade
        }
        if isMade { stop() }
    }

    /// Does not block.
    /// - Parameter name: who is to stop, for the message of one who does not.
    func make(of name: String) {
        let (isFirst, stop) = state.withLock { state in
            defer { state.isMade = true }
            return (!state.isMade, state.stop)
        }
        guard isFirst else { return }
        stop?()
        Thread.detachNewThread {
            sleep(Self.patience)
            sayBriefly(
                "mpaxos: \(name) was asked to stop, and did not within \(Self.patience) s, as when a disk does not answer: it ends without. What it acknowledged is in its pools, as after a kill; start it again when the disk answers\n"
            )
            _exit(Failure.Code.notSo.rawValue)
        }
    }
}
