import MPaxosMessaging
import MPaxosWire

/// Why a request got no result. Its description is a sentence for the person.
public enum ClientError: Error, Sendable, Equatable, CustomStringConvertible {
    /// No final answer in time. `uncertain`: an attempt may have been executed, or may yet be.
    case unanswered(reason: String, uncertain: Bool)
    /// The session is unknown, closed or evicted. `uncertain`: an earlier attempt of the same command may have been
    /// executed.
    case sessionExpired(session: UInt64, uncertain: Bool)
    /// A later command of the session overtook this one, and its reply is gone: a defect of the client.
    case stale(session: UInt64, sequence: UInt64)
    /// The replica does not understand the request, for the reason it gives.
    case malformed(String)
    /// What the client's key may do does not reach so far, for the reason that the replica gives. Nothing was executed,
    /// and a session goes on with the next command.
    case denied(String)
    /// The body exceeds the replicas' `max_request`, in bytes.
    case tooLarge(limit: Int)
    /// The reply to a query would exceed the replicas' `max_request`, in bytes.
    case replyTooLarge(limit: Int)
    /// Ordered and refused, for want of room or as the reason says; nothing changed.
    case full(String)
    /// The state machine executed the command and refused it; nothing changed.
    case refused(String)
    /// The answer does not follow the protocol.
    case unintelligible(String)
    /// The client cannot be set up: say, an endpoint that is none.
    case setUp(String)
    /// The client was shut down.
    case shutDown
    /// The task was cancelled. A command that was under way may have been executed, or may yet be.
    case cancelled

    public var description: String {
        switch self {
        case .unanswered(let reason, let uncertain):
            "the cluster does not answer: \(reason)"
                + (uncertain ? "; the command may have been executed or may yet be, a retry of it would tell" : "")
        case .sessionExpired(let session, let uncertain):
            "session \(session) is unknown to the cluster (closed, or evicted by newer ones); open another"
                + (uncertain ? ". Whether the last command was executed cannot be told any more" : "")
        case .stale(let session, let sequence):
            "command \(sequence) of session \(session) was overtaken by a later one and its reply is gone: use a session for one command at a time"
        case .malformed(let reason): "the replica rejects the request: \(reason)"
        case .denied(let reason):
            "denied: \(reason); whoever keeps the cluster's clients.toml gives roles to keys"
        case .tooLarge(let limit): "the request is larger than the \(limit) bytes that the cluster takes (max_request)"
        case .replyTooLarge(let limit):
            "the reply would be larger than the \(limit) bytes that the cluster sends (max_request): ask for less"
        case .full(let reason):
            "the command was refused, nothing was changed: \(reason)"
                + (reason == Self.noRoom ? "; delete something first" : "")
        case .refused(let reason): "the command cannot be applied, nothing was changed: \(reason)"
        case .unintelligible(let what):
            "the replica's answer makes no sense: \(what); do client and replica have the same version?"
        case .setUp(let reason): reason
        case .shutDown: "the client was shut down"
        case .cancelled: "cancelled; the command may have been executed or may yet be"
        }
    }

    /// The reason of FULL where there is no room.
    private static let noRoom = "the store is full"

    static func setUp(_ error: MessagingError) -> ClientError { .setUp(error.description) }
}

/// A replica's answer.
public struct ClientReply: Sendable, Equatable {
    /// Status, answering replica, session, sequence and position.
    public let header: ReplyHeader
    /// The state machine's reply, or what the status says (client protocol, "Status").
    public let body: [UInt8]

    public init(header: ReplyHeader, body: [UInt8]) {
        self.header = header
        self.body = body
    }

    /// The u32 that BUSY, NO_LEADER and TOO_LARGE carry; nil when the body is no such number.
    var number: UInt32? {
        guard body.count == 4 else { return nil }
        return body.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    }

    var text: String { String(decoding: body, as: UTF8.self) }
}
