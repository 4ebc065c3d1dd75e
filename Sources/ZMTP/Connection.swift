import Glibc

/// One client's connection: what has come of a message that is not whole yet, and what waits to be sent. Lies in raw memory.
struct Connection: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// Waits for the peer's greeting.
        case greeting
        /// Waits for its READY.
        case handshake
        case up
    }

    var file: Int32 = -1
    var state = State.free
    /// Counts the connections that had this place.
    var generation: UInt32 = 0
    /// There is something to send, and the router knows.
    var isDirty = false
    /// The kernel took no more: the rest waits until the socket is writable.
    var isBlocked = false
    /// Buffers were used since the last sweep.
    var wasActive = false
    /// Microseconds when it was accepted.
    var since: UInt64 = 0
    /// Of a message that is not whole yet: bytes at the front of `input` whose frames were looked at.
    var walked = 0
    var input = ByteQueue()
    var output = ByteQueue()
    var nextFree: Int32 = -1

    enum SendOutcome { case done, blocked, lost }

    /// Sends what waits, as much as the kernel takes.
    mutating func send() -> SendOutcome {
        while !output.isEmpty {
            let count = Glibc.send(file, output.bytes.baseAddress, output.count, Int32(MSG_NOSIGNAL))
            if count > 0 {
                output.remove(count)
            } else if errno == EAGAIN {
                return .blocked
            } else if errno != EINTR {
                return .lost
            }
        }
        return .done
    }

    enum ReceiveOutcome {
        case received(Int)
        case nothing, lost
    }

    func receive(into place: UnsafeMutableRawPointer, count: Int) -> ReceiveOutcome {
        let received = recv(file, place, count, 0)
        if received > 0 { return .received(received) }
        return received < 0 && (errno == EAGAIN || errno == EINTR) ? .nothing : .lost
    }
}
