import MPaxosInvariants

/// Why a request is MALFORMED before its body is looked into; `text` is the body of the reply.
package enum MalformedReason: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case frameCount
    case headerSize
    case magic
    case unknownCommand
    case unknownFlag
    case noForwardMisplaced
    case localMisplaced
    case reservedNotZero
    case sessionNotZero
    case sessionMissing
    case sequenceZero
    case positionNotZero
    case unexpectedBody

    /// UTF-8, for the person who writes the client.
    package var text: StaticString {
        switch self {
        case .frameCount: "expected exactly two frames, HEADER and BODY, after the empty delimiter"
        case .headerSize: "the header must be 32 bytes"
        case .magic: "the header must begin with MPX1"
        case .unknownCommand: "unknown command: 1 OPEN, 2 SUBMIT, 3 QUERY, 4 CLOSE, 5 STATUS, 6 PING"
        case .unknownFlag: "unknown flag: only bits 0 (NO_FORWARD) and 1 (LOCAL) may be set"
        case .noForwardMisplaced: "NO_FORWARD belongs to OPEN, SUBMIT, QUERY and CLOSE only"
        case .localMisplaced: "LOCAL belongs to QUERY only"
        case .reservedNotZero: "bytes 6 and 7 of a request's header must be zero"
        case .sessionNotZero: "the session of OPEN, QUERY, STATUS and PING must be zero"
        case .sessionMissing: "CLOSE needs a session"
        case .sequenceZero: "sequences in a session start at 1: zero is none"
        case .positionNotZero: "the position must be zero but for a QUERY with LOCAL"
        case .unexpectedBody: "the body of OPEN, CLOSE and STATUS must be empty"
        }
    }
}

/// What to answer to a request that is refused before it is ordered: MALFORMED or TOO_LARGE.
package struct Rejection: Sendable, BitwiseCopyable, Equatable {
    package enum Cause: Sendable, BitwiseCopyable, Equatable {
        case malformed(MalformedReason)
        /// The largest BODY that is taken, in bytes.
        case tooLarge(limit: UInt32)
    }

    package let cause: Cause
    /// Header of the reply, complete. All zero but magic, status and replica id when the request had no header to echo.
    package let header: ReplyHeader

    /// Size of the largest `writeBody`, in bytes.
    package static let largestBody = 128

    /// Writes the reply's BODY (reason, or u32 limit) to `bytes`, which has room for `largestBody`; returns its size.
    package func writeBody(into bytes: UnsafeMutableRawPointer) -> Int {
        switch cause {
        case .malformed(let reason):
            let text = reason.text
            invariant(text.utf8CodeUnitCount <= Rejection.largestBody, "a reason fits its buffer")
            bytes.copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
            return text.utf8CodeUnitCount
        case .tooLarge(let limit):
            bytes.storeInteger(limit, 0)
            return 4
        }
    }
}

/// The outcome of looking at a request's frames: a header that keeps every rule of MPX/1, or what to answer instead.
/// Rules on the body's content are the state machine's (`StateMachine.validate`) and come after.
package enum RequestExamination: Sendable, BitwiseCopyable {
    case accepted(RequestHeader, CommandCode)
    case rejected(Rejection)

    /// - Parameters:
    ///   - frames: number of frames that came after the envelope's empty delimiter.
    ///   - header: the first of them; not looked at unless there are exactly two.
    ///   - bodySize: size of the second, in bytes.
    ///   - maxRequest: largest BODY taken, in bytes.
    ///   - replica: id of the replica that would answer.
    package init(
        frames: Int, header frame: UnsafeRawBufferPointer, bodySize: Int, maxRequest: Int, replica: UInt16
    ) {
        guard frames == 2 else {
            self = .withoutHeader(.frameCount, replica)
            return
        }
        guard frame.count == clientHeaderSize else {
            self = .withoutHeader(.headerSize, replica)
            return
        }
        guard let header = RequestHeader(decoding: frame) else {
            self = .withoutHeader(.magic, replica)
            return
        }
        guard let code = header.code else {
            self = .rejecting(header, .malformed(.unknownCommand), replica)
            return
        }
        if let cause = header.violation(as: code, bodySize: bodySize, maxRequest: maxRequest) {
            self = .rejecting(header, cause, replica)
        } else {
            self = .accepted(header, code)
        }
    }

    private static func withoutHeader(_ reason: MalformedReason, _ replica: UInt16) -> RequestExamination {
        .rejected(
            Rejection(
                cause: .malformed(reason),
                header: ReplyHeader(
                    .malformed, flags: RequestFlags(rawValue: 0), replica: replica, session: 0, sequence: 0, position: 0
                )))
    }

    private static func rejecting(
        _ header: RequestHeader, _ cause: Rejection.Cause, _ replica: UInt16
    ) -> RequestExamination {
        let status: StatusCode =
            switch cause {
            case .malformed: .malformed
            case .tooLarge: .tooLarge
            }
        return .rejected(Rejection(cause: cause, header: ReplyHeader(status, to: header, replica: replica)))
    }
}

extension RequestHeader {
    /// The first rule of MPX/1 that a request of a known command breaks. The header's own rules come first, then
    /// TOO_LARGE, then whether there may be a body: an oversized body is TOO_LARGE whatever the command.
    package func violation(as code: CommandCode, bodySize: Int, maxRequest: Int) -> Rejection.Cause? {
        // On raw bits: `OptionSet.contains` may reach for type metadata, which this path must not.
        let isNoForward = flags.rawValue & RequestFlags.noForward.rawValue != 0
        let isLocal = flags.rawValue & RequestFlags.local.rawValue != 0
        if flags.rawValue & ~3 != 0 { return .malformed(.unknownFlag) }
        if isNoForward && (code == .status || code == .ping) { return .malformed(.noForwardMisplaced) }
        if isLocal && code != .query { return .malformed(.localMisplaced) }
        if reserved != 0 { return .malformed(.reservedNotZero) }
        switch code {
        case .submit:
            if session != 0 && sequence == 0 { return .malformed(.sequenceZero) }
        case .close:
            if session == 0 { return .malformed(.sessionMissing) }
        case .open, .query, .status, .ping:
            if session != 0 { return .malformed(.sessionNotZero) }
        }
        if position != 0 && !isLocal { return .malformed(.positionNotZero) }
        if bodySize > maxRequest { return .tooLarge(limit: UInt32(clamping: maxRequest)) }
        if bodySize != 0 && (code == .open || code == .close || code == .status) { return .malformed(.unexpectedBody) }
        return nil
    }
}
