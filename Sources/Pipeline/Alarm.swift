import Synchronization

/// Why this replica must not go on: raised by a stage, heard by whoever runs the replica, which stops it and ends with
/// that sentence.
package final class Alarm: Sendable {
    package struct Reason: Sendable {
        package var text: String
        /// The other replicas will never take this one up again: its pools are not to be opened any more.
        package var isExpelled: Bool

        package init(text: String, isExpelled: Bool = false) {
            self.text = text
            self.isExpelled = isExpelled
        }
    }

    private let reason = Mutex<Reason?>(nil)
    private let ring: @Sendable () -> Void

    /// - Parameter ring: called when it is raised, by the thread that raises it.
    package init(ring: @escaping @Sendable () -> Void) { self.ring = ring }

    /// The first reason stays.
    package func raise(_ reason: Reason) {
        self.reason.withLock { $0 = $0 ?? reason }
        ring()
    }

    package var raised: Reason? { reason.withLock { $0 } }
}
