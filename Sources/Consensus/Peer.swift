/// What is known of another member. Fields of the leader's and of the candidate's begin anew with that role.
struct Peer: BitwiseCopyable {
    /// Leader: the peer has durably accepted all in base ..< = acked in this view, or knows it as decided.
    var acked: Instance = 0
    /// Leader: the next instance to propose to the peer.
    var next: Instance = 0
    /// Leader: the commit index that the peer was told last.
    var toldCommit: Instance = 0
    /// Bytes of batches that may be sent to the peer now; whoever drives the core says how many, see `allow`.
    var room = Int.max
    /// Leader: the peer has no room for proposals, and will say when it has.
    var isFull = false
    /// Leader: the round in which proposals to the peer were repeated last. Gaps of earlier rounds are under repair.
    var repeatedInRound: UInt64 = 0
    /// Leader: when the peer last answered.
    var lastHeard: Microseconds = 0
    /// Leader: the peer has answered since this replica began to lead.
    var hasAnswered = false
    /// Leader: when the last heartbeat that wants an answer was sent to the peer.
    var lastHeartbeat: Microseconds = 0
    /// How often a proposal to the peer was repeated, since this core started.
    var repetitions: UInt64 = 0
    /// How long an answer of the peer may take, by the round trips that were measured; before the first one, the
    /// configured time.
    var patience: Microseconds = 0
    /// The least round trip to the peer, when nothing else is on the way; 0 before it was measured.
    var distance: Microseconds = 0
    /// Up to where the peer said last that it has decided, and so can serve; 0 with a new link, since it may have
    /// restarted with less.
    var decided: Instance = 0
    /// Candidate: what the peer accepted up to here is known; `.max` says that all of it is.
    var covered: Instance = 0
    /// Candidate: up to where the peer had decided when it promised. What it said before does not count: after a
    /// restart it may know less, and the base of the new view must be something that somebody can serve.
    var promisedDecided: Instance = 0
    /// Candidate: how many segments of the peer's answers were put aside.
    var segmentCount = 0
}
