/// What replicas say to each other. One flat structure for all kinds, so that it fits a fixed frame header; the factory
/// functions name what the fields mean for each kind. `batch` is the local handle on either side: the bytes travel
/// beside it.
package struct Message: BitwiseCopyable, Hashable, Sendable {
    package enum Kind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        case preVote = 1
        case preVoteGrant = 2
        case prepare = 3
        case promise = 4
        case accept = 5
        case accepted = 6
        case heartbeat = 7
        case catchUpRequest = 8
        case decided = 9
        case belowFloor = 10
        case nack = 11
    }

    package struct Flags: OptionSet, Hashable, Sendable, BitwiseCopyable {
        package let rawValue: UInt8
        @inlinable
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// To be used in place of `[]`, of which the compiler may make an array first.
        @inlinable
        package static var none: Flags { Flags(rawValue: 0) }
        /// Promise: the sender has accepted nothing above `bound`, and the message carries no entry. Decided: the
        /// answer ends here.
        @inlinable
        package static var last: Flags { Flags(rawValue: 1) }
        /// Promise: the answer ends here, and the rest is to be asked for.
        @inlinable
        package static var more: Flags { Flags(rawValue: 2) }
        /// Accepted: proposals are missing after `instance`.
        @inlinable
        package static var gap: Flags { Flags(rawValue: 4) }
        /// Heartbeat: it only tells the commit index, and wants no answer.
        @inlinable
        package static var quiet: Flags { Flags(rawValue: 8) }
        /// Accepted: the sender has no room for the next proposal, and will say so when it has.
        @inlinable
        package static var full: Flags { Flags(rawValue: 16) }
        /// What an accepted may say. It is no literal, for the same reason as `none`.
        @inlinable
        package static var gapOrFull: Flags { Flags(rawValue: 4 | 16) }
    }

    package var kind: Kind
    package var flags: Flags
    package var view: View
    package var instance: Instance
    package var bound: Instance
    package var commit: Instance
    /// Promise: the view in which the batch was accepted. Accept, heartbeat and accepted: see `round`.
    package var acceptedView: View
    package var batch: Batch

    /// For decoders; all others use the factory functions.
    @inlinable
    package init(
        kind: Kind, flags: Flags = .none, view: View, instance: Instance = 0, bound: Instance = 0, commit: Instance = 0,
        acceptedView: View = 0, batch: Batch = .noop
    ) {
        self.kind = kind
        self.flags = flags
        self.view = view
        self.instance = instance
        self.bound = bound
        self.commit = commit
        self.acceptedView = acceptedView
        self.batch = batch
    }

    /// Whether `batch` means something, and its bytes travel with the message.
    @inlinable
    package var carriesBatch: Bool {
        switch kind {
        case .accept, .decided: true
        case .promise: !flags.contains(.last)
        default: false
        }
    }

    /// Accepted: the follower misses proposals below one that it has.
    package var reportsGap: Bool { flags.contains(.gap) }

    /// Accept, heartbeat: how often the leader has begun to repeat proposals. Accepted: the round that the follower
    /// heard last, so that a gap which is under repair is told from a new one. A leader that resumes its view begins
    /// again with 0.
    @inlinable
    package var round: UInt64 { acceptedView }

    /// For logs: the kind, and the numbers that are not zero.
    package var summary: String {
        let numbers = [
            ("view", view), ("instance", instance), ("bound", bound), ("commit", commit), ("round", acceptedView),
        ]
        return numbers.reduce("\(kind)") { $1.1 == 0 ? $0 : "\($0) \($1.0)=\($1.1)" }
    }

    /// "Would you follow me into `view`? I have decided all up to `decided`."
    static func preVote(view: View, decided: Instance) -> Message {
        Message(kind: .preVote, view: view, commit: decided)
    }

    /// "I would."
    static func preVoteGrant(view: View) -> Message { Message(kind: .preVoteGrant, view: view) }

    /// "Promise `view`, and tell me what you accepted above `after`."
    static func prepare(view: View, after: Instance) -> Message {
        Message(kind: .prepare, view: view, instance: after)
    }

    /// "I promised `view`; all up to `decided` is decided; in `after` ..< `instance` I accepted nothing (or it is
    /// decided), in `instance` I accepted `batch`, last in `acceptedView` (`decidedView`: it is decided)."
    /// Self-contained, idempotent.
    static func promise(
        view: View, decided: Instance, after: Instance, instance: Instance, acceptedView: View, batch: Batch, more: Bool
    ) -> Message {
        Message(
            kind: .promise, flags: more ? .more : .none, view: view, instance: instance, bound: after, commit: decided,
            acceptedView: acceptedView, batch: batch)
    }

    /// "I promised `view`; all up to `decided` is decided; above `after` I accepted nothing."
    static func lastPromise(view: View, decided: Instance, after: Instance) -> Message {
        Message(kind: .promise, flags: .last, view: view, bound: after, commit: decided)
    }

    /// "Accept `batch` for `instance`, as I did durably." `base`, `commit` and `round` as in a heartbeat.
    static func accept(
        view: View, instance: Instance, base: Instance, commit: Instance, round: UInt64, batch: Batch
    ) -> Message {
        Message(
            kind: .accept, view: view, instance: instance, bound: base, commit: commit, acceptedView: round,
            batch: batch)
    }

    /// "All in `base` ..< = `upTo` I durably accepted in `view`, or know as decided. I have decided all up to
    /// `decided`."
    static func accepted(
        view: View, upTo: Instance, base: Instance, decided: Instance, round: UInt64, flags: Flags
    ) -> Message {
        Message(
            kind: .accepted, flags: flags, view: view, instance: upTo, bound: base, commit: decided, acceptedView: round
        )
    }

    /// "I lead `view`. All up to `base` was decided before it, all up to `commit` is decided. What I sent you reaches
    /// `highest`."
    static func heartbeat(
        view: View, highest: Instance, base: Instance, commit: Instance, round: UInt64, quiet: Bool
    ) -> Message {
        Message(
            kind: .heartbeat, flags: quiet ? .quiet : .none, view: view, instance: highest, bound: base, commit: commit,
            acceptedView: round)
    }

    /// "Send me the decided values of `from` ... `through`."
    static func catchUpRequest(view: View, from: Instance, through: Instance) -> Message {
        Message(kind: .catchUpRequest, view: view, instance: from, bound: through)
    }

    /// "`batch` is decided for `instance`, in a view not above `view`. I have decided all up to `decided`." `last`: the
    /// answer ends here.
    static func decided(view: View, instance: Instance, decided: Instance, batch: Batch, last: Bool) -> Message {
        Message(
            kind: .decided, flags: last ? .last : .none, view: view, instance: instance, commit: decided, batch: batch)
    }

    /// "What you ask for is decided, but my log begins at `floor`."
    static func belowFloor(view: View, floor: Instance, decided: Instance) -> Message {
        Message(kind: .belowFloor, view: view, instance: floor, commit: decided)
    }

    /// "I promised `view`, which is above yours", or "I follow the leader of `view`, and need no other". "I have
    /// decided all up to `decided`": who cannot hear the leader learns from this what it misses.
    static func nack(view: View, decided: Instance) -> Message { Message(kind: .nack, view: view, commit: decided) }
}
