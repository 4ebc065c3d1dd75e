import Glibc
import MPaxosFrames
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// Clients of ZMTP 2.0: libzmq 3.2, JeroMQ 0.3, NetMQ 4.0.0. What they send is tried on libzmq as well.
@Suite struct OldClientTests {
    static func greeting(_ socketType: UInt8) -> [UInt8] { [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 1, socketType] }

    private static let message = [[], pattern(32), pattern(300)]

    private static func frames(_ message: [[UInt8]]) -> [UInt8] {
        message.enumerated().flatMap { makeFrame($1, more: $0 + 1 < message.count) }
    }

    /// REQ, DEALER and ROUTER; with an identity and without; at once and byte by byte.
    @Test(arguments: [3, 5, 6] as [UInt8], [[0, 0], [0, 3, 65, 66, 67]] as [[UInt8]])
    func areAnswered(socketType: UInt8, identity: [UInt8]) throws {
        for piece in [1, 1000] {
            let rig = try RouterRig("tcp://127.0.0.1:0")
            let client = try rig.connect()
            let bytes = Self.greeting(socketType) + identity + Self.frames(Self.message) + Self.frames([[], [7]])
            for start in stride(from: 0, to: bytes.count, by: piece) {
                client.send(Array(bytes[start..<min(start + piece, bytes.count)]))
                rig.settle()
            }
            // Signature and a version number, then what version 2 knows: the type of a ROUTER, and an empty identity.
            let start = Array(Codec.greeting[..<11]) + [6, 0, 0]
            let answer = start + Self.frames(Self.message) + Self.frames([[], [7]])
            #expect(rig.run { client.unread >= answer.count })
            #expect(client.incoming == answer)
            #expect(rig.takeArrivals().map(\.frames) == [Self.message, [[], [7]]])
            #expect(rig.router.violations == 0 && rig.router.audit() == [])
        }
    }

    /// libzmq takes the same bytes for a client of ZMTP 2.0, and answers with the same.
    @Test func libzmqAgrees() throws {
        let context = try Context(ioThreads: 1)
        let router = try Socket(.router, in: context)
        try router.bind("tcp://127.0.0.1:*")
        let client = try RawClient(connectedTo: router.lastEndpoint)
        client.send(Self.greeting(3) + [0, 0] + Self.frames(Self.message))
        let frame = Frame()
        func waits(_ condition: () -> Bool) -> Bool {
            for _ in 0..<20_000 {
                if condition() { return true }
                usleep(1000)
            }
            return false
        }
        for number in 0..<4 {
            #expect(waits { router.receive(frame) })
            #expect(number == 0 || [UInt8](frame.bytes) == Self.message[number - 1])
            let more = frame.hasMore
            #expect(router.send(frame, more: more) == .sent)
        }
        let answer = [6, 0, 0] + Self.frames(Self.message)
        #expect(waits { client.exchange() && client.unread >= 11 + answer.count || client.unread >= 11 + answer.count })
        #expect(Array(client.incoming[11...]) == answer)
    }
}
