import Messaging
import Queues
import StateMachines
import Wire

/// The stage that talks to clients: the asynchronous REP side of ZeroMQ's request-reply pattern (RFC 28), as
/// `client-protocol.md` describes it. It validates, admits and remembers requests, hands them to the engine, and sends
/// each reply when the executor has it. STATUS and PING it answers by itself.
///
/// With a literal REP socket in place of the ROUTER (`socket = "rep"`) everything is the same but that the socket holds
/// one request at a time and keeps the envelope itself.
final class ClientGateway: Stage {
    /// What a gateway needs to know of the cluster.
    struct Settings {
        var replica: UInt16
        var literalREP: Bool
        var maximumRequest: Int
        var maximumOutstanding: Int
        /// Bytes of the bodies of requests admitted and not answered: beyond it, BUSY.
        var maximumOutstandingBytes: Int
        /// Microseconds after which a request that nobody decided is answered NO_LEADER.
        var patience: UInt64
        /// The `client` endpoints by replica index, for REDIRECT.
        var clientEndpoints: [String]
        var index: Int
        var epoch: UInt64
    }

    private let settings: Settings
    private let socket: Socket
    private let board: StatusBoard
    private let validator: @Sendable (UnsafeRawBufferPointer, CommandKind) -> String?
    private let statusReport: @Sendable () -> String

    private let submissions: SPSCRing<Submission>
    private let localQueries: SPSCRing<LocalQuery>
    private let completions: SPSCRing<Completion>
    private let engineLane: Parker
    private let executorLane: Parker

    // Behind pointers, as they are changed for every request: a class's own storage would be checked for exclusive access each time.
    private let pending: UnsafeMutablePointer<PendingTable>
    private let envelope: UnsafeMutablePointer<Envelope>
    private let routing = Frame()
    private let header = Frame()
    private let body = Frame()
    private let reply: UnsafeMutableRawBufferPointer
    /// REP only: a request was received and not yet answered.
    private var holdsRequest = false
    private var watch: Watch?
    private var item: Watch.Item?
    /// Fused lanes: set by the engine while requests had better gather in the socket.
    private let gate: Gate?
    private var lastReceive: UInt64 = 0
    private var isHeld = false
    /// Bytes of bodies given to the engine so far.
    private var bodiesSubmitted: UInt64 = 0

    init(
        settings: Settings, socket: consuming Socket, board: StatusBoard,
        validator: @escaping @Sendable (UnsafeRawBufferPointer, CommandKind) -> String?,
        statusReport: @escaping @Sendable () -> String, rings: Rings, parkers: Parkers, gate: Gate?
    ) {
        self.gate = gate
        self.settings = settings
        self.socket = socket
        self.board = board
        self.validator = validator
        self.statusReport = statusReport
        submissions = rings.submissions
        localQueries = rings.localQueries
        completions = rings.completions
        engineLane = parkers.engine
        executorLane = parkers.executor
        pending = .allocate(capacity: 1)
        pending.initialize(to: PendingTable(capacity: settings.maximumOutstanding, epoch: settings.epoch))
        envelope = .allocate(capacity: 1)
        envelope.initialize(to: Envelope())
        reply = .allocate(byteCount: clientHeaderSize, alignment: 8)
    }

    deinit {
        reply.deallocate()
        pending.deinitialize(count: 1)
        pending.deallocate()
        envelope.deinitialize(count: 1)
        envelope.deallocate()
    }

    override var nextDeadline: UInt64 {
        let release = isHeld && !holdsRequest ? lastReceive + Self.longestHold : .max
        return min(release, pending.pointee.nextDeadline)
    }

    override func register(in watch: Watch) {
        self.watch = watch
        item = watch.add(socket)
    }

    override func poll(budget: Int, now: UInt64) -> Bool {
        guard let watch, let item else { preconditionFailure("polled before it was registered") }
        var work = 0
        while work < budget, let completion = completions.pop() {
            finish(completion)
            work += 1
        }
        while let index = pending.pointee.expired(at: now) {
            board.unanswered.add(1)
            answerPending(index, status: .noLeader, position: 0, milliseconds: 20)
            work += 1
        }
        var received = 0
        isHeld = holdsRequest || holdsBack(now: now)
        watch.hold(item, isHeld)
        if !isHeld, watch.isReady(item) {
            lastReceive = now
            while received < budget, !holdsRequest {
                guard receiveRequest(now: now) else {
                    watch.wasEmpty(item)
                    break
                }
                received += 1
            }
        }
        if received > 0 {
            if submissions.publish() { engineLane.wake() }
            if localQueries.publish() { executorLane.wake() }
        }
        board.outstanding.store(UInt64(pending.pointee.count))
        return work + received > 0
    }

    /// While the engine waits for the answers to a batch, requests gather in the socket: reading them one by one would cost a
    /// wake-up of libzmq's each, and they cannot go anywhere. Not for long, since some can be answered at once.
    private func holdsBack(now: UInt64) -> Bool {
        guard let gate, gate.isClosed else { return false }
        return now < lastReceive + Self.longestHold
    }

    private static let longestHold: UInt64 = 1000

    // MARK: Requests

    /// Takes one request from the socket. False when there is none.
    private func receiveRequest(now: UInt64) -> Bool {
        envelope.pointee.clear()
        if settings.literalREP {
            guard socket.receive(header) else { return false }
            holdsRequest = true
        } else {
            guard socket.receive(routing) else { return false }
            guard receiveEnvelope(now: now) else { return true }
        }
        examine(frames: receiveContent(), now: now)
        return true
    }

    private func examine(frames: Int, now: UInt64) {
        board.requests.add(1)
        switch RequestExamination(
            frames: frames, header: UnsafeRawBufferPointer(header.bytes), bodySize: body.bytes.count,
            maxRequest: settings.maximumRequest, replica: settings.replica)
        {
        case .rejected(let rejection): reject(rejection)
        case .accepted(let request, let code): serve(request, code, now: now)
        }
    }

    /// Reads the routing frames up to the empty delimiter, the first being in `routing`. False when nobody can be
    /// answered: no delimiter, or an envelope beyond the limits. What is left of the message is then dropped.
    private func receiveEnvelope(now: UInt64) -> Bool {
        while true {
            let isDelimiter = routing.bytes.isEmpty
            guard envelope.pointee.append(UnsafeRawBufferPointer(routing.bytes)) else { break }
            if isDelimiter {
                return routing.hasMore ? socket.receive(header) : receivedNothingBehindDelimiter(now: now)
            }
            guard routing.hasMore, socket.receive(routing) else { break }
        }
        socket.skipRest(of: routing)
        board.requests.add(1)
        board.rejectedMalformed.add(1)
        return false
    }

    private func receivedNothingBehindDelimiter(now: UInt64) -> Bool {
        header.clear()
        examine(frames: 0, now: now)
        return false
    }

    /// The number of frames behind the envelope, the first being in `header`; the second is read into `body`.
    private func receiveContent() -> Int {
        guard header.hasMore, socket.receive(body) else { return 1 }
        guard body.hasMore else { return 2 }
        return 2 + socket.skipRest(of: body)
    }

    private func serve(_ request: RequestHeader, _ code: CommandCode, now: UInt64) {
        switch code {
        case .ping:
            sendHeader(ReplyHeader(.ok, to: request, replica: settings.replica), to: envelope.pointee.packed)
            sendBody(body)
        case .status:
            var text = statusReport()
            text.withUTF8 { answer(request, .ok, body: UnsafeRawBufferPointer($0)) }
        case .open, .close:
            order(request, code, now: now)
        case .submit, .query:
            let kind: CommandKind = code == .submit ? .submit : .query
            if let reason = validator(UnsafeRawBufferPointer(body.bytes), kind) {
                board.rejectedMalformed.add(1)
                var text = reason
                text.withUTF8 { answer(request, .malformed, body: UnsafeRawBufferPointer($0)) }
            } else if request.flags.contains(.local) {
                admit(request, now: now, isLocal: true)
            } else {
                order(request, code, now: now)
            }
        }
    }

    private func order(_ request: RequestHeader, _ code: CommandCode, now: UInt64) {
        if request.flags.contains(.noForward) {
            let leader = board.knownLeader
            if leader != settings.index {
                if let leader { redirect(request, to: leader) } else { refuse(request, .noLeader, milliseconds: 50) }
                return
            }
        }
        admit(request, now: now, isLocal: false)
    }

    private func admit(_ request: RequestHeader, now: UInt64, isLocal: Bool) {
        // Bodies stay in the ring while there is no leader, also those whose clients were told so meanwhile.
        let inRing = Int(bodiesSubmitted - board.bodiesTaken.load())
        guard !pending.pointee.isFull,
            max(inRing, pending.pointee.bodyBytes) < settings.maximumOutstandingBytes,
            isLocal ? !localQueries.isFull : !submissions.isFull
        else {
            board.rejectedBusy.add(1)
            refuse(request, .busy, milliseconds: 5)
            return
        }
        let tag = pending.pointee.admit(
            command: request.command, flags: request.flags.rawValue, session: request.session,
            sequence: request.sequence, deadline: now + settings.patience, bodyCount: body.count,
            envelope: envelope.pointee)
        if !isLocal { bodiesSubmitted += UInt64(body.count) }
        let accepted =
            isLocal
            ? localQueries.push(LocalQuery(tag: tag, position: request.position, body: body.take()))
            : submissions.push(
                Submission(
                    kind: request.command, tag: tag, session: request.session, sequence: request.sequence,
                    body: body.take()))
        precondition(accepted, "a ring with room refused a request")
    }

    // MARK: Replies

    /// The executor's answer: to the client that waits for it, if it still does.
    private func finish(_ completion: Completion) {
        guard let index = pending.pointee.find(completion.tag) else {
            completion.body.discard()
            return
        }
        let entry = pending.pointee[index]
        let status = StatusCode(rawValue: completion.status)!
        body.adopt(completion.body)
        let session = entry.command == CommandCode.open.rawValue ? completion.session : entry.session
        sendHeader(
            ReplyHeader(
                status, flags: RequestFlags(rawValue: entry.flags), replica: settings.replica, session: session,
                sequence: entry.sequence, position: completion.position), to: pending.pointee.envelope(index))
        sendBody(body)
        pending.pointee.remove(index)
    }

    /// Tells a client whose request waits that it must try again.
    private func answerPending(_ index: Int, status: StatusCode, position: UInt64, milliseconds: UInt32) {
        let entry = pending.pointee[index]
        sendHeader(
            ReplyHeader(
                status, flags: RequestFlags(rawValue: entry.flags), replica: settings.replica, session: entry.session,
                sequence: entry.sequence, position: position), to: pending.pointee.envelope(index))
        sendBody(milliseconds: milliseconds)
        pending.pointee.remove(index)
    }

    private func redirect(_ request: RequestHeader, to leader: Int) {
        board.redirected.add(1)
        var endpoint = settings.clientEndpoints[leader]
        endpoint.withUTF8 { answer(request, .redirect, body: UnsafeRawBufferPointer($0)) }
    }

    private func refuse(_ request: RequestHeader, _ status: StatusCode, milliseconds: UInt32) {
        sendHeader(ReplyHeader(status, to: request, replica: settings.replica), to: envelope.pointee.packed)
        sendBody(milliseconds: milliseconds)
    }

    private func reject(_ rejection: Rejection) {
        switch rejection.cause {
        case .malformed: board.rejectedMalformed.add(1)
        case .tooLarge: board.rejectedTooLarge.add(1)
        }
        sendHeader(rejection.header, to: envelope.pointee.packed)
        withUnsafeTemporaryAllocation(byteCount: Rejection.largestBody, alignment: 8) { text in
            let count = rejection.writeBody(into: text.baseAddress!)
            send(UnsafeRawBufferPointer(start: text.baseAddress, count: count), more: false)
        }
        holdsRequest = false
    }

    private func answer(_ request: RequestHeader, _ status: StatusCode, body: UnsafeRawBufferPointer) {
        sendHeader(ReplyHeader(status, to: request, replica: settings.replica), to: envelope.pointee.packed)
        send(body, more: false)
        holdsRequest = false
    }

    /// Sends the envelope and the header of a reply; the body must follow.
    private func sendHeader(_ header: ReplyHeader, to envelope: UnsafeRawBufferPointer) {
        board.replies.add(1)
        var offset = 0
        while offset < envelope.count {
            let size = Int(envelope.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
            send(UnsafeRawBufferPointer(rebasing: envelope[(offset + 2)..<(offset + 2 + size)]), more: true)
            offset += 2 + size
        }
        header.encode(into: reply.baseAddress!)
        send(UnsafeRawBufferPointer(reply), more: true)
    }

    private func sendBody(milliseconds: UInt32) {
        var value = milliseconds.littleEndian
        withUnsafeBytes(of: &value) { send($0, more: false) }
        holdsRequest = false
    }

    private func sendBody(_ frame: borrowing Frame) {
        // A client that left, or that does not read, loses its reply here; a retry recovers it (rule 6).
        if socket.send(frame, more: false) != .sent { board.repliesLost.add(1) }
        holdsRequest = false
    }

    private func send(_ bytes: UnsafeRawBufferPointer, more: Bool) {
        if let watch, let item { watch.wasUsed(item) }
        if socket.send(copying: bytes, more: more) != .sent { board.repliesLost.add(1) }
    }
}
