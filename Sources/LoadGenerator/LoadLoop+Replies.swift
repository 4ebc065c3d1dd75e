import MPaxosWire
import MPaxosZMTP

extension LoadLoop {
    /// Larger than any body of a reply.
    static let largestFrame = 64 << 20

    /// Takes all that is whole out of a link's input.
    mutating func understand(_ number: Int, now: UInt64) {
        let link = links + number
        if link.pointee.state == .greeting {
            switch Codec.checkGreeting(link.pointee.input.bytes) {
            case .incomplete: return
            case .bad, .old:
                fail(number, "does not greet as a ZeroMQ socket with the NULL mechanism")
                return
            case .good:
                link.pointee.input.remove(Codec.greetingSize)
                link.pointee.state = .handshake
            }
        }
        while failure == nil {
            let bytes = link.pointee.input.bytes
            let used = understandOne(number, bytes, now: now)
            // A redirect or a loss has emptied the input.
            if used == 0 || link.pointee.input.isEmpty { return }
            link.pointee.input.remove(used)
        }
    }

    /// Handles the command or message at the front; returns its size, 0 when it is not whole yet.
    @inline(__always)
    private mutating func understandOne(_ number: Int, _ bytes: UnsafeRawBufferPointer, now: UInt64) -> Int {
        guard case .frame(let first) = frame(number, bytes, at: 0) else { return 0 }
        let afterFirst = first.bodyOffset + first.bodyCount
        if first.isCommand {
            command(number, UnsafeRawBufferPointer(rebasing: bytes[first.bodyOffset..<afterFirst]), now: now)
            return afterFirst
        }
        guard links[number].state == .up else {
            fail(number, "sends a message before its READY")
            return 0
        }
        guard case .frame(let second) = frame(number, bytes, at: afterFirst) else { return 0 }
        let afterSecond = second.bodyOffset + second.bodyCount
        guard case .frame(let third) = frame(number, bytes, at: afterSecond) else { return 0 }
        let end = third.bodyOffset + third.bodyCount
        guard first.hasMore, first.bodyCount == 0, second.hasMore, !second.isCommand, !third.hasMore, !third.isCommand,
            let header = ReplyHeader(
                decoding: UnsafeRawBufferPointer(start: bytes.baseAddress! + second.bodyOffset, count: second.bodyCount)
            )
        else {
            fail(number, "does not answer in MPX/1")
            return 0
        }
        reply(
            number, header,
            UnsafeRawBufferPointer(start: bytes.baseAddress! + third.bodyOffset, count: third.bodyCount), now: now)
        return end
    }

    @inline(__always)
    private mutating func frame(_ number: Int, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Codec.FrameOutcome {
        let outcome = Codec.frame(bytes, at: offset, limit: LoadLoop.largestFrame)
        if case .bad = outcome { fail(number, "sends bytes that are no ZMTP") }
        return outcome
    }

    private mutating func command(_ number: Int, _ body: UnsafeRawBufferPointer, now: UInt64) {
        if links[number].state == .handshake {
            if body.count >= 6, body[0] == 5, body[1..<6].elementsEqual("READY".utf8) {
                linkIsUp(number, now: now)
            } else {
                fail(number, "refuses the ZMTP handshake")
            }
        } else if let pong = Codec.pong(to: body) {
            links[number].output.append(pong)
        }
    }

    private mutating func fail(_ number: Int, _ what: String) {
        failure = BenchError(.noAnswer, "\(endpoints[links[number].endpoint].text) \(what): is it a client endpoint?")
    }

    // MARK: Replies

    @inline(__always)
    private mutating func reply(
        _ link: Int, _ header: ReplyHeader, _ body: UnsafeRawBufferPointer, now: UInt64
    ) {
        let number = Session.number(of: header.sequence)
        guard number < sessionCount, number % linkCount == link, sessions[number].pending != .nothing,
            sessions[number].sequence == header.sequence
        else {
            if header.status == .malformed { reject(header, body) }
            counts.unexpected += 1
            return
        }
        switch header.status {
        case .ok:
            links[link].leaderlessSince = 0
            switch sessions[number].pending {
            case .operation:
                let session = sessions + number
                session.pointee.position = max(session.pointee.position, header.position)
                finish(number, isGood: session.pointee.operation.isAnswered(by: body), now: now)
            case .open: opened(number, id: header.session, now: now)
            case .close, .nothing: closed(number)
            }
        case .busy, .noLeader:
            if header.status == .noLeader && links[link].leaderlessSince == 0 { links[link].leaderlessSince = now }
            turnedAway(number, header.status, body, now: now)
        case .redirect:
            counts.redirects += 1
            redirect(link, to: String(decoding: body, as: UTF8.self), now: now)
        case .expired:
            expired(number, now: now)
        case .stale, .full:
            finish(number, isGood: false, now: now)
        case .malformed, .tooLarge, .denied:
            reject(header, body)
        }
    }

    /// An operation is over: counts it, and begins the session's next.
    @inline(__always) private mutating func finish(_ number: Int, isGood: Bool, now: UInt64) {
        let session = sessions + number
        guard session.pointee.pending == .operation else {
            counts.errors += 1
            settle(number)
            return
        }
        settle(number)
        if isGood {
            completed += 1
            let latency = now > session.pointee.start ? now - session.pointee.start : 1
            latencies.record(min(latency, 3_600_000_000_000))
        } else {
            counts.errors += 1
        }
        proceed(number, now: now)
    }

    /// A session without a request gets its next, when there is to be one.
    @inline(__always) private mutating func proceed(_ number: Int, now: UInt64) {
        guard phase == .running else { return }
        if let due = schedule?.next {
            if due <= now {
                begin(number, start: schedule!.take(), now: now)
            } else {
                idle.push(number)
            }
        } else if takesTurns {
            idle.push(number)
            if let next = idle.pop() { begin(next, start: now, now: now) }
        } else if number < activeSessions {
            begin(number, start: now, now: now)
        }
    }

    @inline(__always) private mutating func settle(_ number: Int) {
        stopWaiting(number)
        sessions[number].pending = .nothing
        pendingSessions -= 1
    }

    private mutating func opened(_ number: Int, id: UInt64, now: UInt64) {
        let session = sessions + number
        guard id != 0 else {
            failure = BenchError(.noAnswer, "an OPEN was answered with session 0")
            return
        }
        settle(number)
        session.pointee.id = id
        openSessions += 1
        if session.pointee.resumesOperation {
            session.pointee.resumesOperation = false
            session.pointee.advance()
            ask(number, .operation, now: now)
        } else {
            proceed(number, now: now)
        }
    }

    private mutating func closed(_ number: Int) {
        settle(number)
        sessions[number].id = 0
        openSessions -= 1
    }

    private mutating func turnedAway(
        _ number: Int, _ status: StatusCode, _ body: UnsafeRawBufferPointer, now: UInt64
    ) {
        if status == .busy { counts.busy += 1 } else { counts.noLeader += 1 }
        let milliseconds: UInt64 =
            body.count == 4 ? UInt64(UInt32(littleEndian: body.loadUnaligned(as: UInt32.self))) : 10
        // A wait beyond ten seconds is a defect of the replica; to obey it would end the run.
        wait(number, milliseconds: min(max(milliseconds, 1), 10_000), now: now)
    }

    private mutating func expired(_ number: Int, now: UInt64) {
        if sessions[number].pending == .close {
            closed(number)
            return
        }
        counts.expired += 1
        counts.errors += 1
        let resumes = sessions[number].pending == .operation && phase == .running
        settle(number)
        if sessions[number].id != 0 { openSessions -= 1 }
        sessions[number].id = 0
        guard phase == .running || phase == .opening else { return }
        sessions[number].resumesOperation = resumes
        sessions[number].advance()
        ask(number, .open, now: now)
    }

    /// MALFORMED, TOO_LARGE and DENIED would meet every request: the run ends.
    private mutating func reject(_ header: ReplyHeader, _ body: UnsafeRawBufferPointer) {
        if header.status == .denied {
            failure = BenchError(.denied, "denied: \(String(decoding: body, as: UTF8.self))")
        } else if header.status == .tooLarge {
            let limit = body.count == 4 ? UInt32(littleEndian: body.loadUnaligned(as: UInt32.self)) : 0
            failure = BenchError(
                .usage,
                "values of \(configuration.valueSizes.upperBound) bytes are refused: requests and replies may have \(limit) bytes (max_request)"
            )
        } else {
            failure = BenchError(
                .usage, "the replica refuses the requests as malformed: \(String(decoding: body, as: UTF8.self))")
        }
    }
}
