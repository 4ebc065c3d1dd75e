import MPaxosInvariants

/// Proposals, their votes, and the flow to each follower.
extension Core {
    mutating func becomeLeader(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(leadingReplica(of: promised, among: memberCount) == me, "a view has one leader")
        invariant(established.view == promised && established.base == base, "the established record is durable")
        counters.leaderships += 1
        role = .leader
        leaderActive = true
        electionDeadline = .max
        prepareDeadline = .max
        raiseCommit(to: decided)
        nextInstance = max(log.highest, max(base, decided)) + 1
        lastLearned = learned
        lastLearnedAt = now
        failedElections = 0
        round = 0
        for peer in 0..<memberCount where peer != me {
            peers[peer].acked = base
            peers[peer].next = max(base, max(commit, log.floor - 1)) + 1
            peers[peer].toldCommit = 0
            peers[peer].lastHeard = now
            peers[peer].hasAnswered = false
            peers[peer].isFull = false
            peers[peer].repeatedInRound = 0
            sendHeartbeat(to: peer, quiet: false, now: now, into: &effects)
            pump(peer, now: now, into: &effects)
        }
    }

    /// Leader: whether a quorum has answered since this replica began to lead, or resumed. Before that another leader
    /// may have taken its place.
    package var isFollowed: Bool {
        var answered = 1
        for peer in 0..<memberCount where peer != me && peers[peer].hasAnswered { answered += 1 }
        return role == .leader && answered >= quorum
    }

    /// Whether this replica has heard lately what its role rests on: a leader the answers of a quorum, a follower its
    /// leader. A word counts until its silence would make the peer suspect.
    package func isInTouch(now: Microseconds) -> Bool {
        guard role == .leader else {
            guard let leader else { return false }
            return hadContact && now < lastContact + suspicion(of: leader)
        }
        var heard = 1
        for peer in 0..<memberCount where peer != me && now < peers[peer].lastHeard + suspicion(of: peer) { heard += 1 }
        return heard >= quorum
    }

    /// Whether `propose` would take a batch now.
    package var canPropose: Bool {
        role == .leader && nextInstance <= commit + window && nextInstance < log.end
    }

    mutating func proposeNext(_ batch: Batch, now: Microseconds, into effects: inout EffectBuffer) -> Instance {
        invariant(canPropose, "the leader's window is open")
        let instance = nextInstance
        nextInstance += 1
        accept(instance, view: promised, batch: batch, into: &effects)
        advanceAccepted()
        for peer in 0..<memberCount where peer != me { pump(peer, now: now, into: &effects) }
        return instance
    }

    /// Sends a follower what it lacks, within what it would accept, what its link has room for, and what a step may
    /// send.
    mutating func pump(_ peer: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .leader && peer != me, "a leader proposes to others")
        // Behind a gap that this log cannot fill any more, proposals are of no use yet.
        guard !peers[peer].isFull && peers[peer].acked + 1 >= log.floor else { return }
        let limit = min(nextInstance - 1, min(peers[peer].decided, peers[peer].acked) + lookahead)
        var sent: Instance = 0
        var bytes = 0
        while peers[peer].next <= limit && sent < Self.burst && bytes < Self.burstBytes && peers[peer].room > 0 {
            let instance = peers[peer].next
            let entry = log[instance]
            invariant(instance > base, "what is up to the base is fetched, not proposed")
            invariant(entry.view == promised || entry.isDecided, "a leader proposes what it accepted in its view")
            let bug = configuration.plantedBugs.contains(.proposeBeforeDurable)
            send(
                .accept(
                    view: promised, instance: instance, base: base, commit: commit, round: round, batch: entry.batch),
                to: peer, after: bug ? 0 : entry.record, into: &effects)
            peers[peer].next = instance + 1
            peers[peer].toldCommit = commit
            sent += 1
            bytes += Int(entry.batch.length)
            peers[peer].room -= Int(entry.batch.length) + Self.messageBytes
        }
    }

    mutating func sendHeartbeat(to peer: ReplicaIndex, quiet: Bool, now: Microseconds, into effects: inout EffectBuffer)
    {
        invariant(role == .leader, "only a leader sends heartbeats")
        // The heartbeat speaks of what was sent and waits for no record any more: else the follower would miss what is
        // yet to leave.
        let highest = max(min(peers[peer].next - 1, acceptedDurable), peers[peer].acked)
        send(
            .heartbeat(view: promised, highest: highest, base: base, commit: commit, round: round, quiet: quiet),
            to: peer, after: 0, into: &effects)
        peers[peer].toldCommit = commit
        if !quiet { peers[peer].lastHeartbeat = now }
    }

    mutating func receiveAccepted(
        _ message: Message, from: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer
    ) {
        guard role == .leader else { return }
        if !configuration.plantedBugs.contains(.votesOverViews) {
            guard message.view == promised else { return }
            guard message.bound == base else {
                counters.refused += 1
                return
            }
        }
        peers[from].lastHeard = now
        peers[from].hasAnswered = true
        let upTo = min(message.instance, nextInstance - 1)
        if upTo > peers[from].acked {
            peers[from].acked = upTo
            if peers[from].next <= upTo { peers[from].next = upTo + 1 }
            settle(now: now)
        }
        peers[from].isFull = message.flags.contains(.full)
        // Answers to what was sent before a repetition name the gap that the repetition fills. A gap that begins below
        // the floor is not filled by proposals, however often they come.
        if message.reportsGap && message.instance == peers[from].acked
            && message.round >= peers[from].repeatedInRound && peers[from].acked + 1 >= log.floor
        {
            sendAgain(from, now: now, into: &effects)
        }
        pump(from, now: now, into: &effects)
    }

    /// Forgets what was sent to a follower beyond what it acknowledged.
    private mutating func sendAgain(_ peer: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer) {
        let first = max(peers[peer].acked + 1, log.floor)
        // A proposal that waits for its record has not left yet, and will.
        if peers[peer].next > first && log[first].record <= durableRecord {
            counters.retransmissions += peers[peer].next - first
            peers[peer].repetitions += peers[peer].next - first
            peers[peer].next = first
            round += 1
            peers[peer].repeatedInRound = round
        }
        pump(peer, now: now, into: &effects)
    }

    mutating func reconnect(_ peer: ReplicaIndex, now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .leader, "only a leader repeats its proposals")
        peers[peer].isFull = false
        sendAgain(peer, now: now, into: &effects)
        sendHeartbeat(to: peer, quiet: false, now: now, into: &effects)
    }

    /// An instance is decided when a quorum accepted it in this view. The leader's own vote counts when it is durable.
    mutating func countVotes() {
        invariant(role == .leader, "only a leader counts votes")
        var best = commit
        for candidate in 0..<memberCount {
            let bound = candidate == me ? acceptedDurable : peers[candidate].acked
            guard bound > best else { continue }
            var votes = 0
            for voter in 0..<memberCount where (voter == me ? acceptedDurable : peers[voter].acked) >= bound {
                votes += 1
            }
            if votes >= quorum { best = bound }
        }
        raiseCommit(to: best)
    }

    @inline(__always) private func isUntold(_ peer: ReplicaIndex) -> Bool {
        quorum > 2 && peers[peer].toldCommit < commit
    }

    @usableFromInline var leaderDeadline: Microseconds {
        var deadline = Microseconds.max
        for peer in 0..<memberCount where peer != me {
            // With quorums of more than two followers cannot decide by themselves: a commit index that no proposal has
            // carried is told at once.
            if isUntold(peer) { return 0 }
            deadline = min(deadline, peers[peer].lastHeartbeat + configuration.heartbeat)
        }
        return deadline
    }

    mutating func leaderTick(now: Microseconds, into effects: inout EffectBuffer) {
        invariant(role == .leader, "only a leader ticks as one")
        var heard = 1
        for peer in 0..<memberCount where peer != me && now < peers[peer].lastHeard + 2 * suspicion(of: peer) {
            heard += 1
        }
        // A leader with stuck storage steps down, too: the others can do without its votes, but not without its
        // proposals. So does one that cannot propose, since it does not execute.
        if heard < quorum || (quorum < memberCount && (isStuck(now: now) || standsStill)) {
            stepDown(now: now)
            return
        }
        if learned > lastLearned || learned >= base {
            lastLearned = learned
            lastLearnedAt = now
        } else if now >= lastLearnedAt + 4 * configuration.suspect {
            // Nobody who can be reached knows the decided values up to the base: a new phase 1, with a lower base,
            // finds them.
            stepDown(now: now)
            beginElection(now: now, into: &effects)
            return
        }
        for peer in 0..<memberCount where peer != me {
            if now >= peers[peer].lastHeartbeat + configuration.heartbeat {
                if configuration.plantedBugs.contains(.resendByTime) { sendAgain(peer, now: now, into: &effects) }
                sendHeartbeat(to: peer, quiet: false, now: now, into: &effects)
            } else if isUntold(peer) {
                sendHeartbeat(to: peer, quiet: true, now: now, into: &effects)
            }
        }
    }

    /// Stops leading for now; the promise and the established view stay.
    mutating func stepDown(now: Microseconds) {
        invariant(role == .leader, "only a leader steps down")
        role = .follower
        leaderActive = false
        hadContact = false
        electionDeadline = now + random.below(configuration.suspect) + 1
    }
}
