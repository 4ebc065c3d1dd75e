import Foundation
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// What a router does with those that hold something and say nothing: places of the table, memory, time.
@Suite struct RouterSilenceTests {
    private static func limits(
        silence: Int = .max, message: Int = .max, held: Int = .max, connections: Int = .max
    ) -> Router.Limits {
        Router.Limits(
            largestMessage: 1 << 20, mostQueued: 16 << 20, mostQueuedTogether: 64 << 20, mostHeldTogether: held,
            handshakeTime: 5_000_000, messageSeconds: message, silenceSeconds: silence, mostConnections: connections)
    }

    /// Lets sweeps pass, and clients exchange what there is between them.
    private func pass(_ sweeps: Int, _ rig: RouterRig) {
        for _ in 0..<sweeps {
            rig.now = max(rig.now, rig.router.nextDeadline)
            rig.settle()
            _ = rig.run { rig.isAtRest }
        }
    }

    private static func greeting(minor: UInt8) -> [UInt8] {
        var bytes = Codec.greeting
        bytes[11] = minor
        return bytes
    }

    private func open(_ rig: RouterRig, minor: UInt8) throws -> RawClient {
        let client = try rig.connect()
        client.send(Self.greeting(minor: minor) + Codec.ready("REQ"))
        try #require(rig.run { client.hasHandshake })
        return client
    }

    // MARK: Heartbeats

    @Test func whoSaysNothingIsAskedAndDropped() throws {
        let rig = try RouterRig(limits: Self.limits(silence: 6))
        let client = try open(rig, minor: 1)
        pass(6, rig)
        #expect(rig.run { client.unread > 0 })
        for _ in 0..<3 {
            let frame = try #require(client.nextFrame())
            #expect(frame.isCommand && frame.content == [4] + Array("PING".utf8) + [0, 0])
        }
        #expect(client.nextFrame() == nil && rig.router.connectionCount == 1)
        pass(1, rig)
        #expect(rig.run { client.isClosed })
        #expect(rig.router.silences == 1 && rig.router.violations == 0 && rig.router.audit() == [])
    }

    /// Anything is a sign of life: the PONG, a message, a part of one.
    @Test(arguments: [RouterTests.command("PONG", []), makeFrame([1]), [4]] as [[UInt8]])
    func whoSaysAnythingStays(sign: [UInt8]) throws {
        let rig = try RouterRig(limits: Self.limits(silence: 3))
        let client = try open(rig, minor: 1)
        for byte in sign {
            pass(3, rig)
            client.send([byte])
            #expect(rig.run { client.unsent == 0 && rig.isAtRest })
        }
        #expect(rig.router.connectionCount == 1 && rig.router.silences == 0)
        pass(4, rig)
        #expect(rig.run { client.isClosed } && rig.router.silences == 1)
    }

    /// Who does not know PING is not asked, and not held to an answer.
    @Test func olderPeersAreLeftToTCP() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0", limits: Self.limits(silence: 2))
        let first = try open(rig, minor: 0)
        let second = try rig.connect()
        second.send(OldClientTests.greeting(3) + [0, 0])
        pass(20, rig)
        _ = first.exchange()
        #expect(first.unread == 0 && rig.router.connectionCount == 2 && rig.router.silences == 0)
        #expect(rig.echoes(first, [[1]]))
        // TCP asks them.
        for (option, expected) in [(TCP_KEEPIDLE, 1), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 3), (TCP_USER_TIMEOUT, 2000)] {
            for (_, connection) in rig.router.standing {
                var value: Int32 = 0
                var size = socklen_t(MemoryLayout<Int32>.size)
                #expect(getsockopt(connection.file, Int32(IPPROTO_TCP), option, &value, &size) == 0)
                #expect(value == expected, "option \(option)")
            }
        }
    }

    /// A lane that stood still has heard nobody.
    @Test func aLaneThatStoodStillBlamesNobody() throws {
        let rig = try RouterRig(limits: Self.limits(silence: 5, message: 5))
        let client = try open(rig, minor: 1)
        client.send([1, 3, 65])
        rig.settle()
        rig.now += 3_600_000_000
        client.send([66, 67] + makeFrame([1]))
        rig.settle()
        #expect(rig.takeArrivals().map(\.frames) == [[[65, 66, 67], [1]]])
    }

    /// libzmq answers by itself, whatever its owner does.
    @Test func clientsOfLibzmqStay() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0", limits: Self.limits(silence: 1))
        let client = try ZMQClient(.req, rig.endpoint, in: try Context(ioThreads: 1))
        #expect(rig.run { rig.router.standing.contains { $0.connection.state == .up } })
        let peer = rig.router.standing[0].peer
        let isAsked = rig.router.standing[0].connection.dialect == .zmtp31
        for _ in 0..<6 {
            rig.now = rig.router.nextDeadline
            rig.turn()
            // Its answer, where it knows to give one.
            #expect(rig.run(seconds: isAsked ? 60 : 0) { rig.router.connection(peer)?.silentSweeps == 0 } || !isAsked)
        }
        #expect(client.send([[1]]) && rig.waits(for: client) == [[1]] && rig.router.silences == 0)
    }

    @Test func aTimeToLiveIsHonoured() throws {
        let rig = try RouterRig(limits: Self.limits())
        let client = try open(rig, minor: 0)
        let other = try open(rig, minor: 0)
        // 2.1 seconds; none; the longest there is.
        client.send(RouterTests.command("PING", [0, 21]))
        other.send(RouterTests.command("PING", [0, 0]) + RouterTests.command("PING", [0xFF, 0xFF]))
        #expect(rig.run { client.unread > 0 && other.unread > 10 })
        pass(4, rig)
        #expect(rig.router.connectionCount == 2)
        client.send(makeFrame([1]))
        rig.settle()
        pass(4, rig)
        #expect(rig.router.connectionCount == 2)
        pass(1, rig)
        #expect(rig.run { client.isClosed } && rig.router.connectionCount == 1 && rig.router.silences == 1)
    }

    // MARK: Places

    /// All places are held by idle ones: the one that has asked nothing for longest goes, and never one that waits for
    /// an answer.
    @Test func theLongestIdleMakesPlace() throws {
        let rig = try RouterRig(limits: Self.limits(connections: 4))
        let clients = try (0..<4).map { _ in try rig.open() }
        rig.router.countOutstanding(1, of: clients[0].peer)
        pass(3, rig)
        #expect(rig.echoes(clients[1], [[1]]))
        // A PING is no request.
        clients[2].send(RouterTests.ping([]))
        pass(1, rig)
        #expect(rig.echoes(clients[3], [[1]]))
        pass(1, rig)
        for gone in [clients[2], clients[1]] {
            let next = try rig.open()
            #expect(rig.echoes(next, [[7]]))
            #expect(rig.run { gone.isClosed } && rig.router.connectionCount == 4)
        }
        // Nobody has idled for a second but one that is owed an answer: who comes waits, and wakes nobody.
        let late = try RawClient(connectedTo: rig.endpoint)
        late.send(Codec.greeting + Codec.ready("REQ") + makeFrame([9]))
        rig.settle()
        #expect(rig.router.evictions == 2 && rig.router.connectionCount == 4 && !rig.isReadable)
        rig.router.countOutstanding(-1, of: clients[0].peer)
        pass(1, rig)
        #expect(rig.run { clients[0].isClosed } && rig.run { rig.arrivals.last?.frames == [[9]] })
        #expect(rig.router.evictions == 3 && rig.router.violations == 0 && rig.router.audit() == [])
    }

    @Test func whoShakesHandsGoesFirst() throws {
        let rig = try RouterRig(limits: Self.limits(connections: 3))
        let idle = try rig.open()
        pass(3, rig)
        let slow = try (0..<2).map { _ in
            rig.now += 1000
            return try rig.connect()
        }
        rig.now += 90_000
        // Quick enough: the idle one goes in their place.
        let first = try rig.open()
        #expect(rig.run { idle.isClosed } && rig.router.evictions == 1)
        rig.now += 100_000
        let second = try rig.open()
        #expect(rig.run { slow[0].isClosed } && !slow[1].isClosed)
        _ = try rig.open()
        #expect(rig.run { slow[1].isClosed })
        #expect(rig.echoes(first, [[1]]) && rig.echoes(second, [[1]]) && rig.router.audit() == [])
    }

    /// A crowd holds all places and comes again at once when it is sent away: others are served.
    @Test func aCrowdKeepsNobodyOut() throws {
        let rig = try RouterRig(limits: Self.limits(connections: 50))
        var crowd = try (0..<50).map { _ in try rig.open() }
        for _ in 0..<20 {
            pass(2, rig)
            let honest = try rig.open()
            #expect(rig.echoes(honest, [[], [1]]))
            crowd = try crowd.map { client in
                guard client.isClosed else { return client }
                let again = try RawClient(connectedTo: rig.endpoint)
                again.send(Codec.greeting + Codec.ready("REQ"))
                return again
            }
            rig.close(honest)
        }
        #expect(rig.router.evictions >= 20 && rig.router.audit() == [])
    }

    // MARK: Memory

    @Test func aMessageHasItsTime() throws {
        let rig = try RouterRig(limits: Self.limits(message: 3))
        let slow = try rig.open()
        let steady = try rig.open()
        slow.send([1])
        for round in 0..<4 {
            // One of them ends its messages, each with the beginning of the next.
            steady.send(makeFrame([UInt8(round)]) + [0])
            slow.send(round == 0 ? [100] : [65])
            #expect(rig.run { rig.isAtRest })
            pass(1, rig)
            steady.send([1])
            #expect(rig.run { rig.isAtRest })
            steady.send([66])
            #expect(rig.run { rig.isAtRest })
        }
        #expect(rig.run { slow.isClosed })
        #expect(rig.router.violations == 1 && rig.router.connectionCount == 1 && rig.router.audit() == [])
        #expect(rig.arrivals.count == 8)
    }

    /// Those are dropped whose unfinished messages cost most: the small ones of others stay.
    @Test func allTogetherHoldWhatTheyMay() throws {
        let rig = try RouterRig(limits: Self.limits(held: 2 << 20))
        let honest = try (0..<4).map { _ in try rig.open() }
        let message = makeFrame(pattern(30_000))
        for client in honest { client.send(Array(message.dropLast(100))) }
        let greedy = try (0..<12).map { _ in try rig.open() }
        for client in greedy {
            client.send(RouterTests.longFrame(pattern(600_000)).dropLast())
            #expect(rig.run { client.unsent == 0 && rig.isAtRest || client.isClosed })
            let held = rig.router.table.reduce(0) { $0 + $1.input.count }
            #expect(held <= 2 << 20 && rig.router.audit() == [])
        }
        #expect(rig.run { greedy.count(where: \.isClosed) == 9 } && rig.router.violations == 9)
        for client in honest { client.send(Array(message.suffix(100))) }
        for client in honest { #expect(rig.run { client.nextMessage() == [pattern(30_000)] }) }
    }

    /// Of two that hold the same, the one that has held it for longer.
    @Test func ageCounts() throws {
        let rig = try RouterRig(limits: Self.limits(held: 1 << 20))
        let old = try rig.open()
        old.send(RouterTests.longFrame(pattern(400_000)).dropLast())
        #expect(rig.run { old.unsent == 0 && rig.isAtRest })
        pass(2, rig)
        let fresh = try rig.open()
        let content = pattern(900_000)
        #expect(rig.echoes(fresh, [content]))
        #expect(rig.run { old.isClosed } && rig.router.violations == 1 && rig.router.audit() == [])
    }

    /// More clients send slowly than there is room for: those that began first come to their end, and are not dropped
    /// just before it, one after the other.
    @Test func slowUploadsComeToTheirEnd() throws {
        let rig = try RouterRig(limits: Self.limits(held: 1 << 20))
        rig.answers = false
        let frame = makeFrame(pattern(200_000))
        let clients = try (0..<30).map { _ in try rig.open() }
        for second in 0..<20 {
            for (index, client) in clients.enumerated() {
                let part = second - index / 3
                guard (0..<10).contains(part), !client.isClosed else { continue }
                let (from, to) = (frame.count * part / 10, frame.count * (part + 1) / 10)
                client.send(Array(frame[from..<to]))
                #expect(rig.run { client.unsent == 0 && rig.isAtRest || client.isClosed })
            }
            pass(1, rig)
        }
        #expect(rig.arrivals.count >= 5 && rig.router.violations > 0 && rig.router.audit() == [])
    }

    /// However much all send, a turn ends, and the next goes on.
    @Test func aTurnHasItsEnd() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0", limits: Self.limits())
        rig.answers = false
        let clients = try (0..<64).map { _ in try rig.open() }
        let part = RouterTests.longFrame(pattern(500_000)).dropLast()
        // Turns by hand: none of them ends a message.
        for client in clients { client.send(Array(part)) }
        var wasCut = false
        for _ in 0..<10_000 {
            let before = rig.router.table.reduce(0) { $0 + $1.input.count }
            rig.router.look(now: rig.now)
            #expect(rig.router.receive(now: rig.now) == nil)
            let after = rig.router.table.reduce(0) { $0 + $1.input.count }
            #expect(after - before <= (4 << 20) + (1 << 20))
            if rig.router.hasMore { wasCut = true }
            rig.router.flush()
            for client in clients { _ = client.exchange() }
            if after == 64 * part.count { break }
        }
        #expect(wasCut && rig.run { clients.allSatisfy { $0.unsent == 0 } && rig.isAtRest })
        for client in clients { client.send([7]) }
        #expect(rig.run { rig.arrivals.count == 64 } && rig.router.audit() == [])
    }

    /// A large frame in pieces of a byte, and a message of nothing but heads of frames, cost what their bytes do.
    @Test func piecesAreNotLookedAtAgain() throws {
        let rig = try RouterRig("ipc://@", limits: Self.limits())
        rig.answers = false
        let client = try rig.open()
        let message = RouterTests.longFrame(pattern(400_000))
        client.send(Array(message.dropLast(40_000)))
        #expect(rig.run { client.unsent == 0 && rig.isAtRest })
        var time = ContinuousClock.now
        for byte in message.suffix(40_000) {
            client.send([byte])
            rig.turn()
        }
        // To look at all of it again for each byte would be 16 billion.
        #expect(rig.run { rig.takeArrivals().count == 1 } && ContinuousClock.now - time < .seconds(30))
        time = .now
        client.send([[UInt8]](repeating: [1, 0], count: 500_000).flatMap { $0 } + [0, 0])
        #expect(rig.run { rig.arrivals.count == 1 } && ContinuousClock.now - time < .seconds(30))
        #expect(rig.arrivals[0].frames.count == 500_001)
    }
}
