import Glibc
import MPaxosMessaging
import MPaxosZMTP

/// Throws where a process listens at the path of an `ipc://` endpoint: libzmq would take the path from it, and its
/// clients or peers would come here. A path that a killed process left is free.
func requireFree(_ endpoint: String) throws(MessagingError) {
    let isTaken: Bool
    do throws(SocketError) {
        isTaken = try SocketAddress(endpoint, passive: true).isListenedAt
    } catch {
        // What is wrong with it libzmq says when it binds.
        return
    }
    if isTaken { throw MessagingError("bind", endpoint: endpoint, code: EADDRINUSE) }
}
