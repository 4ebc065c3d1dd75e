import MPaxosCZeroMQ

/// What libzmq refused at set-up, as a sentence for the person: what, at which endpoint, why, what to do.
package struct MessagingError: Error, CustomStringConvertible, Equatable {
    /// What was tried, as in "bind".
    package let operation: String
    /// The endpoint it was tried at, or nil where none belongs to it.
    package let endpoint: String?
    /// The errno that libzmq left.
    package let code: Int32

    package init(_ operation: String, endpoint: String? = nil, code: Int32) {
        self.operation = operation
        self.endpoint = endpoint
        self.code = code
    }

    package var description: String {
        let place = endpoint.map { " \($0)" } ?? ""
        let reason = String(cString: zmq_strerror(code))
        let remedy = advice.map { ": \($0)" } ?? ""
        return "cannot \(operation)\(place): \(reason)\(remedy)"
    }

    private var advice: String? {
        switch code {
        case EADDRINUSE:
            "another process, maybe a replica started earlier, listens there; stop it (ss -ltnp names it) or choose another port"
        case EADDRNOTAVAIL, ENODEV:
            "this host has no such address or interface; bind to an address of this host, or to tcp://*:PORT"
        case EACCES, EPERM:
            "this user may not; use a port above 1023, or a folder that it may write to"
        case EINVAL:
            "not a valid endpoint or value; endpoints look like tcp://HOST:PORT or ipc:///PATH"
        case EPROTONOSUPPORT, czmq_ENOCOMPATPROTO:
            "use tcp:// or ipc://"
        case ENAMETOOLONG:
            "an ipc:// path may have at most 107 bytes; use a shorter folder"
        case ENOENT:
            "the folder of the ipc:// path does not exist, or no such endpoint is bound; create the folder first"
        case EMFILE, ENFILE:
            "too many open files; raise the limit (ulimit -n) or use fewer connections"
        case ENOMEM:
            "the machine is out of memory"
        case czmq_ETERM:
            "the messaging context was shut down"
        case czmq_EMTHREAD:
            "the messaging context has no I/O thread; set io_threads to 1 or more"
        default: nil
        }
    }
}

/// errno right after a call of libzmq.
@inline(__always)
func lastError() -> Int32 { zmq_errno() }
