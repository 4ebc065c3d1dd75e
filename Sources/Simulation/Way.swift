import MPaxosConsensus
import MPaxosInvariants

/// What travels on a way.
struct Frame: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        case message
        /// A part of the payload of a message that comes behind it.
        case piece
        case mark
        case echo
    }

    var kind: Kind
    var message: Message
    var stamp: UInt64 = 0
    /// When it is at the other end, unless it is held up.
    var due: Microseconds = 0

    static let headerBytes = 64
}

/// One direction of a link: frames in their order, each of which arrives some time after the one before.
struct Way: ~Copyable {
    var frames = Queue<Frame>()
    /// There is a link.
    var isEstablished = false
    /// Its sender knows of the link.
    var isUp = false
    /// Its head is due, and the way is cut: it arrives when that ends, unless the link is lost.
    var isStalled = false
    /// The event at which its head arrives; an older one is void.
    var ticket: UInt64 = 0
    /// At most a tenth of its rate until then.
    var slowUntil: Microseconds = 0
    private var lastDue: Microseconds = 0

    /// - Returns: whether it is the head, whose arrival nobody waits for yet.
    mutating func append(_ frame: Frame, due: Microseconds) -> Bool {
        invariant(isUp, "a link that is down takes nothing")
        lastDue = max(lastDue, due)
        var frame = frame
        frame.due = lastDue
        frames.append(frame)
        return frames.count == 1
    }

    /// The link is gone, with all that is under way on it; or that arrives yet.
    mutating func close(keepsFrames: Bool = false) {
        isEstablished = false
        isUp = false
        guard !keepsFrames else { return }
        frames.removeAll()
        isStalled = false
        ticket += 1
    }
}
