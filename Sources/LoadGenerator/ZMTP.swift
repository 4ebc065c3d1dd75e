/// The little of ZMTP 3.0 (RFC 23) that a DEALER needs to talk to a ROUTER with the NULL mechanism. By hand, over plain
/// sockets: a libzmq socket a client would cost many times what is to be measured.
enum ZMTP {
    static let greetingSize = 64

    /// Greeting and READY command, sent at once: a server reads the one, then the other. A message must wait for the
    /// server's own READY: libzmq takes an earlier one for a breach of the handshake and closes.
    static let opening: [UInt8] = {
        var bytes: [UInt8] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0]
        bytes += Array("NULL".utf8)
        bytes += [UInt8](repeating: 0, count: greetingSize - bytes.count)
        var ready: [UInt8] = [5] + Array("READY".utf8)
        ready += [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
        return bytes + [0x04, UInt8(ready.count)] + ready
    }()

    enum GreetingOutcome { case incomplete, good, bad }

    static func checkGreeting(_ bytes: UnsafeRawBufferPointer) -> GreetingOutcome {
        guard bytes.count >= greetingSize else { return .incomplete }
        let mechanism = Array("NULL".utf8)
        guard bytes[0] == 0xFF, bytes[9] == 0x7F, bytes[10] >= 3, Array(bytes[12..<16]) == mechanism, bytes[16] == 0
        else { return .bad }
        return .good
    }

    /// One frame at the front of `bytes`.
    struct FrameHead {
        var isCommand: Bool
        var hasMore: Bool
        var bodyOffset: Int
        var bodyCount: Int
    }

    enum FrameOutcome {
        case incomplete
        case frame(FrameHead)
        case bad
    }

    /// Reads flags and length of the frame at `offset`; `.incomplete` until all of its body is there too.
    @inline(__always) static func frame(_ bytes: UnsafeRawBufferPointer, at offset: Int, limit: Int) -> FrameOutcome {
        let left = bytes.count - offset
        guard left >= 2 else { return .incomplete }
        let flags = bytes[offset]
        guard flags & ~7 == 0 else { return .bad }
        var head = FrameHead(
            isCommand: flags & 4 != 0, hasMore: flags & 1 != 0, bodyOffset: offset + 2,
            bodyCount: Int(bytes[offset + 1]))
        if flags & 2 != 0 {
            guard left >= 9 else { return .incomplete }
            let count = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 1, as: UInt64.self))
            guard count <= UInt64(limit) else { return .bad }
            head.bodyOffset = offset + 9
            head.bodyCount = Int(count)
        }
        guard bytes.count - head.bodyOffset >= head.bodyCount else { return .incomplete }
        return .frame(head)
    }

    /// The PONG that answers a PING command (RFC 37), or nil for any other command.
    static func pong(to command: UnsafeRawBufferPointer) -> [UInt8]? {
        guard command.count >= 7, command.count <= 7 + 16, command[0] == 4,
            Array(command[1..<5]) == Array("PING".utf8)
        else { return nil }
        let body = [4] + Array("PONG".utf8) + Array(command[7...])
        return [0x04, UInt8(body.count)] + body
    }
}
