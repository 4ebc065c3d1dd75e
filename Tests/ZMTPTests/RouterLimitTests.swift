import Foundation
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// What a router does at its limits.
@Suite struct RouterLimitTests {
    private static func limits(
        largestMessage: Int = 10_000, mostQueued: Int = 16 << 20, mostQueuedTogether: Int = 64 << 20, share: Int = 0
    ) -> Router.Limits {
        Router.Limits(
            largestMessage: largestMessage, mostQueued: mostQueued, mostQueuedTogether: mostQueuedTogether,
            share: share, handshakeTime: 5_000_000)
    }

    // MARK: Large messages

    /// The longest content of one frame that a message may have beside a delimiter.
    private static let longest = 10_000 - Codec.longHead - Codec.shortHead

    @Test(arguments: [1, 64, 4096, 1 << 20])
    func theLargestMessagePasses(piece: Int) throws {
        let rig = try RouterRig(limits: Self.limits())
        let client = try rig.open()
        let message = [[], pattern(Self.longest)]
        let bytes = makeFrame([], more: true) + makeFrame(message[1])
        #expect(bytes.count == 10_000)
        for _ in 0..<2 {
            for start in stride(from: 0, to: bytes.count, by: piece) {
                client.send(Array(bytes[start..<min(start + piece, bytes.count)]))
                rig.settle()
            }
            #expect(rig.run { client.nextMessage() == message })
        }
        #expect(rig.router.violations == 0)
    }

    /// Dropped at the head of the frame, before its content comes.
    @Test func aFrameThatIsTooLargeIsNotWaitedFor() throws {
        for (count, before) in [(10_001, []), (1 << 40, []), (10_001, makeFrame([], more: true))] {
            let rig = try RouterRig(limits: Self.limits())
            let client = try rig.open()
            let head =
                RouterTests.longFrame([])[..<1]
                + (0..<8).reversed().map { UInt8(truncatingIfNeeded: count >> (8 * $0)) }
            client.send(before + head)
            #expect(rig.run { client.isClosed })
            #expect(rig.router.violations == 1 && rig.arrivals.isEmpty && rig.router.audit() == [])
        }
    }

    @Test(arguments: [1000, 1 << 20])
    func framesThatAddUpToTooMuch(piece: Int) throws {
        let endings =
            [makeFrame(pattern(2992)), makeFrame(pattern(2992), more: true), makeFrame(pattern(9000))]
            + [Array(makeFrame(pattern(9000))[..<3100])]  // dropped before it is whole
        for end in endings {
            let rig = try RouterRig(limits: Self.limits())
            let client = try rig.open()
            let bytes = makeFrame([1]) + makeFrame(pattern(7000 - 9), more: true) + end
            for start in stride(from: 0, to: bytes.count, by: piece) {
                client.send(Array(bytes[start..<min(start + piece, bytes.count)]))
                rig.settle()
            }
            #expect(rig.run { client.isClosed })
            #expect(rig.router.violations == 1 && rig.takeArrivals().map(\.frames) == [[[1]]])
            #expect(rig.router.audit() == [])
        }
    }

    /// Nothing is held for a peer beyond its message so far and what one receive brings.
    @Test func memoryGrowsWithWhatArrives() throws {
        let rig = try RouterRig()
        let client = try rig.open()
        // Announced: all that the limits allow.
        client.send([2, 0, 0, 0, 0, 0, 0x7F, 0, 0])
        for _ in 0..<3 {
            client.send(pattern(1000))
            rig.settle()
        }
        let input = try #require(rig.router.connection(client.peer)?.input)
        #expect(input.count == 3009 && input.capacity < 64 << 10)
    }

    @Test(arguments: [1000, 50_000])
    func framesOfAMessage(count: Int) throws {
        let rig = try RouterRig()
        let client = try rig.open()
        let message = (0..<count).map { [UInt8](repeating: UInt8($0 % 251), count: $0 % 3) }
        client.send(message.enumerated().flatMap { makeFrame($1, more: $0 + 1 < count) })
        #expect(rig.run { client.nextMessage() == message })
    }

    /// Bytes are walked over once, and not moved for each command among them, nor for each piece that they come in: who
    /// sends many small things would hold up all others.
    @Test(arguments: [false, true], [[4, 0], [1, 0]])
    func bytesCostTheSameWhateverTheyAre(areInAMessage: Bool, thing: [UInt8]) throws {
        let rig = try RouterRig("tcp://127.0.0.1:0", limits: Self.limits(largestMessage: 8 << 20))
        let things = [[UInt8]](repeating: thing, count: 200_000).flatMap { $0 }
        func cost(piece: Int) throws -> Duration {
            let client = try rig.open()
            if areInAMessage { client.send(makeFrame(pattern(1 << 20), more: true)) }
            #expect(rig.run { client.unsent == 0 && rig.isAtRest })
            let started = Self.processorTime
            for start in stride(from: 0, to: things.count, by: piece) {
                client.send(Array(things[start..<min(start + piece, things.count)]))
                rig.settle()
            }
            #expect(rig.run { client.unsent == 0 && rig.isAtRest })
            return Self.processorTime - started
        }
        let pieces = try cost(piece: 2000)
        let whole = try cost(piece: things.count)
        #expect(whole < pieces * 2 + .milliseconds(20) && pieces < whole * 4 + .milliseconds(40))
        #expect(rig.router.violations == 0)
    }

    /// Of this thread.
    private static var processorTime: Duration {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }

    // MARK: Handshakes

    @Test func aHandshakeHasItsTime() throws {
        let rig = try RouterRig()
        let standing = try rig.open()
        let starts = [[], Array(Codec.greeting[..<30]), Codec.greeting, Codec.greeting + [4]]
        let slow = try starts.map { start in
            let client = try rig.connect()
            client.send(start)
            return client
        }
        rig.settle()
        rig.now += 4_999_999
        rig.settle()
        #expect(rig.router.connectionCount == 5 && rig.router.nextDeadline > rig.now)
        // Looked for once a second.
        rig.now = rig.router.nextDeadline
        #expect(rig.now <= 1_000_000 + 6_000_000)
        #expect(rig.run { slow.allSatisfy(\.isClosed) })
        #expect(rig.router.connectionCount == 1 && rig.router.violations == 4)
        #expect(rig.echoes(standing, [[1]]) && rig.router.audit() == [])
        rig.close(standing)
        #expect(rig.run { rig.router.connectionCount == 0 })
        rig.now += 2_000_000
        rig.settle()
        #expect(rig.router.nextDeadline == .max)
    }

    // MARK: Peers that do not read

    /// Queues messages for the peer, flushing each, until one is refused; how many were not.
    private func fill(_ client: RawClient, _ rig: RouterRig, size: Int, at first: Int = 0) -> Int {
        var count = first
        while count < 100_000, rig.send(pattern(size, seed: count), to: client.peer) {
            rig.router.flush()
            count += 1
        }
        return count - first
    }

    @Test(arguments: ["tcp://127.0.0.1:0", "ipc://@"])
    func aSlowReaderLosesItsOwn(endpoint: String) throws {
        let most = 100_000
        let rig = try RouterRig(endpoint, limits: Self.limits(mostQueued: most))
        let slow = try rig.open(receiveBuffer: 8192)
        let other = try rig.open()
        slow.reads = false
        rig.settle()
        let size = 1000 - Codec.longHead
        let count = fill(slow, rig, size: size)
        #expect(count > 100 && count < 100_000)
        let queue = try #require(rig.router.connection(slow.peer))
        let room = most - queue.output.count
        #expect(queue.isBlocked && room >= 0 && room < 1000)
        // To the byte.
        #expect(rig.router.reserve(room + 1, for: slow.peer) == nil)
        let last: [UInt8]? = room < 300 ? nil : pattern(room - Codec.longHead, seed: 1)
        if let last { #expect(rig.send(last, to: slow.peer)) }
        #expect(rig.router.audit() == [])
        // Nobody wakes for it, and others notice nothing.
        rig.settle()
        #expect(!rig.isReadable)
        #expect(rig.echoes(other, [[], pattern(9000)]))
        // It is still heard; what it would be answered is lost.
        slow.send(message: [[1], pattern(200)])
        #expect(rig.run { rig.arrivals.last?.frames == [[1], pattern(200)] } && rig.refused == 1)

        slow.reads = true
        var received = 0
        let expected = (0..<count).map { pattern(size, seed: $0) } + (last.map { [$0] } ?? [])
        #expect(
            rig.run {
                while received < expected.count, let message = slow.nextMessage() {
                    if message != [expected[received]] { return true }
                    received += 1
                }
                return received == expected.count
            })
        #expect(received == expected.count)
        #expect(rig.run { rig.router.connection(slow.peer)?.output.isEmpty == true })
        rig.settle()
        #expect(!rig.isReadable && rig.router.connection(slow.peer)?.isBlocked == false)
        #expect(rig.echoes(slow, [[], pattern(3000)]))
        #expect(rig.router.audit() == [])
    }

    @Test func anEmptyQueueTakesAny() throws {
        let rig = try RouterRig(limits: Self.limits(largestMessage: 8 << 20, mostQueued: 1000, mostQueuedTogether: 0))
        let client = try rig.open()
        let large = pattern(4 << 20)
        #expect(rig.echoes(client, [[], large]))
        client.reads = false
        #expect(rig.send(large, to: client.peer))
        #expect(!rig.send([1], to: client.peer))
        client.reads = true
        #expect(rig.run { client.nextMessage() == [large] })
        #expect(rig.refused == 0 && rig.router.audit() == [])
    }

    /// Who has no chance to read, since nothing is flushed meanwhile, is not slow.
    @Test func aLongTurnMakesNobodySlow() throws {
        let rig = try RouterRig(limits: Self.limits(mostQueued: 10_000))
        let client = try rig.open()
        for number in 0..<100 { #expect(rig.send(pattern(990, seed: number), to: client.peer)) }
        #expect(rig.router.connection(client.peer).map { $0.output.count <= 10_000 } == true)
        var received = 0
        #expect(
            rig.run {
                while let message = client.nextMessage() {
                    if message != [pattern(990, seed: received)] { return true }
                    received += 1
                }
                return received == 100
            })
        #expect(received == 100 && rig.router.audit() == [])
    }

    @Test(arguments: [0, 20_000])
    func togetherTheyHoldNoMoreThanIsAllowed(share: Int) throws {
        let most = 400_000
        let rig = try RouterRig(limits: Self.limits(mostQueued: 300_000, mostQueuedTogether: most, share: share))
        let slow = try (0..<4).map { _ in try rig.open() }
        let other = try rig.open()
        for client in slow { client.reads = false }
        let counts = slow.map { fill($0, rig, size: 991) }
        let queues = slow.map { rig.router.connection($0.peer)!.output.count }
        #expect(queues[0] > 299_000 && queues[0] <= 300_000)
        #expect(queues[0] + queues[1] > most - 1000 && queues[0] + queues[1] <= most)
        // Each has its share, and at least what made it block.
        for queue in queues[2...] { #expect(queue > share - 1000 && queue > 0 && queue <= max(share, 1000)) }
        #expect(rig.echoes(other, [pattern(9000)]))
        slow[0].reads = true
        var received = 0
        #expect(
            rig.run {
                while slow[0].nextMessage() != nil { received += 1 }
                return received == counts[0]
            })
        #expect(fill(slow[3], rig, size: 991) > 200)
        for client in slow { rig.close(client) }
        #expect(rig.run { rig.router.connectionCount == 1 } && rig.router.audit() == [])
    }

    /// What waits for a peer that does not read is not given up with the buffers of idle connections.
    @Test func whatWaitsStaysHoweverLong() throws {
        let rig = try RouterRig()
        let client = try rig.open()
        client.reads = false
        let large = pattern(2 << 20)
        #expect(rig.send(large, to: client.peer))
        rig.router.flush()
        #expect(rig.router.connection(client.peer)?.isBlocked == true)
        for _ in 0..<4 {
            rig.now = rig.router.nextDeadline
            rig.settle()
        }
        #expect(rig.router.audit() == [])
        client.reads = true
        #expect(rig.run { client.nextMessage() == [large] })
    }

    /// Many PINGs at once, from a peer that reads: beyond what may be queued for it, they are not answered.
    @Test func moreThanCanBeAnsweredAtOnce() throws {
        let rig = try RouterRig(limits: Self.limits(mostQueued: 5000))
        let client = try rig.open()
        let ping = RouterTests.ping(pattern(16))
        client.send([[UInt8]](repeating: ping, count: 3000).flatMap { $0 })
        #expect(rig.run { client.unsent == 0 && rig.isAtRest })
        #expect(rig.run { rig.router.connection(client.peer)?.output.isEmpty == true && !client.exchange() })
        var pongs = 0
        while let frame = client.nextFrame() { pongs += frame.isCommand ? 1 : 0 }
        #expect(pongs > 100 && pongs < 1500)
        #expect(rig.echoes(client, [[1]]))
    }

    /// Answers to PINGs count, too.
    @Test func aPeerThatAsksAndDoesNotRead() throws {
        let rig = try RouterRig(limits: Self.limits(mostQueued: 200_000, mostQueuedTogether: 50_000))
        let clients = try (0..<6).map { _ in try rig.open() }
        let ping = RouterTests.ping(pattern(16))
        let pings = [[UInt8]](repeating: ping, count: 1000).flatMap { $0 }
        for client in clients {
            client.reads = false
            for _ in 0..<40 {
                client.send(pings)
                rig.settle()
            }
        }
        #expect(rig.run { clients.allSatisfy { $0.unsent == 0 } })
        let queues = clients.map { rig.router.connection($0.peer)!.output.count }
        #expect(queues.allSatisfy { $0 > 0 && $0 <= 200_000 + ping.count })
        // Each may have what it was answered before the kernel took no more.
        #expect(queues.reduce(0, +) <= 50_000 + clients.count * pings.count)
        for client in clients {
            client.reads = true
            // All that was queued, and nothing torn.
            #expect(rig.run { rig.router.connection(client.peer)?.output.isEmpty ?? true })
            #expect(rig.run { !client.exchange() })
            while let frame = client.nextFrame() { #expect(frame.isCommand && frame.content.count == 5 + 16) }
            #expect(client.unread == 0 && rig.echoes(client, [[9]]))
        }
        #expect(rig.router.violations == 0 && rig.router.audit() == [])
    }
}
