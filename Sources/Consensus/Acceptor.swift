import MPaxosInvariants

/// Promises and acceptances, and what follows for the learner.
extension Core {
    /// Moves up to a view that somebody else has promised, or leads. A leader or candidate of a lower view gives up.
    mutating func adoptView(_ view: View, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(view > promised, "views only rise")
        let wasBusy = role == .leader || role == .candidate
        // An election that is overtaken has failed as well: where elections take long, replicas would else overtake
        // each other for ever.
        let hasFailed = role == .candidate && phase != .preVote
        promise(view, into: &effects)
        role = .follower
        if hasFailed {
            failedElections += 1
            hadContact = false
            restartElectionTimer(now)
        } else if wasBusy {
            hadContact = false
            electionDeadline = now + random.below(patienceWithElections) + 1
        }
    }

    mutating func promise(_ view: View, into effects: inout EffectBuffer) {
        invariant(view > promised, "views only rise")
        promised = view
        promisedRecord = persist(.promise, view: view, instance: 0, batch: .noop, into: &effects)
        awaitsOwnPromise = true
        leaderActive = false
        heardRound = 0
        heardHighest = 0
        isFull = false
        wantedSlot = 0
        baseKnown = false
        base = 0
        accepted = 0
        acceptedDurable = 0
        acceptedRecord = promisedRecord
        commit = 0
        knowWhatIsSaid()
        prepareDeadline = .max
        isSolicited = false
    }

    /// Learns the base of the promised view, with the first message of its leader. Returns whether it agrees with the
    /// base that is known already.
    mutating func learnBase(_ newBase: Instance) -> Bool {
        if baseKnown { return base == newBase }
        invariant(accepted == 0, "nothing is counted before the base is known")
        baseKnown = true
        base = newBase
        accepted = newBase
        acceptedDurable = newBase
        acceptedRecord = promisedRecord
        return true
    }

    /// Puts a value into the log, and asks for it to be made durable.
    mutating func accept(_ instance: Instance, view: View, batch: Batch, into effects: inout EffectBuffer) {
        invariant(view == promised || view == decidedView, "only the promised view's values are accepted")
        invariant(!log[instance].isDecided, "a decided entry stays as it is")
        let record = persist(.accept, view: view, instance: instance, batch: batch, into: &effects)
        let isDecided = view == decidedView || instance <= commit
        log.set(instance, Entry(view: view, batch: batch, record: record, isDecided: isDecided))
    }

    /// Moves the prefix that may be acknowledged: what is accepted in the promised view, durably or soon, or decided.
    mutating func advanceAccepted() {
        guard baseKnown else { return }
        if accepted < decided { accepted = decided }
        if acceptedDurable < decided { acceptedDurable = decided }
        while true {
            let entry = log[accepted + 1]
            guard entry.view != 0 else { break }
            guard
                entry.view == promised || entry.isDecided || configuration.plantedBugs.contains(.votesOverViews)
            else { break }
            accepted += 1
            if entry.record > acceptedRecord { acceptedRecord = entry.record }
        }
        while acceptedDurable < accepted && log[acceptedDurable + 1].record <= durableRecord { acceptedDurable += 1 }
    }

    /// All up to `bound` is decided: the leader of the promised view said so, or it follows from votes. That decides
    /// the entries that were accepted in this very view; an entry of an older view may hold another value than the
    /// decided one.
    mutating func raiseCommit(to bound: Instance) {
        guard bound > commit else { return }
        var instance = max(commit, decided) + 1
        let through = min(bound, log.highest)
        commit = bound
        if known < bound { known = bound }
        while instance <= through {
            let entry = log[instance]
            if entry.view != 0 && !entry.isDecided
                && (entry.view == promised || configuration.plantedBugs.contains(.commitWithoutView))
            {
                log.markDecided(instance)
            }
            instance += 1
        }
    }

    /// Follows the contiguous decided entries: first what is known, then what is durable too.
    mutating func learn() {
        if learned < decided { learned = decided }
        while log[learned + 1].isDecided {
            learned += 1
            needsStateTransfer = false
        }
        while decided < learned && log[decided + 1].record <= durableRecord { decided += 1 }
        if known < learned { known = learned }
        invariant(decided <= learned && learned <= known, "what is decided here is known to be decided")
    }

    /// How far above the decided prefix a follower accepts, and a leader sends.
    var lookahead: UInt64 { 4 * window }

    @inline(__always) func wantsProposal(_ message: Message) -> Bool {
        guard message.view >= promised && message.instance > decided else { return false }
        guard log.fits(message.instance) && message.instance <= learned + lookahead else { return false }
        if message.view == promised && baseKnown && base != message.bound { return false }
        let entry = log[message.instance]
        return !entry.isDecided && entry.view != message.view
    }

    mutating func receiveProposal(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) -> Bool {
        guard follow(message, from: from, now: now, into: &effects) else { return false }
        var kept = false
        if wantsProposal(message) {
            // A proposal that lies further above says nothing of the room for what is missing.
            if message.instance == accepted + 1 { setFull(false, slot: 0) }
            accept(message.instance, view: message.view, batch: message.batch, into: &effects)
            kept = true
        } else if message.instance >= log.end && accepted + 1 >= log.end {
            // Named as missing it would be sent again at once, for nothing.
            setFull(true, slot: message.instance)
        }
        acknowledge(to: from, highest: message.instance, now: now, into: &effects)
        return kept
    }

    mutating func receiveHeartbeat(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        guard follow(message, from: from, now: now, into: &effects) else { return }
        guard !message.flags.contains(.quiet) else { return }
        acknowledge(to: from, highest: message.instance, now: now, into: &effects)
    }

    /// What all words of a leader have in common. Returns false when the sender is not the leader of the promised view.
    private mutating func follow(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) -> Bool {
        guard message.view == promised else {
            invariant(message.view < promised, "higher views were adopted")
            send(.nack(view: promised, decided: decided), to: from, after: 0, into: &effects)
            return false
        }
        guard learnBase(message.bound) else {
            counters.refused += 1
            return false
        }
        role = .follower
        leaderActive = true
        heardHighest = message.round == heardRound ? max(heardHighest, message.instance) : message.instance
        heardRound = message.round
        heardLeader(now: now)
        raiseCommit(to: max(message.bound, message.commit))
        return true
    }

    private mutating func acknowledge(
        to peer: ReplicaIndex, highest: Instance, now: Microseconds, into effects: inout EffectBuffer
    ) {
        settle(now: now)
        let bug = configuration.plantedBugs.contains(.acceptedBeforeDurable)
        // As long as there is no room it is of no use to name the gap.
        let flags: Message.Flags = isFull ? .full : accepted < highest ? .gap : .none
        send(
            .accepted(
                view: promised, upTo: accepted, base: base, decided: decided, round: heardRound, flags: flags),
            to: peer, after: bug ? 0 : acceptedRecord, into: &effects)
    }

    /// A proposal came for whose batch there is no room. It counts as the leader's voice all the same; the leader hears
    /// that it is to hold back, until `resumeAccepting`.
    /// - Parameter full: false when there is room, but not for what lies above a missing instance. That does not end an
    ///   earlier `true`.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func refuse(
        _ message: Message, full: Bool, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        invariant(message.kind == .accept, "proposals are refused")
        invariant(effects.hasRoom, "effects have room for a step")
        guard isPlausible(message, from: from) else {
            counters.refused += 1
            return
        }
        if message.view > promised {
            guard reach(message.view, now: now, into: &effects) else { return }
        }
        if message.commit > known { known = message.commit }
        guard follow(message, from: from, now: now, into: &effects) else { return }
        if full { setFull(true, slot: 0) }
        acknowledge(to: from, highest: message.instance, now: now, into: &effects)
        settle(now: now)
    }

    private mutating func setFull(_ full: Bool, slot: Instance) {
        isFull = full
        wantedSlot = full ? slot : 0
    }

    /// There is room again after a proposal was refused for want of it.
    #if !DEBUG
        @_noLocks
    #endif
    package mutating func resumeAccepting(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(effects.hasRoom, "effects have room for a step")
        guard isFull else { return }
        setFull(false, slot: 0)
        guard let leader, leader != me, baseKnown else { return }
        // The refused proposal is a gap now, which the leader fills, unless a new link has made it begin again
        // meanwhile.
        acknowledge(to: leader, highest: heardHighest, now: now, into: &effects)
    }

    mutating func heardLeader(now: Microseconds) {
        failedElections = 0
        heard(now: now)
    }

    /// A leader, or a candidate that gets on, was heard, and is not to be overtaken.
    mutating func heard(now: Microseconds) {
        lastContact = now
        hadContact = true
        restartElectionTimer(now)
    }

    mutating func restartElectionTimer(_ now: Microseconds) {
        electionDeadline = now + patienceWithElections + random.below(patienceWithElections)
    }

    /// The time doubles with each election that led to nothing, up to 16-fold: whatever makes elections slow, one of
    /// them gets the time that it takes.
    var patienceWithElections: Microseconds {
        let suspicion = suspicion(of: leadingReplica(of: promised, among: memberCount))
        return configuration.plantedBugs.contains(.noBackOff) ? suspicion : suspicion << min(failedElections, 4)
    }

    /// The silence after which a peer is suspected. On long ways TCP takes a round trip and more to repeat what was
    /// lost, and keeps back what came behind it: a heartbeat may be late by several round trips though the peer is
    /// well.
    func suspicion(of peer: ReplicaIndex) -> Microseconds {
        guard peer != me else { return configuration.suspect }
        return max(configuration.suspect, min(6 * peers[peer].distance, 8 * configuration.suspect))
    }

    mutating func receivePrepare(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        guard message.view == promised else {
            invariant(message.view < promised, "higher views were adopted")
            send(.nack(view: promised, decided: decided), to: from, after: 0, into: &effects)
            return
        }
        // The same was asked before, and the answer will leave when its records are durable.
        if isSolicited && message.instance == solicitedAfter && promiseRecord > durableRecord { return }
        // A candidate that has much to learn asks for one part after the other. While it gets on it is not to be
        // overtaken.
        if !isSolicited || message.instance > solicitedAfter {
            isSolicited = true
            solicitedAfter = message.instance
            role = .follower
            heard(now: now)
        }
        promiseRecord = promisedRecord
        let bug = configuration.plantedBugs.contains(.promiseBeforeDurable)
        var previous = message.instance
        var sent: Instance = 0
        var bytes = 0
        let most = answerBytes(to: from)
        var instance = max(message.instance, decided) + 1
        while instance <= log.highest {
            let entry = log[instance]
            if entry.view != 0 {
                sent += 1
                bytes += Int(entry.batch.length)
                promiseRecord = max(promiseRecord, entry.record)
                let isFull = sent == Self.burst || bytes >= most
                peers[from].room -= Int(entry.batch.length) + Self.messageBytes
                send(
                    .promise(
                        view: promised, decided: decided, after: previous, instance: instance,
                        acceptedView: entry.reportedView, batch: entry.batch, more: isFull),
                    to: from, after: bug ? 0 : max(promisedRecord, entry.record), into: &effects)
                previous = instance
                if isFull { return }
            }
            instance += 1
        }
        send(
            .lastPromise(view: promised, decided: decided, after: previous), to: from, after: bug ? 0 : promisedRecord,
            into: &effects)
    }
}
