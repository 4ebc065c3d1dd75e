import MPaxosInvariants
import MPaxosMessaging

/// One step of the pipeline. It owns its sockets and its state, and touches no other stage's: what passes between
/// stages passes through rings. All methods are called on the thread of the lane that runs the stage.
///
/// A class to inherit from and not a protocol, since a lane can call a class through an unmanaged reference: polling
/// counts no references.
class Stage {
    /// Does up to `budget` pieces of work; says whether there was any.
    /// - Parameter now: microseconds of the monotonic clock.
    func poll(budget: Int, now: UInt64) -> Bool { broken("each stage has a way of its own to poll") }

    /// Microseconds of the monotonic clock at which the stage wants to be polled though nothing arrives.
    var nextDeadline: UInt64 { .max }

    /// Adds the stage's sockets to the lane's watch, for good. Called once, before the first poll.
    func register(in watch: Watch) {}

    /// Called once on the lane's thread after the last poll.
    func close() {}
}
