import MPaxosMessaging

/// Who receives from sockets or descriptors, and is to be polled when one of them has something.
package protocol Watched: AnyObject {
    /// Adds them to a lane's watch, for good. Called once, on the lane's thread, before the first poll.
    func register(in watch: Watch)
}
