/// The commands of MPX/1 (client protocol, "Commands").
public enum CommandCode: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case open = 1
    case submit = 2
    case query = 3
    case close = 4
    case status = 5
    case ping = 6
}

/// The statuses of MPX/1 replies (client protocol, "Status").
public enum StatusCode: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case ok = 0
    case redirect = 1
    case busy = 2
    case stale = 3
    case expired = 4
    case malformed = 5
    case noLeader = 6
    case tooLarge = 7
    case full = 8
    /// The role of the connection's key does not reach so far.
    case denied = 9
}

/// The flags of a request. A reply echoes all eight bits, known or not.
public struct RequestFlags: OptionSet, Sendable, BitwiseCopyable, Hashable {
    public let rawValue: UInt8

    @inlinable public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// A replica that is not the leader answers REDIRECT.
    @inlinable public static var noForward: RequestFlags { RequestFlags(rawValue: 1) }
    /// A query is answered from the replica's own state at once.
    @inlinable public static var local: RequestFlags { RequestFlags(rawValue: 2) }
}

/// `MPX1` as it lies in the first four bytes of every header.
@usableFromInline let clientMagic: UInt32 = 0x3158_504D

/// Size of a request's or reply's HEADER frame, in bytes.
public let clientHeaderSize = 32

/// The HEADER of a request: fields as they came, not yet validated (see `RequestExamination`).
public struct RequestHeader: Sendable, BitwiseCopyable, Equatable {
    public var command: UInt8
    public var flags: RequestFlags
    public var reserved: UInt16
    public var session: UInt64
    public var sequence: UInt64
    public var position: UInt64

    @inlinable public init(
        _ command: CommandCode, flags: RequestFlags = [], session: UInt64 = 0, sequence: UInt64 = 0,
        position: UInt64 = 0
    ) {
        self.command = command.rawValue
        self.flags = flags
        self.reserved = 0
        self.session = session
        self.sequence = sequence
        self.position = position
    }

    /// Reads a header frame; nil when its size or its magic is wrong. Any alignment will do.
    @inlinable public init?(decoding frame: UnsafeRawBufferPointer) {
        guard frame.count == clientHeaderSize, let bytes = frame.baseAddress, bytes.loadUInt32(0) == clientMagic else {
            return nil
        }
        command = bytes.loadUInt8(4)
        flags = RequestFlags(rawValue: bytes.loadUInt8(5))
        reserved = bytes.loadUInt16(6)
        session = bytes.loadUInt64(8)
        sequence = bytes.loadUInt64(16)
        position = bytes.loadUInt64(24)
    }

    /// Writes the 32 bytes at `bytes`, which must have room for them.
    @inlinable public func encode(into bytes: UnsafeMutableRawPointer) {
        bytes.storeInteger(clientMagic, 0)
        bytes.storeInteger(command, 4)
        bytes.storeInteger(flags.rawValue, 5)
        bytes.storeInteger(reserved, 6)
        bytes.storeInteger(session, 8)
        bytes.storeInteger(sequence, 16)
        bytes.storeInteger(position, 24)
    }

    /// The command, or nil when this protocol version has none of that code.
    @inlinable public var code: CommandCode? { CommandCode(rawValue: command) }
}

/// The HEADER of a reply.
public struct ReplyHeader: Sendable, BitwiseCopyable, Equatable {
    public var status: StatusCode
    /// The request's flags, echoed bit by bit.
    public var flags: RequestFlags
    /// Id of the replica that answers.
    public var replica: UInt16
    public var session: UInt64
    public var sequence: UInt64
    public var position: UInt64

    @inlinable public init(
        _ status: StatusCode, flags: RequestFlags, replica: UInt16, session: UInt64, sequence: UInt64, position: UInt64
    ) {
        self.status = status
        self.flags = flags
        self.replica = replica
        self.session = session
        self.sequence = sequence
        self.position = position
    }

    /// A reply to `request` with its flags, session and sequence echoed.
    @inlinable public init(
        _ status: StatusCode, to request: RequestHeader, replica: UInt16, position: UInt64 = 0
    ) {
        self.init(
            status, flags: request.flags, replica: replica, session: request.session, sequence: request.sequence,
            position: position)
    }

    /// Reads a header frame; nil when its size, its magic or its status is wrong. Any alignment will do.
    @inlinable public init?(decoding frame: UnsafeRawBufferPointer) {
        guard frame.count == clientHeaderSize, let bytes = frame.baseAddress, bytes.loadUInt32(0) == clientMagic,
            let status = StatusCode(rawValue: bytes.loadUInt8(4))
        else { return nil }
        self.status = status
        flags = RequestFlags(rawValue: bytes.loadUInt8(5))
        replica = bytes.loadUInt16(6)
        session = bytes.loadUInt64(8)
        sequence = bytes.loadUInt64(16)
        position = bytes.loadUInt64(24)
    }

    /// Writes the 32 bytes at `bytes`, which must have room for them.
    @inlinable public func encode(into bytes: UnsafeMutableRawPointer) {
        bytes.storeInteger(clientMagic, 0)
        bytes.storeInteger(status.rawValue, 4)
        bytes.storeInteger(flags.rawValue, 5)
        bytes.storeInteger(replica, 6)
        bytes.storeInteger(session, 8)
        bytes.storeInteger(sequence, 16)
        bytes.storeInteger(position, 24)
    }
}
