import Dispatch
import Synchronization

/// Why this replica must not go on: raised by a stage, heard by the thread that runs the node, which stops it and ends
/// with that sentence.
final class Alarm: Sendable {
    struct Reason {
        var text: String
        /// The other replicas will never take this one up again: its pools are not to be opened any more.
        var isExpelled = false
    }

    private let reason = Mutex<Reason?>(nil)
    private let bell: DispatchSemaphore

    /// - Parameter bell: rung when it is raised.
    init(bell: DispatchSemaphore) { self.bell = bell }

    /// The first reason stays.
    func raise(_ reason: Reason) {
        self.reason.withLock { $0 = $0 ?? reason }
        bell.signal()
    }

    var raised: Reason? { reason.withLock { $0 } }
}
