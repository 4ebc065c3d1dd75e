import Glibc

/// One client's connection: what has come of a message that is not whole yet, and what waits to be sent. Lies in raw
/// memory.
struct Connection: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// Waits for the peer's greeting.
        case greeting
        /// Waits for its READY, or its identity in ZMTP 2.0.
        case handshake
        case up
    }

    /// What the peer speaks: 2.0 has no commands, 3.0 no heartbeats.
    enum Dialect: UInt8, BitwiseCopyable { case zmtp20, zmtp30, zmtp31 }

    var file: Int32 = -1
    var state = State.free
    var dialect = Dialect.zmtp30
    /// Counts the connections that had this place.
    var generation: UInt32 = 0
    /// There is something to send, and the router knows.
    var isDirty = false
    /// The kernel took no more: the rest waits until the socket is writable.
    var isBlocked = false
    /// Buffers were used since the last sweep.
    var wasActive = false
    /// The whole of the greeting was sent.
    var isGreeted = false
    /// A send failed: what is left to read is read, and then it is closed.
    var isEnding = false
    /// Sweeps since something was heard, since it sent a whole message, and since its unfinished message began.
    private(set) var silentSweeps: UInt16 = 0
    private(set) var idleSweeps: UInt16 = 0
    private(set) var unfinishedSweeps: UInt16 = 0
    /// Bytes of its unfinished message at the last sweep, and those that had come between the two before.
    private(set) var countAtSweep = 0
    private(set) var gained = 0
    /// Sweeps of silence after which the peer wants to be dropped.
    var timeToLive = UInt16.max
    /// Its requests that wait for an answer, as the router's owner counts them.
    var outstanding: Int32 = 0
    /// Microseconds when it was accepted.
    var since: UInt64 = 0
    /// Of a message that is not whole yet: bytes at the front of `input` whose frames were looked at.
    var walked = 0
    var input = ByteQueue()
    var output = ByteQueue()
    var nextFree: Int32 = -1

    mutating func countSweep() {
        silentSweeps = min(silentSweeps, .max - 1) + 1
        idleSweeps = min(idleSweeps, .max - 1) + 1
        unfinishedSweeps = input.isEmpty ? 0 : min(unfinishedSweeps, .max - 1) + 1
        gained = max(0, input.count - countAtSweep)
        countAtSweep = input.count
    }

    /// Whether an unfinished message gets on no more: at this rate the rest of it would take its whole time.
    var isStalled: Bool {
        unfinishedSweeps > 0 && max(gained, input.count - countAtSweep) < input.count / 64
    }

    mutating func wasHeard() {
        silentSweeps = 0
        wasActive = true
    }

    mutating func hasAsked() { idleSweeps = 0 }

    mutating func beginsMessage() {
        unfinishedSweeps = 0
        countAtSweep = 0
        gained = 0
    }

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
