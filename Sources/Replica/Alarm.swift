import Dispatch
import Synchronization

/// Why this replica must not go on: raised by a stage, heard by the thread that runs the node, which stops it and ends
/// with that sentence.
final class Alarm: Sendable {
    private let reason = Mutex<String?>(nil)
    private let bell: DispatchSemaphore

    /// - Parameter bell: rung when it is raised.
    init(bell: DispatchSemaphore) { self.bell = bell }

    /// The first reason stays.
    func raise(_ text: String) {
        reason.withLock { $0 = $0 ?? text }
        bell.signal()
    }

    var raised: String? { reason.withLock { $0 } }
}
