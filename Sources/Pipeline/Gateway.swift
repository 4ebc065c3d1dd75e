import MPaxosFrames
import MPaxosInvariants
import MPaxosMetrics
import MPaxosQueues
import MPaxosStateMachines
import MPaxosWire

/// The stage that talks to clients, as `client-protocol.md` describes it. It validates, admits and remembers requests,
/// hands them to the engine, and sends each reply when the executor has it. STATUS and PING it answers by itself.
package final class Gateway: Stage {
    /// What a gateway needs to know of the cluster.
    package struct Settings {
        var replica: UInt16
        var maximumRequest: Int
        var maximumOutstanding: Int
        /// Bytes of the bodies of requests admitted and not answered: beyond it, BUSY.
        var maximumOutstandingBytes: Int
        /// Microseconds after which a request that nobody decided is answered NO_LEADER, unless it may be on its way
        /// still.
        var patience: UInt64
        /// Microseconds after which a repetition is ordered, though the request may be on its way still: it may be lost
        /// after all.
        static let mostPatience: UInt64 = 60_000_000
        /// Microseconds after which a client may be expected to repeat a request.
        static let repetition: UInt64 = 900_000
        /// The `client` endpoints by replica index, for REDIRECT.
        var clientEndpoints: [String]
        var index: Int
        /// Differs from one life of this replica to the next.
        package let epoch: UInt64
        /// What makes the ids of new sessions such that no client can guess those of others. Any thread.
        var secret: @Sendable () -> UInt64

        package init(
            replica: UInt16, maximumRequest: Int, maximumOutstanding: Int, maximumOutstandingBytes: Int,
            patience: UInt64, clientEndpoints: [String], index: Int, epoch: UInt64,
            secret: @escaping @Sendable () -> UInt64
        ) {
            self.replica = replica
            self.maximumRequest = maximumRequest
            self.maximumOutstanding = maximumOutstanding
            self.maximumOutstandingBytes = maximumOutstandingBytes
            self.patience = patience
            self.clientEndpoints = clientEndpoints
            self.index = index
            self.epoch = epoch
            self.secret = secret
        }
    }

    private let settings: Settings
    private let port: ClientPort
    private let progress: Progress
    private let board: StatusBoard
    private let validator: @Sendable (UnsafeRawBufferPointer, CommandKind) -> String?
    private let statusReport: @Sendable () -> String

    private let rings: Rings
    private let engineLane: Parker
    private let executorLane: Parker

    // Behind pointers, as they are changed for every request: a class's own storage would be checked for exclusive
    // access each time.
    private let pending: UnsafeMutablePointer<PendingTable>
    private let envelope: UnsafeMutablePointer<Envelope>
    private let kept: UnsafeMutablePointer<KeptBodies>
    /// The era whose requests were ordered, all of them.
    @exclusivity(unchecked) private var orderedEra: UInt64 = 0
    /// Bytes of bodies that are kept: of some thousand small requests.
    private static let keptBytes = 1 << 20
    /// The gate that the engine closes, on fused lanes, while requests had better gather in the socket.
    private let gate: Gate?
    /// What got through to other replicas, and queries answered; and when more of it did last.
    @exclusivity(unchecked) private var lastProgress: UInt64 = 0
    @exclusivity(unchecked) private var lastProgressAt: UInt64 = 0
    @exclusivity(unchecked) private var lastReceive: UInt64 = 0
    @exclusivity(unchecked) private var lastPoll: UInt64 = 0
    @exclusivity(unchecked) private var isHeld = false

    package init(
        settings: Settings, port: ClientPort, progress: Progress, board: StatusBoard,
        validator: @escaping @Sendable (UnsafeRawBufferPointer, CommandKind) -> String?,
        statusReport: @escaping @Sendable () -> String, rings: Rings, parkers: Parkers, gate: Gate?
    ) {
        self.gate = gate
        self.settings = settings
        self.port = port
        self.progress = progress
        self.board = board
        self.validator = validator
        self.statusReport = statusReport
        self.rings = rings
        engineLane = parkers.engine
        executorLane = parkers.executor
        pending = .allocate(capacity: 1)
        pending.initialize(to: PendingTable(capacity: settings.maximumOutstanding, epoch: settings.epoch))
        kept = .allocate(capacity: 1)
        kept.initialize(to: KeptBodies(capacity: Self.keptBytes))
        envelope = .allocate(capacity: 1)
        envelope.initialize(to: Envelope())
    }

    deinit {
        pending.deinitialize(count: 1)
        pending.deallocate()
        kept.deinitialize(count: 1)
        kept.deallocate()
        envelope.deinitialize(count: 1)
        envelope.deallocate()
    }

    override package var nextDeadline: UInt64 {
        let release = isHeld ? lastReceive + Self.longestHold : .max
        let isBehind = progress.era != orderedEra && progress.leader != nil && pending.pointee.count > 0
        let again = isBehind ? lastPoll + Self.longestHold : .max
        return min(release, again, pending.pointee.nextDeadline, port.nextDeadline)
    }

    /// Requests that are admitted and not answered.
    var waiting: Int { pending.pointee.count }

    /// Nobody is left without a word: who has an answer gets it, and who waits is told to try again. After this the
    /// connections close, and with them the request would be forgotten where its client has no timeout.
    override package func close() {
        while let completion = rings.completions.pop() { finish(completion) }
        while let index = pending.pointee.expired(at: .max) { giveUp(index) }
        port.flush()
        port.close()
    }

    override package func poll(budget: Int, now: UInt64) -> Bool {
        lastPoll = now
        var work = 0
        while work < budget, let completion = rings.completions.pop() {
            finish(completion)
            work += 1
        }
        let reached = progress.arrived &+ progress.served
        if reached != lastProgress { (lastProgress, lastProgressAt) = (reached, now) }
        pending.pointee.watch(waitingFor: Settings.repetition, now: now)
        while let index = pending.pointee.expired(at: now) {
            if mayBeOnItsWay(pending.pointee[index], now: now) {
                pending.pointee.postpone(index, to: now + settings.patience)
            } else {
                giveUp(index)
            }
            work += 1
        }
        if progress.era != orderedEra { work += orderAgain() }
        var received = 0
        isHeld = holdsBack(now: now)
        port.hold(isHeld)
        if !isHeld, port.isReady(now: now) {
            lastReceive = now
            while received < budget, receiveRequest(now: now) { received += 1 }
        }
        if received > 0 {
            if rings.submissions.publish() { engineLane.wake() }
            if rings.localQueries.publish() { executorLane.wake() }
        }
        port.flush()
        board.outstanding.store(UInt64(pending.pointee.count))
        return work + received > 0 || !isHeld && port.hasMore
    }

    /// While the engine waits for the answers to a batch, requests gather in the socket: they cannot go anywhere, and
    /// read together they cost less. Not for long, since some can be answered at once.
    private func holdsBack(now: UInt64) -> Bool {
        guard let gate, gate.isClosed else { return false }
        return now < lastReceive + Self.longestHold
    }

    private static let longestHold: UInt64 = 1000

    // MARK: Requests

    /// Takes one request from the port. False when there is none.
    private func receiveRequest(now: UInt64) -> Bool {
        switch port.receive(into: envelope, now: now) {
        case .nothing: return false
        case .probe, .unwelcome: break
        case .unanswerable:
            board.requests.add(1)
            board.rejectedMalformed.add(1)
        case .request(let frames): examine(frames: frames, now: now)
        }
        return true
    }

    private func examine(frames: Int, now: UInt64) {
        board.requests.add(1)
        switch RequestExamination(
            frames: frames, header: port.header, bodySize: port.body.count, maxRequest: settings.maximumRequest,
            replica: settings.replica)
        {
        case .rejected(let rejection): reject(rejection)
        case .accepted(let request, let code): serve(request, code, now: now)
        }
    }

    private func serve(_ request: RequestHeader, _ code: CommandCode, now: UInt64) {
        guard port.permission >= code.permission else { return deny(request) }
        switch code {
        case .ping:
            answer(request, .ok, body: port.body)
        case .status:
            var text = statusReport()
            text.withUTF8 { answer(request, .ok, body: UnsafeRawBufferPointer($0)) }
        case .open, .close:
            order(request, code, now: now)
        case .submit, .query:
            let kind: CommandKind = code == .submit ? .submit : .query
            if let reason = validator(port.body, kind) {
                board.rejectedMalformed.add(1)
                var text = reason
                text.withUTF8 { answer(request, .malformed, body: UnsafeRawBufferPointer($0)) }
            } else if !progress.mayServe {
                turnAway(request)
            } else if request.flags.contains(.local) {
                admit(request, now: now, isLocal: true)
            } else {
                order(request, code, now: now)
            }
        }
    }

    private func order(_ request: RequestHeader, _ code: CommandCode, now: UInt64) {
        if !progress.mayServe { return turnAway(request) }
        if request.flags.contains(.noForward) {
            let leader = progress.leader
            if leader != settings.index {
                if let leader { redirect(request, to: leader) } else { refuse(request, .noLeader, milliseconds: 50) }
                return
            }
        }
        admit(request, now: now, isLocal: false)
    }

    private func admit(_ request: RequestHeader, now: UInt64, isLocal: Bool) {
        if request.command == CommandCode.submit.rawValue, request.session != 0 {
            // On its way already: to send it to the others twice would make slow links slower.
            if let index = pending.pointee.recognise(
                command: request.command, session: request.session, sequence: request.sequence,
                era: progress.era, oldest: now - min(now, Settings.mostPatience))
            {
                port.answered(pending.pointee.envelope(index))
                pending.pointee.turn(index, to: envelope.pointee, flags: request.flags.rawValue)
                port.admitted(envelope.pointee.packed)
                return board.repetitionsRecognised.add(1)
            }
        }
        let bodies = isLocal ? rings.queryBodies : rings.bodies
        // Bodies wait while there is no leader, also those whose clients were told so meanwhile.
        guard !pending.pointee.isFull,
            port.outstanding(of: envelope.pointee.packed) < share,
            max(bodies.waiting, pending.pointee.bodyBytes) < settings.maximumOutstandingBytes,
            isLocal ? !rings.localQueries.isFull : !rings.submissions.isFull
        else {
            board.rejectedBusy.add(1)
            refuse(request, .busy, milliseconds: 5)
            return
        }
        let body = Body(copying: port.body, into: bodies)
        let tag = pending.pointee.admit(
            command: request.command, flags: request.flags.rawValue, session: request.session,
            sequence: request.sequence, deadline: now + settings.patience,
            era: progress.era, now: now, bodyCount: body.count,
            body: isLocal ? .none : kept.pointee.keep(port.body), envelope: envelope.pointee)
        port.admitted(envelope.pointee.packed)
        let accepted =
            isLocal
            ? rings.localQueries.push(LocalQuery(tag: tag, position: request.position, body: body))
            : rings.submissions.push(
                Submission(
                    kind: request.command, tag: tag, session: sessionField(of: request), sequence: request.sequence,
                    body: body))
        invariant(accepted, "a ring with room takes a request")
    }

    /// What was handed to the leader may be lost with it: what waits is ordered again as soon as another one is known.
    /// Commands of a session take effect once all the same, and queries change nothing; others are left to wait, since
    /// they might take effect twice.
    private func orderAgain() -> Int {
        // What is in the ring yet was handed to nobody.
        guard progress.leader != nil, rings.submissions.free == rings.submissions.capacity else { return 0 }
        let era = progress.era
        var count = 0
        var isDone = true
        pending.pointee.reorder(in: era) { index in
            let entry = pending.pointee[index]
            let isSafe =
                entry.command == CommandCode.submit.rawValue && entry.session != 0
                || entry.command == CommandCode.query.rawValue
            guard isSafe, let bytes = kept.pointee.body(at: entry.body, count: Int(entry.bodyCount)) else {
                return .leftToWait
            }
            guard !rings.submissions.isFull else {
                isDone = false
                return .stop
            }
            let pushed = rings.submissions.push(
                Submission(
                    kind: entry.command, tag: pending.pointee.tag(of: index), session: entry.session,
                    sequence: entry.sequence, body: Body(copying: bytes, into: rings.bodies)))
            invariant(pushed, "a ring with room takes a request")
            count += 1
            return .ordered
        }
        if isDone { orderedEra = era }
        if rings.submissions.publish() { engineLane.wake() }
        board.orderedAgain.add(UInt64(count))
        return count
    }

    /// Requests that one connection may have outstanding: as many as there is room for more (the dynamic threshold of
    /// Choudhury and Hahne), so that one alone gets half of the room, two get two thirds, and the next always finds
    /// some. But a few whatever the others have.
    private var share: Int {
        max(Self.leastShare, pending.pointee.capacity - pending.pointee.count)
    }

    static let leastShare = 16

    /// What is ordered in the place of the session: of an OPEN, which has none yet, what makes the id of the new one
    /// such that no other client can guess it.
    private func sessionField(of request: RequestHeader) -> UInt64 {
        guard request.command == CommandCode.open.rawValue else { return request.session }
        return max(1, settings.secret())
    }

    // MARK: Replies

    /// The executor's answer: to the client that waits for it, if it still does.
    private func finish(_ completion: Completion) {
        if let index = pending.pointee.find(completion.tag) {
            // What comes of a state that is in dispute reaches nobody; a repetition finds it when that is settled.
            guard progress.mayServe else {
                giveUp(index)
                return completion.body.release(to: rings.replyBodies)
            }
            let entry = pending.pointee[index]
            let session = entry.command == CommandCode.open.rawValue ? completion.session : entry.session
            send(
                ReplyHeader(
                    StatusCode(rawValue: completion.status)!, flags: RequestFlags(rawValue: entry.flags),
                    replica: settings.replica, session: session, sequence: entry.sequence,
                    position: completion.position), completion.body.bytes, to: pending.pointee.envelope(index))
            remove(index)
        }
        completion.body.release(to: rings.replyBodies)
    }

    /// On a slow link a large request takes its time, and those that came after it. To send it again would only take
    /// longer.
    private func mayBeOnItsWay(_ request: PendingTable.Entry, now: UInt64) -> Bool {
        progress.leader != nil && progress.era == request.era && now < lastProgressAt + settings.patience
    }

    /// Tells the client of a request that nobody decided in time to try again.
    private func giveUp(_ index: Int) {
        board.unanswered.add(1)
        let entry = pending.pointee[index]
        let header = ReplyHeader(
            .noLeader, flags: RequestFlags(rawValue: entry.flags), replica: settings.replica, session: entry.session,
            sequence: entry.sequence, position: 0)
        var milliseconds = (20 as UInt32).littleEndian
        withUnsafeBytes(of: &milliseconds) { send(header, $0, to: pending.pointee.envelope(index)) }
        remove(index)
    }

    private func remove(_ index: Int) {
        port.answered(pending.pointee.envelope(index))
        pending.pointee.remove(index)
    }

    private func redirect(_ request: RequestHeader, to leader: Int) {
        board.redirected.add(1)
        var endpoint = settings.clientEndpoints[leader]
        endpoint.withUTF8 { answer(request, .redirect, body: UnsafeRawBufferPointer($0)) }
    }

    /// Answers as when there is no leader: to try again, here or elsewhere.
    private func turnAway(_ request: RequestHeader) {
        board.unanswered.add(1)
        refuse(request, .noLeader, milliseconds: 50)
    }

    private func refuse(_ request: RequestHeader, _ status: StatusCode, milliseconds: UInt32) {
        var value = milliseconds.littleEndian
        withUnsafeBytes(of: &value) { answer(request, status, body: $0) }
    }

    private func deny(_ request: RequestHeader) {
        board.denied.add(1)
        var reason =
            port.permission == .none
            ? "the key of this client was withdrawn" : "the key of this client is for reading alone"
        reason.withUTF8 { answer(request, .denied, body: UnsafeRawBufferPointer($0)) }
    }

    private func reject(_ rejection: Rejection) {
        switch rejection.cause {
        case .malformed: board.rejectedMalformed.add(1)
        case .tooLarge: board.rejectedTooLarge.add(1)
        }
        withUnsafeTemporaryAllocation(byteCount: Rejection.largestBody, alignment: 8) { text in
            let count = rejection.writeBody(into: text.baseAddress!)
            send(
                rejection.header, UnsafeRawBufferPointer(start: text.baseAddress, count: count),
                to: envelope.pointee.packed)
        }
    }

    /// Answers the request received last.
    private func answer(_ request: RequestHeader, _ status: StatusCode, body: UnsafeRawBufferPointer) {
        send(ReplyHeader(status, to: request, replica: settings.replica), body, to: envelope.pointee.packed)
    }

    private func send(_ header: ReplyHeader, _ body: UnsafeRawBufferPointer, to envelope: UnsafeRawBufferPointer) {
        board.replies.add(1)
        withUnsafeTemporaryAllocation(byteCount: clientHeaderSize, alignment: 8) { bytes in
            header.encode(into: bytes.baseAddress!)
            // A client that left, or that does not read, loses its reply here; a retry recovers it (rule 6).
            if !port.reply(to: envelope, header: UnsafeRawBufferPointer(bytes), body) { board.repliesLost.add(1) }
        }
    }
}

extension CommandCode {
    /// What a client must be permitted at least.
    fileprivate var permission: Permission {
        switch self {
        case .ping, .status, .query: .read
        case .open, .submit, .close: .write
        }
    }
}
