/// Views and instances beyond this are refused when they come from the network: nobody lives that long, and the
/// arithmetic on them cannot overflow.
package let plausibleLimit: UInt64 = 1 << 62

/// A message moves the promised view up by so many at most; one from beyond is refused, and moves it up by just these.
/// So what one replica says wrongly spends no more of the views than that, on durable record: all of them would take
/// 2^46 messages, which a link of 1 Gbit/s carries in more than a year. Honest replicas are never so far apart, as each
/// view costs an election; and where one was away for more of them than that, the messages of the others take it there
/// in some steps.
package let mostViewsAtOnce: UInt64 = 1 << 16

/// The door for what peers say. A replica trusts the others, so one that lies may mislead it. But whatever a message
/// says, no core stops for it, and it uses up nothing for good.
extension Core {
    /// Whether a replica in the sender's place can have this to say: nobody's view or instance gets near the limit, and
    /// leaders alone speak as leaders.
    @inline(__always) func isPlausible(_ message: Message, from: ReplicaIndex) -> Bool {
        guard from >= 0 && from < memberCount && from != me else { return false }
        guard
            message.view > 0 && message.view < plausibleLimit && message.instance < plausibleLimit
                && message.bound < plausibleLimit && message.commit < plausibleLimit
        else { return false }
        switch message.kind {
        case .preVote, .prepare, .heartbeat: return leadingReplica(of: message.view, among: memberCount) == from
        case .accept:
            return leadingReplica(of: message.view, among: memberCount) == from && message.instance > message.bound
        case .preVoteGrant, .accepted: return leadingReplica(of: message.view, among: memberCount) == me
        case .promise:
            return leadingReplica(of: message.view, among: memberCount) == me
                && (message.flags.contains(.last)
                    || (message.instance > message.bound && message.acceptedView > 0
                        && (message.acceptedView < message.view || message.acceptedView == decidedView)))
        case .catchUpRequest: return message.instance > 0
        case .decided: return message.instance > 0 && message.instance <= message.commit
        // A floor is at most one above what was decided.
        case .belowFloor: return message.instance <= message.commit + 1
        case .nack: return true
        }
    }

    /// Moves up towards the view of a message that came. Returns whether this replica is there now: a message from too
    /// far beyond is refused.
    mutating func reach(_ view: View, now: Microseconds, into effects: inout EffectBuffer) -> Bool {
        adoptView(min(view, promised + mostViewsAtOnce), now: now, into: &effects)
        guard promised < view else { return true }
        counters.refused += 1
        settle(now: now)
        return false
    }

    /// What a peer said to have decided counts as long as the link to it stands, and a leader's commit index as long as
    /// its view: if such a word were wrong and counted for ever, this replica could never catch up with it.
    mutating func knowWhatIsSaid() {
        known = max(learned, commit)
        for peer in 0..<memberCount where peer != me && peers[peer].decided > known { known = peers[peer].decided }
        // By all that anybody says nothing is missing.
        if known == learned { needsStateTransfer = false }
    }
}
