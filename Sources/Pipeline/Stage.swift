import MPaxosInvariants

/// One step of the pipeline. It owns its state, and touches no other stage's: what passes between stages passes through
/// rings and `Progress`. All methods are called by whoever runs the stage, one at a time: a lane's thread, or a
/// simulator.
///
/// A class to inherit from and not a protocol, since a lane can call a class through an unmanaged reference: polling
/// counts no references. Open, so that the links, which have sockets, can be a stage in a module of their own.
open class Stage {
    public init() {}

    /// Does up to `budget` pieces of work; says whether there was any.
    /// - Parameter now: microseconds of a clock that never goes back.
    open func poll(budget: Int, now: UInt64) -> Bool { broken("each stage has a way of its own to poll") }

    /// Microseconds of that clock at which the stage wants to be polled though nothing arrives.
    open var nextDeadline: UInt64 { .max }

    /// Called once after the last poll.
    open func close() {}
}
