import MPaxosInvariants

/// Fetching decided values that proposals did not bring, by asking for them.
extension Core {
    /// Up to where values are wanted that no proposal will bring. A leader fetches only what was decided before its
    /// view.
    private var catchUpTarget: Instance {
        min(role == .leader ? base : known, log.end - 1)
    }

    /// Where there is no room for what the leader proposes, there is none for the same values from others; this holds
    /// as long as it is those that are missing.
    private var isFullForNow: Bool { isFull && baseKnown && learned >= base }

    mutating func scheduleCatchUp(now: Microseconds) {
        let target = catchUpTarget
        guard learned < target && !isFullForNow else {
            catchUpDeadline = .max
            catchUpRotation = 0
            return
        }
        guard catchUpDeadline == .max else { return }
        // Values that were decided in this view are mostly on their way.
        let isUrgent = baseKnown ? learned < base : target - learned > lookahead
        catchUpDeadline = isUrgent ? now : now + proposalPatience
        catchUpMark = learned
        catchUpAsked = 0
    }

    /// How long the leader may take to bring what was decided in its view. It repeats what a follower names as missing,
    /// so only what it has dropped from its log must be asked for.
    private var proposalPatience: Microseconds {
        let leader = leadingReplica(of: promised, among: memberCount)
        return leaderActive && leader != me
            ? max(configuration.suspect, 4 * answerTime(of: leader)) : configuration.retransmit
    }

    /// How long an answer of a peer, or its next part, may take. There is a limit, since a link that was held up once
    /// and is gone now says nothing that would bring its measured time down again.
    func answerTime(of peer: ReplicaIndex) -> Microseconds { min(peers[peer].patience, 4 * configuration.suspect) }

    /// How many bytes of batches one answer to a peer may have; it has one batch at least.
    func answerBytes(to peer: ReplicaIndex) -> Int { min(Self.burstBytes, max(peers[peer].room, 1)) }

    mutating func catchUpTick(now: Microseconds, into effects: inout EffectBuffer) {
        if baseKnown && learned >= base && learned > catchUpMark {
            // Proposals of this view bring the values: asking too would bring them twice.
            catchUpMark = learned
            catchUpDeadline = now + proposalPatience
        } else {
            requestCatchUp(now: now, into: &effects)
        }
    }

    mutating func requestCatchUp(now: Microseconds, into effects: inout EffectBuffer) {
        let target = catchUpTarget
        guard learned < target && memberCount > 1 && !isFullForNow else { return }
        let from = learned + 1
        catchUpRotation = catchUpAsked == from ? catchUpRotation + 1 : 0
        catchUpAsked = from
        catchUpPeer = choosePeer()
        catchUpDeadline = now + answerTime(of: catchUpPeer)
        var through = from
        while through < target && through - from + 1 < Self.burst && !log[through + 1].isDecided { through += 1 }
        invariant(log[from].isDecided == false, "what is decided is not asked for")
        send(
            .catchUpRequest(view: max(promised, 1), from: from, through: through), to: catchUpPeer, after: 0,
            into: &effects)
    }

    /// Whom to ask: first the leader, or who is known to be furthest; if no answer helps, one peer after the other.
    private func choosePeer() -> ReplicaIndex {
        var first = leadingReplica(of: promised, among: memberCount)
        if !leaderActive || first == me {
            first = me == 0 ? 1 : 0
            for peer in 0..<memberCount where peer != me && peers[peer].decided > peers[first].decided { first = peer }
        }
        var peer = first
        for _ in 0..<(catchUpRotation % (memberCount - 1)) {
            peer = (peer + 1) % memberCount
            if peer == me { peer = (peer + 1) % memberCount }
        }
        invariant(peer != me, "a replica asks others")
        return peer
    }

    mutating func receiveCatchUpRequest(_ message: Message, from: ReplicaIndex, into effects: inout EffectBuffer) {
        // Answers speak in the promised view, which is not below the one in which the values were decided.
        guard promised > 0 && message.instance <= decided else { return }
        if message.instance < served {
            send(
                .belowFloor(view: promised, floor: served, decided: decided), to: from, after: 0, into: &effects)
            return
        }
        let through = min(message.bound, min(decided, message.instance + Self.burst - 1))
        var instance = message.instance
        var bytes = 0
        let most = answerBytes(to: from)
        while instance <= through {
            let entry = log[instance]
            invariant(entry.isDecided, "the log is complete from `served` to `decided`")
            bytes += Int(entry.batch.length)
            let isLast = instance == through || bytes >= most
            peers[from].room -= Int(entry.batch.length) + Self.messageBytes
            send(
                .decided(
                    view: promised, instance: instance, decided: decided, batch: entry.batch, last: isLast),
                to: from, after: 0, into: &effects)
            if isLast { break }
            instance += 1
        }
    }

    /// Which decided values are kept. A decided value counts as accepted in acknowledgements to the leader of the
    /// promised view, which is sound only if it was decided in no higher view. So the promise must be as high as the
    /// view in which the sender speaks, and durable before the value is, lest a crash keep the value and lose the
    /// promise.
    @inline(__always) func wantsDecided(_ message: Message) -> Bool {
        if !configuration.plantedBugs.contains(.decidedWithoutView) {
            guard message.view <= promised && promisedRecord <= durableRecord else { return false }
        }
        guard log.fits(message.instance) && message.instance > learned else { return false }
        let isLeading = role == .leader || (role == .candidate && (phase == .adopt || phase == .establish))
        if isLeading && message.instance > base { return false }
        let entry = log[message.instance]
        return !entry.isDecided && entry.view != promised
    }

    mutating func receiveDecided(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) -> Bool {
        let kept = wantsDecided(message)
        if kept {
            counters.caughtUp += 1
            accept(message.instance, view: decidedView, batch: message.batch, into: &effects)
        } else if message.view <= promised && promisedRecord <= durableRecord {
            // The entry was accepted in the promised view, and the value decided in that or a lower one: they are the
            // same.
            let entry = log[message.instance]
            if entry.view == promised && !entry.isDecided { log.markDecided(message.instance) }
        }
        learn()
        if catchUpDeadline != .max && from == catchUpPeer {
            catchUpDeadline = max(catchUpDeadline, now + answerTime(of: from))
        }
        // It does not matter who answered: the first that was asked may have been slow, and another was asked
        // meanwhile.
        if message.flags.contains(.last) && learned >= catchUpAsked && catchUpAsked != 0 {
            requestCatchUp(now: now, into: &effects)
        }
        return kept
    }

    mutating func receiveBelowFloor(_ message: Message, from: ReplicaIndex, now: Microseconds) {
        guard message.instance > learned + 1 else { return }
        invariant(known > learned, "what is below a plausible floor is decided")
        needsStateTransfer = true
    }
}
