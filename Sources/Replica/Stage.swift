import Messaging

/// One step of the pipeline. It owns its sockets and its state, and touches no other stage's: what passes between stages
/// passes through rings. All methods are called on the thread of the lane that runs the stage.
protocol Stage: AnyObject {
    /// For the names of threads and for logs.
    var name: String { get }

    /// Does up to `budget` pieces of work; says whether there was any.
    func poll(budget: Int, now: UInt64) -> Bool

    /// Microseconds of the monotonic clock at which the stage wants to be polled though nothing arrives.
    var nextDeadline: UInt64 { get }

    /// Adds the sockets whose readability is work for this stage to the lane's poll set.
    func register(in poller: inout Poller)

    /// Called once on the lane's thread after the last poll: release sockets.
    func close()
}

extension Stage {
    var nextDeadline: UInt64 { .max }
    func register(in poller: inout Poller) {}
    func close() {}
}
