import Foundation
import MPaxosFrames
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// Codec and addresses against libzmq at the other end.
@Suite struct LibzmqTests {
    @Test(arguments: ["tcp://127.0.0.1:*", "tcp://lo:*", "ipc://\(freshPath())", "ipc://@\(freshPath())"])
    func aRouterIsTalkedTo(endpoint: String) throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.setHeartbeat(intervalMilliseconds: 20, timeout: 20_000)
        try router.bind(endpoint)
        let peer = try PlainSocket(connectedTo: router.lastEndpoint)
        peer.send(Codec.greeting + Codec.ready("DEALER"))

        let greeting = try #require(peer.receive(Codec.greetingSize))
        #expect(greeting.withUnsafeBytes { Codec.checkGreeting($0) } == .good)
        let ready = try #require(peer.receiveFrame())
        #expect(ready.isCommand)
        #expect(ready.content.withUnsafeBytes { Codec.socketType(inReady: $0) } == "ROUTER")

        // Twice: the connection outlives the answer to a ping.
        var pings = 0
        while pings < 2 {
            let message = CodecTests.sizes.map { pattern($0, seed: pings) }
            for (index, part) in message.enumerated() { peer.send(makeFrame(part, more: index + 1 < message.count)) }
            let arrived = Self.receive(from: router)
            let received = try #require(arrived)
            #expect(Array(received.dropFirst()) == message)
            for (index, part) in received.enumerated() {
                let outcome = part.withUnsafeBytes { router.send(copying: $0, more: index + 1 < received.count) }
                #expect(outcome == .sent)
            }
            var answer: [[UInt8]] = []
            let before = pings
            while answer.count < message.count || pings == before {
                let next = try #require(peer.receiveFrame())
                if next.isCommand {
                    peer.send(try #require(next.content.withUnsafeBytes { Codec.pong(to: $0) }))
                    pings += 1
                } else {
                    answer.append(next.content)
                    #expect(next.hasMore == (answer.count < message.count))
                }
            }
            #expect(answer == message)
        }
    }

    private static func receive(from socket: borrowing Socket) -> [[UInt8]]? {
        let deadline = Date(timeIntervalSinceNow: 20)
        let frame = Frame()
        var message: [[UInt8]] = []
        repeat {
            while !socket.receive(frame) {
                if Date() > deadline { return nil }
                usleep(500)
            }
            message.append([UInt8](frame.bytes))
        } while frame.hasMore
        return message
    }
}

/// A connection that waits for what it is to receive.
private final class PlainSocket {
    private let file: Int32

    init(connectedTo endpoint: String) throws {
        let address = try SocketAddress(endpoint, passive: false)
        file = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        try #require(address.withPointer { connect(file, $0, $1) } == 0)
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(file) }

    func send(_ bytes: [UInt8]) {
        #expect(Glibc.send(file, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    }

    /// Nil when they do not come.
    func receive(_ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return recv(file, &bytes, count, Int32(MSG_WAITALL)) == count ? bytes : nil
    }

    func receiveFrame() -> (isCommand: Bool, hasMore: Bool, content: [UInt8])? {
        // A byte more, until the head tells how many.
        var bytes: [UInt8] = []
        while bytes.count < Codec.longHead {
            guard let next = receive(1) else { return nil }
            bytes += next
            guard bytes.count == (bytes[0] & 2 == 0 ? Codec.shortHead : Codec.longHead) else { continue }
            let count = bytes[1...].reduce(0) { $0 << 8 | Int($1) }
            guard let content = count == 0 ? [] : receive(count) else { return nil }
            bytes += content
            break
        }
        let whole = bytes
        guard case .frame(let head) = whole.withUnsafeBytes({ Codec.frame($0, at: 0, limit: 1 << 20) }) else {
            return nil
        }
        return (head.isCommand, head.hasMore, Array(whole[head.bodyOffset...]))
    }
}
