import MPaxosConsensus
import MPaxosFlow

/// How messages get from one replica to another where there are links.
extension Simulator {
    func windowTime(_ index: ReplicaIndex) -> Microseconds {
        replicas[index].clock.local(now) * links.plan.pace
    }

    // MARK: Sending

    /// Hands a message to the outbox, and what the link takes to the link.
    func post(_ message: Message, from: ReplicaIndex, to: ReplicaIndex) throws(SimulationFailure) {
        let place = links.place(from, to)
        // Lost: the core hears when the link is up.
        guard links.ways[place].isUp else { return }
        let box = links.outboxes + place
        if message.kind == .decided { try checkReason(for: message, on: place, from, to) }
        if message.kind == .accept {
            box.pointee.enqueue(proposal: message)
        } else if options.plantedBugs.contains(.heartbeatsBehindBulk) {
            box.pointee.proposals.messages.append(message)
        } else if message.carriesBatch && !message.batch.isNoop {
            box.pointee.enqueue(answer: message)
        } else {
            var frame = Frame(kind: .message, message: message)
            if message.kind == .heartbeat { frame.message.instance = box.pointee.highestSent(of: message) }
            box.pointee.urgent.append(frame)
        }
        try drain(from, to)
        if !box.pointee.proposals.messages.isEmpty && !box.pointee.isBarred { links.noteChange(from, to) }
    }

    /// Puts on a way what it takes, and what the window allows.
    func drain(_ from: ReplicaIndex, _ to: ReplicaIndex) throws(SimulationFailure) {
        let place = links.place(from, to)
        let box = links.outboxes + place
        guard links.ways[place].isUp else { return }
        let time = windowTime(from)
        var resumes = Microseconds.max
        while true {
            if let later = links.pushesBack(place, now: now) {
                resumes = later
                break
            }
            if let frame = box.pointee.urgent.first {
                box.pointee.urgent.removeFirst()
                put(frame, bytes: 0, on: place, from, to)
                if frame.kind != .echo { box.pointee.window.sent(Frame.headerBytes, pieces: false, now: time) }
            } else if try !putBulk(on: place, from, to, time: time) {
                break
            }
            putMark(on: place, from, to, time: time)
        }
        if resumes == .max {
            putMark(on: place, from, to, time: time)
            let deadline = box.pointee.window.nextDeadline
            if deadline < .max { resumes = replicas[from].clock.global(deadline / links.plan.pace + 1) }
        }
        scheduleWake(from, to, at: resumes)
    }

    private func scheduleWake(_ from: ReplicaIndex, _ to: ReplicaIndex, at time: Microseconds) {
        let box = links.outboxes + links.place(from, to)
        guard time < box.pointee.wakeAt else { return }
        let time = max(time, now + 1)
        box.pointee.wakeAt = time
        queue.schedule(
            Event(kind: .wake, replica: from, life: replicas[from].life, peer: to, number: time), at: time)
    }

    /// An outbox is looked at again.
    func wake(_ event: Event) throws(SimulationFailure) {
        let box = links.outboxes + links.place(event.replica, event.peer)
        guard box.pointee.wakeAt == event.number else { return }
        box.pointee.wakeAt = .max
        try drain(event.replica, event.peer)
    }

    private func put(_ frame: Frame, bytes: Int, on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex) {
        let through = links.carry(Frame.headerBytes + bytes, on: place, now: now)
        var delay = links.plan.delays[place] + replicas[from].lag + replicas[to].lag
        if links.plan.jitter > 0 { delay += random.below(links.plan.jitter) }
        if links.ways[place].append(frame, due: through + delay) { scheduleArrival(on: place, from, to) }
    }

    private func putMark(on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex, time: Microseconds) {
        guard let stamp = links.outboxes[place].window.takeMark(now: time) else { return }
        put(Frame(kind: .mark, message: .nothing, stamp: stamp), bytes: 0, on: place, from, to)
    }

    /// One whole message with its bytes, or a piece. Returns whether there was anything that may go.
    private func putBulk(
        on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex, time: Microseconds
    ) throws(SimulationFailure) -> Bool {
        let box = links.outboxes + place
        let isAnswerFirst = box.pointee.isAnswersTurn
        for turn in 0..<2 {
            let isAnswer = isAnswerFirst == (turn == 0)
            guard let (message, isParcel) = box.pointee.next(isAnswer: isAnswer) else { continue }
            let length = message.carriesBatch ? Int(message.batch.length) : 0
            let isWhole = !isParcel && Frame.headerBytes + length <= box.pointee.window.largestWhole
            let room = isAnswer || !isWhole ? box.pointee.window.roomForPieces : box.pointee.window.room
            guard room > 0 else {
                box.pointee.window.ranShort()
                continue
            }
            if !isParcel {
                trace("\(from) puts \(message.kind) \(message.instance), \(length) bytes, on the way to \(to)")
                if message.kind == .accept { try checkReason(for: message, on: place, from, to) }
            }
            if isWhole {
                put(Frame(kind: .message, message: message), bytes: length, on: place, from, to)
                box.pointee.window.sent(Frame.headerBytes + length, pieces: isAnswer, now: time)
                removeFirst(isAnswer, from, to)
            } else {
                putPiece(isAnswer, of: message, on: place, from, to, time: time)
            }
            box.pointee.isAnswersTurn = !isAnswer
            return true
        }
        return false
    }

    private func putPiece(
        _ isAnswer: Bool, of message: Message, on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex,
        time: Microseconds
    ) {
        let box = links.outboxes + place
        let sent = isAnswer ? box.pointee.answers.sent : box.pointee.proposals.sent
        let bytes = min(box.pointee.window.pieceSize, Int(message.batch.length) - sent)
        report.pieces += 1
        put(Frame(kind: .piece, message: .nothing), bytes: bytes, on: place, from, to)
        box.pointee.window.sent(Frame.headerBytes + bytes, pieces: true, now: time)
        if sent + bytes == Int(message.batch.length) {
            put(Frame(kind: .message, message: message), bytes: 0, on: place, from, to)
            box.pointee.window.sent(Frame.headerBytes, pieces: false, now: time)
            removeFirst(isAnswer, from, to)
        } else if isAnswer {
            box.pointee.answers.isParcel = true
            box.pointee.answers.sent = sent + bytes
        } else {
            box.pointee.proposals.isParcel = true
            box.pointee.proposals.sent = sent + bytes
        }
    }

    private func removeFirst(_ isAnswer: Bool, _ from: ReplicaIndex, _ to: ReplicaIndex) {
        let box = links.outboxes + links.place(from, to)
        if isAnswer {
            box.pointee.answers.removeFirst()
        } else {
            box.pointee.proposals.removeFirst()
            if box.pointee.isBarred && box.pointee.proposals.messages.isEmpty { links.noteChange(from, to) }
        }
    }

    private func checkReason(
        for message: Message, on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex
    ) throws(SimulationFailure) {
        guard !links.repetitions.mayLeave(message, way: place) else { return }
        throw failure("replica \(from) sends \(message) to \(to) once more than there is reason for")
    }

    // MARK: Arriving

    func scheduleArrival(on place: Int, _ from: ReplicaIndex, _ to: ReplicaIndex) {
        guard let frame = links.ways[place].frames.first else { return }
        links.ways[place].ticket += 1
        queue.schedule(
            Event(
                kind: .arrival, replica: to, life: replicas[to].life, peer: from, number: links.ways[place].ticket),
            at: max(frame.due, now + 1))
    }

    /// The head of a way arrives. Returns the message that it is, if it is one.
    func takeArrival(_ event: Event) throws(SimulationFailure) -> Message? {
        let (from, to) = (event.peer, event.replica)
        let place = links.place(from, to)
        guard links.ways[place].ticket == event.number, let frame = links.ways[place].frames.first else { return nil }
        guard network.isOpen(from: from, to: to) else {
            links.ways[place].isStalled = true
            return nil
        }
        links.ways[place].frames.removeFirst()
        scheduleArrival(on: place, from, to)
        switch frame.kind {
        case .message:
            if frame.message.kind == .catchUpRequest { links.repetitions.request(way: links.place(to, from)) }
            return frame.message
        case .piece: replicas[to].core.hears(from, now: replicas[to].clock.local(now))
        case .mark:
            let back = links.place(to, from)
            guard links.ways[back].isUp else { break }
            links.outboxes[back].urgent.append(Frame(kind: .echo, message: .nothing, stamp: frame.stamp))
            try drain(to, from)
        case .echo:
            let box = links.outboxes + links.place(to, from)
            guard box.pointee.window.returned(frame.stamp, now: windowTime(to)) else { break }
            links.noteChange(to, from)
            try drain(to, from)
        }
        return nil
    }

    // MARK: Room

    /// Tells the cores what their links have room for, as long as that changes.
    func tellRooms() throws(SimulationFailure) {
        while links.changed != 0 {
            let index = links.changed.trailingZeroBitCount
            let peers = links.takeChanges(of: index)
            for peer in indices where peers >> UInt16(peer) & 1 != 0 && replicas[index].isUp {
                let box = links.outboxes + links.place(index, peer)
                let patience = box.pointee.window.roundTrip.patience.map { max($0 / links.plan.pace, 1) }
                let room = box.pointee.room
                box.pointee.isBarred = room == 0 && !box.pointee.proposals.messages.isEmpty
                replicas[index].core.allow(
                    room, patience: patience, distance: box.pointee.window.leastRoundTrip / links.plan.pace, to: peer,
                    now: replicas[index].clock.local(now), into: &effects)
                if !effects.isEmpty { try afterStep(index) }
            }
        }
    }

    /// After a step of a leader: it repeats nothing without a reason.
    func checkRepetitions(of index: ReplicaIndex) throws(SimulationFailure) {
        guard replicas[index].core.role == .leader else { return }
        let leaderships = replicas[index].core.counters.leaderships
        for peer in indices where peer != index {
            let place = links.place(index, peer)
            if links.outboxes[place].leaderships < leaderships {
                // It began with what it believed the others to have.
                links.outboxes[place].leaderships = leaderships
                links.outboxes[place].mayRepeat = true
            }
            let count = replicas[index].core.repetitions(to: peer)
            guard count > links.outboxes[place].repetitions else { continue }
            guard links.outboxes[place].mayRepeat else {
                throw failure("replica \(index) repeats proposals to \(peer), which nothing has lost")
            }
            links.outboxes[place].repetitions = count
            links.outboxes[place].mayRepeat = false
            links.repetitions.beginAgain(way: place)
            withdrawProposals(of: index, to: peer)
        }
    }

    /// The core begins again with what it proposed to a peer: what has not left yet is not to leave twice.
    private func withdrawProposals(of index: ReplicaIndex, to peer: ReplicaIndex) {
        let box = links.outboxes + links.place(index, peer)
        box.pointee.withdrawProposals()
        box.pointee.unready = 0
        stopWaiting(.accept, at: index, to: peer)
        links.noteChange(index, peer)
    }

    /// Messages of a kind that wait for their records are not wanted any more.
    private func stopWaiting(_ kind: Message.Kind, at index: ReplicaIndex, to peer: ReplicaIndex) {
        let replica = replicas + index
        var kept = 0
        for place in 0..<replica.pointee.waiting.count {
            let send = replica.pointee.waiting[place]
            if send.to == peer && send.message.kind == kind { continue }
            replica.pointee.waiting[kept] = send
            kept += 1
        }
        replica.pointee.waiting.truncate(to: kept)
    }

    // MARK: Up and down

    /// There is a link between two replicas that have met; one side knows at once, the other soon.
    func establish(_ a: ReplicaIndex, _ b: ReplicaIndex) throws(SimulationFailure) {
        let (there, back) = (links.place(a, b), links.place(b, a))
        trace("\(a) and \(b) have a link")
        for place in [there, back] {
            links.ways[place].close()
            links.ways[place].isEstablished = true
        }
        queue.schedule(
            Event(kind: .linkUp, replica: b, life: replicas[b].life, peer: a, number: 1),
            at: now + 1 + random.below(500))
        try open(a, b)
        try afterStep(a)
    }

    /// A replica learns that it has a link.
    func open(_ index: ReplicaIndex, _ peer: ReplicaIndex) throws(SimulationFailure) {
        let place = links.place(index, peer)
        guard links.ways[place].isEstablished && !links.ways[place].isUp else { return }
        links.ways[place].isUp = true
        links.outboxes[place].reset(now: windowTime(index))
        links.noteChange(index, peer)
        // They answer what was said on the old link.
        stopWaiting(.accepted, at: index, to: peer)
        links.repetitions.beginAgain(way: place)
        links.outboxes[place].mayRepeat = true
        replicas[index].core.connected(peer, now: replicas[index].clock.local(now), into: &effects)
        try checkRepetitions(of: index)
        links.outboxes[place].mayRepeat = false
    }

    /// The link between two replicas is lost, with what is under way on it, and they try to have another.
    func loseLink(_ a: ReplicaIndex, _ b: ReplicaIndex) {
        guard links.ways[links.place(a, b)].isEstablished else { return }
        trace("\(a) and \(b) lose their link")
        links.ways[links.place(a, b)].close()
        links.ways[links.place(b, a)].close()
        retryLink(a, b)
    }

    private func retryLink(_ a: ReplicaIndex, _ b: ReplicaIndex) {
        guard replicas[a].isRunning && replicas[b].isRunning else { return }
        queue.schedule(
            Event(kind: .linkUp, replica: a, life: replicas[a].life, peer: b), at: now + 100 + random.below(1_000))
    }

    /// A replica is gone. What it sent may arrive yet, what was on the way to it does not.
    func closeLinks(of index: ReplicaIndex) {
        for peer in indices where peer != index {
            links.ways[links.place(index, peer)].close(keepsFrames: random.chance(perMille: 500))
            links.ways[links.place(peer, index)].close()
        }
        links.forget(index)
    }

    /// Ways were cut. Some links are lost at once, on others everything waits.
    func cutLinks() {
        for a in indices {
            for b in a + 1..<replicaCount
            where !(network.isOpen(from: a, to: b) && network.isOpen(from: b, to: a)) && random.chance(perMille: 500) {
                loseLink(a, b)
            }
        }
    }

    /// Ways are open again. What waited on them arrives, or is lost with its link.
    func healLinks() {
        for a in indices {
            for b in a + 1..<replicaCount {
                let isStalled = links.ways[links.place(a, b)].isStalled || links.ways[links.place(b, a)].isStalled
                if isStalled && random.chance(perMille: 500) { loseLink(a, b) }
                resume(a, b)
                resume(b, a)
                let isOpen = network.isOpen(from: a, to: b) && network.isOpen(from: b, to: a)
                if isOpen && !links.ways[links.place(a, b)].isEstablished { retryLink(a, b) }
            }
        }
    }

    private func resume(_ from: ReplicaIndex, _ to: ReplicaIndex) {
        let place = links.place(from, to)
        guard links.ways[place].isStalled && network.isOpen(from: from, to: to) else { return }
        links.ways[place].isStalled = false
        scheduleArrival(on: place, from, to)
    }

    /// A pause of a replica is cut short: what waited for its end does no more.
    func resumeLinks(of index: ReplicaIndex) {
        for peer in indices where peer != index {
            let place = links.place(peer, index)
            if !links.ways[place].isStalled { scheduleArrival(on: place, peer, index) }
            let back = links.place(index, peer)
            if links.ways[back].isEstablished && !links.ways[back].isUp {
                queue.schedule(
                    Event(kind: .linkUp, replica: index, life: replicas[index].life, peer: peer, number: 1), at: now + 1
                )
            }
            links.outboxes[links.place(index, peer)].wakeAt = .max
            scheduleWake(index, peer, at: now + 1)
        }
    }
}

extension Message {
    /// In the place of a message where there is none.
    static var nothing: Message { Message(kind: .nack, view: 0) }
}
