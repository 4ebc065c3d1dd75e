/// The little of ZMTP 3.0 and 3.1 (RFC 23, RFC 37) that plain sockets need to talk to ZeroMQ sockets with the NULL
/// mechanism: greeting, READY, frames, heartbeats. And of ZMTP 2.0 (RFC 15), whose frames are the same.
@usableFromInline package enum Codec {
    // Were the enum not usable from inline, `@inlinable` within would be without effect, and without a warning.

    package static let greetingSize = 64
    /// Bytes before a frame's content: a flag and a length of one byte, or of eight.
    @usableFromInline package static let shortHead = 2
    @usableFromInline package static let longHead = 9
    /// The longest content that a short head can tell of.
    @usableFromInline static let longestShort = 255

    /// The longest content of a command, of what comes before a handshake is over, and so of READY: properties of a few
    /// bytes. Who looks at a command looks at all of it.
    @usableFromInline package static let largestCommand = 512

    @usableFromInline enum Flag {
        @usableFromInline static let more: UInt8 = 1
        @usableFromInline static let long: UInt8 = 2
        @usableFromInline static let command: UInt8 = 4
    }

    /// What either side says first.
    package static let greeting: [UInt8] = {
        let start: [UInt8] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("NULL".utf8)
        return start + [UInt8](repeating: 0, count: greetingSize - start.count)
    }()

    /// The READY command of a socket of type `socketType`, as a frame. Messages must wait for the peer's own READY:
    /// libzmq takes an earlier one for a breach of the handshake and closes.
    package static func ready(_ socketType: String) -> [UInt8] {
        let name = Array("Socket-Type".utf8)
        let value = Array(socketType.utf8)
        let body = [5] + Array("READY".utf8) + [UInt8(name.count)] + name + [0, 0, 0, UInt8(value.count)] + value
        return [Flag.command, UInt8(body.count)] + body
    }

    /// Up to here a greeting is the same in all versions: signature and version number.
    static let versionEnd = 11
    static let oldGreetingSize = 12
    /// What follows in ZMTP 2.0: the type of the socket, ROUTER, and its identity, an empty frame.
    static let oldGreeting: [UInt8] = [6, 0, 0]
    /// The types of sockets that talk to a ROUTER, by name and by their numbers in ZMTP 2.0.
    private static let clients: [(name: String, number: UInt8)] = [("REQ", 3), ("DEALER", 5), ("ROUTER", 6)]

    static func isClient(_ socketType: String) -> Bool { clients.contains { $0.name == socketType } }

    package enum GreetingOutcome {
        case incomplete, good, bad
        /// Of ZMTP 2.0, by a socket that talks to a ROUTER.
        case old
    }

    /// Looks at the start of a connection, as far as it has come.
    package static func checkGreeting(_ bytes: UnsafeRawBufferPointer) -> GreetingOutcome {
        // What is no ZMTP at all, or a version before 2, shows early and need not be waited for.
        if bytes.count > 0, bytes[0] != 0xFF { return .bad }
        if bytes.count > 9, bytes[9] != 0x7F { return .bad }
        if isOld(bytes) {
            guard bytes.count >= oldGreetingSize else { return .incomplete }
            return clients.contains { $0.number == bytes[11] } ? .old : .bad
        }
        if bytes.count > 10, bytes[10] < 3 { return .bad }
        guard bytes.count >= greetingSize else { return .incomplete }
        return bytes[12..<16].elementsEqual("NULL".utf8) && bytes[16] == 0 ? .good : .bad
    }

    /// Whether a greeting tells of ZMTP 2.0, whose number is 1.
    static func isOld(_ greeting: UnsafeRawBufferPointer) -> Bool { greeting.count > 10 && greeting[10] == 1 }

    /// Whether who sent a whole greeting knows PING: from version 3.1 on.
    static func hasHeartbeats(_ greeting: UnsafeRawBufferPointer) -> Bool { greeting[10] > 3 || greeting[11] >= 1 }

    package enum ReadyOutcome: Equatable {
        case ready(socketType: String?)
        /// Another command, or properties that run over its end.
        case bad
    }

    /// The value of the property Socket-Type in the body of a READY command, if there is one.
    static func readReady(_ body: UnsafeRawBufferPointer) -> ReadyOutcome {
        guard body.count >= 6, body[0] == 5, body[1..<6].elementsEqual("READY".utf8) else { return .bad }
        var at = 6
        while at < body.count {
            let nameEnd = at + 1 + Int(body[at])
            guard nameEnd + 4 <= body.count else { return .bad }
            let size = Int(UInt32(bigEndian: body.loadUnaligned(fromByteOffset: nameEnd, as: UInt32.self)))
            guard size <= body.count - nameEnd - 4 else { return .bad }
            // Names are compared without regard to case (RFC 23).
            if body[(at + 1)..<nameEnd].lazy.map(lowercased).elementsEqual("socket-type".utf8) {
                let value = String(decoding: body[(nameEnd + 4)..<(nameEnd + 4 + size)], as: UTF8.self)
                return .ready(socketType: value)
            }
            at = nameEnd + 4 + size
        }
        return .ready(socketType: nil)
    }

    private static func lowercased(_ letter: UInt8) -> UInt8 { (65...90).contains(letter) ? letter + 32 : letter }

    /// One frame at the front of `bytes`.
    @usableFromInline package struct FrameHead: BitwiseCopyable {
        @usableFromInline package var isCommand: Bool
        @usableFromInline package var hasMore: Bool
        @usableFromInline package var bodyOffset: Int
        @usableFromInline package var bodyCount: Int

        @inlinable init(isCommand: Bool, hasMore: Bool, bodyOffset: Int, bodyCount: Int) {
            self.isCommand = isCommand
            self.hasMore = hasMore
            self.bodyOffset = bodyOffset
            self.bodyCount = bodyCount
        }
    }

    @usableFromInline package enum FrameOutcome: BitwiseCopyable {
        case incomplete
        case frame(FrameHead)
        case bad
    }

    /// Reads flags and length of the frame at `offset`; `.incomplete` until all of its body is there too, `.bad` at
    /// once when it is longer than `limit`, or a command that is longer than a command may be.
    @inlinable @inline(__always)
    package static func frame(_ bytes: UnsafeRawBufferPointer, at offset: Int, limit: Int) -> FrameOutcome {
        let left = bytes.count - offset
        guard left >= shortHead else { return .incomplete }
        let flags = bytes[offset]
        guard flags & ~(Flag.more | Flag.long | Flag.command) == 0 else { return .bad }
        let limit = flags & Flag.command != 0 ? min(limit, largestCommand) : limit
        var head = FrameHead(
            isCommand: flags & Flag.command != 0, hasMore: flags & Flag.more != 0, bodyOffset: offset + shortHead,
            bodyCount: Int(bytes[offset + 1]))
        if flags & Flag.long != 0 {
            guard left >= longHead else { return .incomplete }
            let count = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 1, as: UInt64.self))
            guard count <= UInt64(limit) else { return .bad }
            head.bodyOffset = offset + longHead
            head.bodyCount = Int(count)
        } else if head.bodyCount > limit {
            return .bad
        }
        guard bytes.count - head.bodyOffset >= head.bodyCount else { return .incomplete }
        return .frame(head)
    }

    /// Bytes that a frame with `count` bytes of content takes.
    @inlinable package static func size(ofFrame count: Int) -> Int {
        count + (count > longestShort ? longHead : shortHead)
    }

    /// Writes the frame at `place`, which must have room for it; returns the place behind it.
    @inlinable
    package static func write(
        _ content: UnsafeRawBufferPointer, more: Bool, to place: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        let body: UnsafeMutableRawPointer
        let flags = more ? Flag.more : 0
        if content.count > longestShort {
            place.storeBytes(of: flags | Flag.long, as: UInt8.self)
            place.storeBytes(of: UInt64(content.count).bigEndian, toByteOffset: 1, as: UInt64.self)
            body = place + longHead
        } else {
            place.storeBytes(of: flags, as: UInt8.self)
            place.storeBytes(of: UInt8(content.count), toByteOffset: 1, as: UInt8.self)
            body = place + shortHead
        }
        if let source = content.baseAddress { body.copyMemory(from: source, byteCount: content.count) }
        return body + content.count
    }

    /// A PING command (RFC 37) that sets the peer no time.
    static let ping: [UInt8] = [Flag.command, 7, 4] + Array("PING".utf8) + [0, 0]

    /// A PING's time to live, in tenths of a second, 0 for none; and the PONG that answers it. Nil for any other
    /// command.
    package static func readPing(_ command: UnsafeRawBufferPointer) -> (timeToLive: UInt16, pong: [UInt8])? {
        guard command.count >= 7, command.count <= 7 + 16, command[0] == 4, command[1..<5].elementsEqual("PING".utf8)
        else { return nil }
        let body = [4] + Array("PONG".utf8) + Array(command[7...])
        let time = UInt16(bigEndian: command.loadUnaligned(fromByteOffset: 5, as: UInt16.self))
        return (time, [Flag.command, UInt8(body.count)] + body)
    }

    /// The PONG that answers a PING command, or nil for any other command.
    package static func pong(to command: UnsafeRawBufferPointer) -> [UInt8]? { readPing(command)?.pong }
}
