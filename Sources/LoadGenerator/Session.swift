import MPaxosInvariants

/// A session of the cluster and its one outstanding request.
///
/// Sequences carry the session's number here in their low bits, so that a reply finds its session without a search;
/// the count above rises with every request, and so do the sequences.
struct Session {
    static let numberBits = 20
    static let largestCount = 1 << numberBits

    enum Pending: UInt8 {
        case nothing
        case open
        case operation
        case close
    }

    /// The cluster's id for it; 0 before it is open.
    var id: UInt64 = 0
    /// Of the outstanding request, or of the last one.
    var sequence: UInt64
    /// Nanoseconds at which the operation was meant to start.
    var start: UInt64 = 0
    /// Nanoseconds at which the outstanding request was first to be sent.
    var askedAt: UInt64 = 0
    /// Nanoseconds at which the outstanding request was last sent.
    var sentAt: UInt64 = 0
    /// Nanoseconds before which a request that was turned away is not sent again.
    var retryAt: UInt64 = 0
    var key: UInt64 = 0
    /// Latest position of the state machine that it has seen.
    var position: UInt64 = 0
    var valueSize: UInt32 = 0
    var pending = Pending.nothing
    var operation = Operation.put
    /// Turned away with BUSY or NO_LEADER: `retryAt` counts.
    var isWaiting = false
    /// The session expired under an operation, which is to be sent again in the next.
    var resumesOperation = false

    init(number: Int) {
        invariant(number >= 0 && number < Session.largestCount, "a session's number fits its bits")
        sequence = UInt64(number)
    }

    /// The number of the session that a reply with `sequence` belongs to.
    @inline(__always) static func number(of sequence: UInt64) -> Int {
        Int(truncatingIfNeeded: sequence & UInt64(largestCount - 1))
    }

    @inline(__always) mutating func advance() {
        sequence += UInt64(Session.largestCount)
    }
}
