import MPaxosInvariants

/// A value that a candidate learnt from promises.
struct Adopted: BitwiseCopyable {
    var instance: Instance = 0
    /// The candidate's view for which it was reported.
    var election: View = 0
    /// The view in which it was accepted.
    var view: View = 0
    var batch = Batch.noop
}

/// A part of a peer's answer that came before what precedes it: it speaks of `bound` ..< = `instance`.
struct PromiseSegment: BitwiseCopyable {
    var bound: Instance = 0
    /// `.max` says that the segment speaks of all above, too.
    var instance: Instance = 0
    /// The answer ends here, and the rest is to be asked for.
    var isEnd = false
}

/// From the suspicion of a leader to being one: pre-vote, promises, adoption of what may be chosen.
extension Core {
    /// The lowest view above the promised one that this replica leads.
    private var nextOwnView: View {
        let members = UInt64(memberCount)
        let lowest = promised + 1
        return lowest + (UInt64(me) + members - lowest % members) % members
    }

    /// Asks the others first whether they miss a leader too: a replica that was cut off deposes nobody when it is back.
    mutating func beginElection(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role != .recovering, "a core is started first")
        guard !isStuck(now: now) && !standsStill else {
            // A promise that never becomes durable is never sent, and would depose whoever is elected meanwhile. A
            // replica that could not propose would be elected for nothing.
            role = .follower
            restartElectionTimer(now)
            return
        }
        counters.elections += 1
        role = .candidate
        phase = .preVote
        leaderActive = false
        targetView = nextOwnView
        invariant(targetView > promised, "a candidate wants a view of its own")
        votes = 1 << UInt16(me)
        restartElectionTimer(now)
        prepareDeadline = now + solicitationTime
        for peer in 0..<memberCount where peer != me { solicit(peer, into: &effects) }
        if quorum == 1 { beginPrepare(now: now, into: &effects) }
    }

    /// Says (again) to a peer what this candidate waits for.
    mutating func solicit(_ peer: ReplicaIndex, into effects: inout EffectBuffer) {
        switch phase {
        case .preVote:
            if votes & (1 << UInt16(peer)) == 0 {
                send(.preVote(view: targetView, decided: decided), to: peer, after: 0, into: &effects)
            }
        case .prepare:
            if peers[peer].covered != .max {
                send(
                    .prepare(view: promised, after: peers[peer].covered), to: peer, after: promisedRecord,
                    into: &effects)
            }
        case .adopt, .establish: break
        }
    }

    /// How long all who are asked may take to answer.
    var solicitationTime: Microseconds {
        var time = configuration.retransmit
        for peer in 0..<memberCount where peer != me { time = max(time, peers[peer].patience) }
        // A peer that is slow, or gone, is not to delay the others for ever.
        return min(time, configuration.suspect)
    }

    mutating func candidateTick(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .candidate, "only a candidate ticks as one")
        if now >= electionDeadline {
            if phase != .preVote { failedElections += 1 }
            beginElection(now: now, into: &effects)
        } else if now >= prepareDeadline {
            prepareDeadline = now + solicitationTime
            for peer in 0..<memberCount where peer != me { solicit(peer, into: &effects) }
        }
    }

    mutating func receivePreVote(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        guard message.view > promised else {
            send(.nack(view: promised, decided: decided), to: from, after: 0, into: &effects)
            return
        }
        switch role {
        case .leader:
            // The asker does not hear this leader.
            sendHeartbeat(to: from, quiet: false, now: now, into: &effects)
            return
        case .candidate where phase != .preVote:
            // This election is to end first, well or by its timeout.
            return
        default: break
        }
        // A replica that hears a leader keeps it, unless the leader itself wants a new view.
        let leading = leadingReplica(of: promised, among: memberCount)
        let hearsLeader = hadContact && now < lastContact + suspicion(of: leading) && leading != from
        if hearsLeader && promised > 0 {
            // A replica that asks in vain may be cut off from the leader alone: it hears here what it misses.
            send(.nack(view: promised, decided: decided), to: from, after: 0, into: &effects)
            return
        }
        guard !hearsLeader && !isStuck(now: now) else { return }
        // A leader that had to fetch much before it could serve, or that could not even fetch it from here, helps
        // nobody.
        guard message.commit + window >= decided && message.commit + 1 >= served else { return }
        send(.preVoteGrant(view: message.view), to: from, after: 0, into: &effects)
    }

    mutating func receivePreVoteGrant(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        guard role == .candidate && phase == .preVote && message.view == targetView else { return }
        invariant(targetView > promised, "a candidate gives up when it promises another view")
        votes |= 1 << UInt16(from)
        if votes.nonzeroBitCount >= quorum { beginPrepare(now: now, into: &effects) }
    }

    private mutating func beginPrepare(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .candidate && phase == .preVote, "a view change begins with the pre-vote")
        promise(targetView, into: &effects)
        phase = .prepare
        candidateHighest = 0
        // Both deadlines begin anew when the promise is durable, unless that takes so long that somebody else should
        // try.
        electionDeadline = now + 4 * patienceWithElections
        prepareDeadline = electionDeadline
        for peer in 0..<memberCount where peer != me {
            peers[peer].covered = decided
            peers[peer].promisedDecided = 0
            peers[peer].segmentCount = 0
            solicit(peer, into: &effects)
        }
        if quorum == 1 { completePhaseOne(now: now, into: &effects) }
    }

    func adoptedValue(_ instance: Instance) -> Adopted? {
        guard role == .candidate && phase != .preVote && log.fits(instance) else { return nil }
        let value = adopted[Int(instance % log.slotCount)]
        return value.instance == instance && value.election == promised ? value : nil
    }

    func wantsPromise(_ message: Message, from: ReplicaIndex) -> Bool {
        guard role == .candidate && phase == .prepare && message.view == promised else { return false }
        guard
            !message.flags.contains(.last) && message.instance > peers[from].covered && message.instance > decided
                && log.fits(message.instance)
        else { return false }
        if let value = adoptedValue(message.instance) {
            if configuration.plantedBugs.contains(.adoptFirstReported) { return false }
            if message.acceptedView <= value.view { return false }
        }
        return message.acceptedView > log[message.instance].reportedView
    }

    /// The promises of a peer form a chain: each says from where on it speaks, so losses, repetitions and reordering do
    /// no harm.
    mutating func receivePromise(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) -> Bool {
        guard role == .candidate && phase == .prepare && message.view == promised else { return false }
        guard peers[from].covered != .max else { return false }
        let isLast = message.flags.contains(.last)
        guard isLast || message.instance < log.end else {
            withdraw(now: now)
            return false
        }
        peers[from].promisedDecided = max(peers[from].promisedDecided, message.commit)
        let kept = wantsPromise(message, from: from)
        if kept {
            adopted[Int(message.instance % log.slotCount)] = Adopted(
                instance: message.instance, election: promised, view: message.acceptedView, batch: message.batch)
        }
        if !isLast && message.instance > candidateHighest { candidateHighest = message.instance }
        let before = peers[from].covered
        let isEnd = cover(
            PromiseSegment(
                bound: message.bound, instance: isLast ? .max : message.instance, isEnd: message.flags.contains(.more)),
            of: from)
        // An election lasts as long as it gets on, since that depends on how much there is to learn.
        if peers[from].covered > before {
            restartElectionTimer(now)
            // The rest of the peer's answer is on the way.
            prepareDeadline = max(prepareDeadline, now + answerTime(of: from))
        }
        if peers[from].covered == .max {
            completePhaseOne(now: now, into: &effects)
        } else if isEnd {
            solicit(from, into: &effects)
        }
        return kept
    }

    /// Without a slot for what was accepted elsewhere this replica cannot lead now: it lets others try before it does
    /// again.
    private mutating func withdraw(now: Microseconds) {
        invariant(role == .candidate, "only a candidate withdraws")
        role = .follower
        hadContact = false
        electionDeadline = now + 2 * configuration.suspect + random.below(configuration.suspect)
    }

    /// Advances what is covered of a peer's log, by this segment and those that waited for it. Returns whether the end
    /// of an answer was reached. There are more places than an answer has messages; where older segments linger in
    /// them, one that finds no place is asked for again.
    private func cover(_ segment: PromiseSegment, of peer: ReplicaIndex) -> Bool {
        let waiting = segments + peer * Self.segmentsPerPeer
        guard segment.bound <= peers[peer].covered else {
            waiting[peers[peer].segmentCount % Self.segmentsPerPeer] = segment
            peers[peer].segmentCount += 1
            return false
        }
        var isEnd = false
        var next: PromiseSegment? = segment
        while let joined = next {
            if joined.instance > peers[peer].covered {
                peers[peer].covered = joined.instance
                isEnd = joined.isEnd
            }
            next = nil
            for place in 0..<min(peers[peer].segmentCount, Self.segmentsPerPeer) {
                let segment = waiting[place]
                if segment.bound <= peers[peer].covered && segment.instance > peers[peer].covered {
                    next = segment
                    break
                }
            }
        }
        invariant(peers[peer].covered >= segment.instance, "a segment that joins is covered")
        return isEnd
    }

    private mutating func completePhaseOne(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .candidate && phase == .prepare, "phase 1 ends once")
        var promises = 1
        var bound = decided
        for peer in 0..<memberCount where peer != me && peers[peer].covered == .max {
            promises += 1
            bound = max(bound, peers[peer].promisedDecided)
        }
        guard promises >= quorum else { return }
        let isNew = learnBase(bound)
        invariant(isNew, "the base of a view is chosen once, by its leader")
        raiseCommit(to: bound)
        adoptCursor = bound + 1
        beginAdopting(now: now, into: &effects)
    }

    /// Whether this replica led the promised view when it was killed, and may go on: all that it ever sent in its view
    /// was durable, so it cannot propose a second value for an instance. There can be no entries of older views above
    /// the base, since adoption precedes the established record.
    var canResume: Bool {
        guard promised > 0 && established.view == promised else { return false }
        guard leadingReplica(of: promised, among: memberCount) == me else { return false }
        var instance = max(established.base, max(decided, log.floor - 1)) + 1
        while instance <= log.highest {
            let entry = log[instance]
            if entry.view != 0 && entry.view != promised && !entry.isDecided { return false }
            instance += 1
        }
        return true
    }

    mutating func resume(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(canResume, "only an unchallenged leader resumes")
        role = .candidate
        let isNew = learnBase(established.base)
        invariant(isNew, "a core that starts knows no base")
        raiseCommit(to: max(base, decided))
        adoptCursor = max(base, decided) + 1
        candidateHighest = log.highest
        beginAdopting(now: now, into: &effects)
    }

    private mutating func beginAdopting(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(baseKnown, "phase 1 gives the base")
        phase = .adopt
        electionDeadline = .max
        prepareDeadline = .max
        if candidateHighest < log.highest { candidateHighest = log.highest }
        // What is skipped since it is decided must be durable as well.
        awaitedRecord = lastRecord
        continueElection(now: now, into: &effects)
    }

    /// Makes the adopted values durable in the new view, chunk by chunk, then the established record, which vouches for
    /// the values and must not survive a crash without them. Then this replica leads.
    mutating func continueElection(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .candidate, "only a candidate is elected")
        let bug = configuration.plantedBugs.contains(.establishedTooEarly)
        guard phase == .adopt || phase == .establish else { return }
        guard awaitedRecord <= durableRecord || (bug && phase == .adopt) else { return }
        if phase == .adopt {
            var emitted = 0
            if adoptCursor < log.floor { adoptCursor = log.floor }
            while adoptCursor <= candidateHighest {
                let own = log[adoptCursor]
                if !own.isDecided && own.view != promised {
                    if emitted == Int(Self.burst) { break }
                    emitted += 1
                    adopt(adoptCursor, own, into: &effects)
                }
                adoptCursor += 1
            }
            awaitedRecord = lastRecord
            if emitted > 0 && !(bug && adoptCursor > candidateHighest) { return }
            if established.view != promised {
                established = EstablishedView(view: promised, base: base)
                awaitedRecord = persist(
                    .established, view: promised, instance: base, batch: .noop, into: &effects)
                phase = .establish
                return
            }
        }
        becomeLeader(now: now, into: &effects)
    }

    /// Adopts the value that was accepted in the highest view, which may have been chosen; if nobody of a quorum
    /// accepted one, none was chosen, and a no-op takes the place.
    private mutating func adopt(_ instance: Instance, _ own: Entry, into effects: inout EffectBuffer) {
        invariant(instance > base || instance <= decided, "what is up to the base is fetched, not adopted")
        var view = own.view
        var batch = own.view == 0 ? Batch.noop : own.batch
        if let value = adoptedValue(instance), value.view > view {
            view = value.view
            batch = value.batch
        }
        accept(instance, view: view == decidedView ? decidedView : promised, batch: batch, into: &effects)
    }
}
