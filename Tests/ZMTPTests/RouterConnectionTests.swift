import Foundation
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// What a router does with connections that come and go.
@Suite struct RouterConnectionTests {
    // MARK: Handles

    @Test func aClosedPeerIsGoneForGood() throws {
        let rig = try RouterRig()
        let first = try rig.open()
        #expect(rig.echoes(first, [[1]]))
        // Before the router knows, and after.
        rig.close(first)
        #expect(rig.send([2], to: first.peer))
        rig.router.flush()
        #expect(rig.run { rig.router.connectionCount == 0 })
        #expect(!rig.send([3], to: first.peer))
        // The same place of the table, another name.
        var names: Set<Peer> = [first.peer]
        for round in 0..<20 {
            let next = try rig.open()
            #expect(next.peer & 0xFFFF_FFFF == first.peer & 0xFFFF_FFFF && names.insert(next.peer).inserted)
            #expect(!rig.send([4], to: first.peer))
            #expect(rig.echoes(next, [[5, UInt8(round)]]) && next.unread == 0)
            rig.close(next, reset: round % 2 == 0)
            #expect(rig.run { rig.router.connectionCount == 0 })
        }
        #expect(rig.router.audit() == [] && rig.router.violations == 0)
    }

    @Test(arguments: [0, 1 << 32, 63, 64, 0xFFFF_FFFF, 1 << 63, Peer.max])
    func handlesThatNeverWere(peer: Peer) throws {
        let rig = try RouterRig()
        let client = try rig.open()
        #expect(peer == client.peer || !rig.send([1], to: peer))
        rig.close(client)
        #expect(rig.run { rig.router.connectionCount == 0 })
        #expect(!rig.send([1], to: peer))
    }

    @Test func nobodyIsSentToBeforeItsHandshake() throws {
        let rig = try RouterRig()
        let client = try rig.connect()
        #expect(!rig.send([1], to: client.peer))
        client.send(Codec.greeting)
        rig.settle()
        #expect(!rig.send([1], to: client.peer))
        client.send(Codec.ready("REQ"))
        rig.settle()
        #expect(rig.send([1], to: client.peer))
        #expect(rig.run { client.hasHandshake })
        #expect(rig.run { client.nextMessage() == [[1]] })
    }

    // MARK: Ends at all times

    /// A peer is found dead, by `flush` or by `reserve`, while its own messages are being worked on: they count.
    @Test(arguments: [false, true], [false, true])
    func theConnectionInHandEnds(isQueued: Bool, byReserve: Bool) throws {
        let rig = try RouterRig(
            limits: .init(largestMessage: 1 << 20, mostQueued: 100, mostQueuedTogether: 0, handshakeTime: 5_000_000))
        let client = try rig.open()
        let other = try rig.open()
        if isQueued {
            client.send([1])
            rig.settle()
            client.send([1, 65])
        } else {
            client.send(makeFrame([65], more: true))
        }
        client.send(makeFrame(pattern(500)) + makeFrame([2]) + makeFrame([3]))
        rig.close(client)
        rig.router.look(now: rig.now)
        var message = try #require(rig.router.receive(now: rig.now))
        #expect(message.peer == client.peer && rig.router.hasMore)
        #expect(message.nextFrame().map { Array($0) } == [65])
        #expect(message.nextFrame().map { Array($0) } == pattern(500))
        #expect(message.nextFrame() == nil)
        #expect(rig.send([4], to: client.peer))
        if byReserve { #expect(!rig.send(pattern(100), to: client.peer)) } else { rig.router.flush() }
        // What it said before it went is still heard, and then it is gone. It is told nothing more.
        #expect(rig.router.connectionCount == 2 && rig.router.hasMore && rig.router.audit() == [])
        #expect(!rig.send([4], to: client.peer))
        for content in [[2], [3]] as [[UInt8]] {
            message = try #require(rig.router.receive(now: rig.now))
            #expect(message.nextFrame().map { Array($0) } == content)
        }
        #expect(rig.router.receive(now: rig.now) == nil)
        #expect(rig.run { rig.router.connectionCount == 1 } && rig.router.audit() == [])
        #expect(rig.echoes(other, [[5]]))
    }

    /// Several have news in one look; the first message makes `flush` find the others dead, whose last words are heard.
    @Test func lastWordsOfManyAreHeard() throws {
        let rig = try RouterRig()
        rig.answers = false
        let clients = try (0..<6).map { _ in try rig.open() }
        let peers = clients.map(\.peer)
        for (index, client) in clients.enumerated() {
            client.send(makeFrame([UInt8(index)]))
            if index > 0 { rig.close(client, reset: true) }
        }
        // One more waits to be accepted, with its first words.
        let next = try RawClient(connectedTo: rig.endpoint)
        next.send(Codec.greeting + Codec.ready("DEALER") + makeFrame([77]))
        rig.router.look(now: rig.now)
        let first = try #require(rig.router.receive(now: rig.now))
        for peer in peers where peer != first.peer { #expect(rig.send([0], to: peer)) }
        rig.router.flush()
        #expect(rig.router.connectionCount == 6 && rig.router.audit() == [])
        rig.settle()
        #expect(Set(rig.arrivals.map(\.peer)).isSuperset(of: Set(peers).subtracting([first.peer])))
        #expect(rig.arrivals.count == 6 && rig.run { rig.router.connectionCount == 2 })
        let newcomer = try #require(rig.arrivals.first { $0.frames == [[77]] }).peer
        #expect(!peers.contains(newcomer) && rig.send([78], to: newcomer))
        rig.router.flush()
        #expect(rig.run { next.exchange() || next.unread > 64 })
        #expect(next.hasHandshake && next.nextMessage() == [[78]])
        #expect(rig.router.violations == 0 && rig.router.audit() == [])
    }

    /// Closed with something to send, its place taken again before `flush`, many times over: the newcomer's bytes
    /// leave, and only they.
    @Test func aPlaceOnTheListOfTheDirtyIsTaken() throws {
        let rig = try RouterRig()
        let first = try rig.open()
        #expect(rig.send([1], to: first.peer))
        first.send([0xFF, 0])  // a breach
        var last = first
        for round in 0..<200 {
            let next = try RawClient(connectedTo: rig.endpoint)
            if round < 199 { next.send([0]) }
            // No flush on the way.
            while rig.router.violations <= round || rig.router.connectionCount != 1, rig.isReadable {
                rig.router.look(now: rig.now)
                while rig.router.receive(now: rig.now) != nil {}
                if round < 199, rig.router.violations == round + 2 { break }
            }
            #expect(rig.router.audit() == [])
            last.close()
            last = next
        }
        #expect(rig.run { rig.router.connectionCount == 1 })
        last.send(Codec.greeting + Codec.ready("DEALER") + makeFrame([2]))
        #expect(
            rig.run {
                _ = last.exchange()
                return last.hasHandshake
            })
        #expect(
            rig.run {
                _ = last.exchange()
                return last.nextMessage() == [[2]]
            })
        #expect(last.unread == 0 && rig.router.violations == 200 && rig.router.audit() == [])
    }

    /// Half of a handshake, of a message, of a large frame: what was held for it is given back.
    @Test(arguments: [0, 10, 64, 80, 100, 5000])
    func endsAnywhere(at count: Int) throws {
        let rig = try RouterRig()
        let bytes = Codec.greeting + Codec.ready("REQ") + makeFrame([], more: true) + makeFrame(pattern(200_000))
        for reset in [false, true] {
            let client = try rig.connect()
            client.send(Array(bytes[..<count]))
            rig.settle()
            rig.close(client, reset: reset)
            #expect(rig.run { rig.router.connectionCount == 0 })
            #expect(rig.arrivals.isEmpty && rig.router.violations == 0 && rig.router.audit() == [])
        }
    }

    /// Blocked, with bytes waiting: the end and room in the kernel are one event.
    @Test(arguments: ["tcp://127.0.0.1:0", "ipc://@"], [false, true])
    func endsWhileBlocked(place: String, reset: Bool) throws {
        let rig = try RouterRig(place)
        let client = try rig.open(receiveBuffer: 8192)
        client.reads = false
        #expect(rig.send(pattern(12 << 20), to: client.peer))
        rig.router.flush()
        #expect(rig.router.connection(client.peer)?.isBlocked == true)
        rig.settle()
        rig.close(client, reset: reset)
        #expect(rig.run { rig.router.connectionCount == 0 })
        #expect(rig.router.audit() == [] && !rig.isReadable)
    }

    @Test func manyComeAndGo() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0")
        var draws = Draws(seed: 300)
        var clients: [RawClient] = []
        func talk(_ number: Int) {
            let client = clients[draws.below(clients.count)]
            #expect(rig.echoes(client, [[], pattern(number % 400, seed: number)]))
        }
        for number in 0..<300 {
            clients.append(try rig.open(["REQ", "DEALER", "ROUTER"][number % 3]))
            talk(number)
        }
        #expect(rig.router.connectionCount == 300 && Set(clients.map(\.peer)).count == 300)
        #expect(rig.router.table.count == 512 && rig.router.audit() == [])
        // All at once, with replies that must find their way.
        for (index, client) in clients.enumerated() { client.send(message: [[], pattern(100, seed: index)]) }
        var echoed: Set<Int> = []
        let isDone = rig.run {
            for (index, client) in clients.enumerated() where client.nextMessage() == [[], pattern(100, seed: index)] {
                echoed.insert(index)
            }
            return echoed.count == 300
        }
        #expect(isDone)
        for number in 0..<200 {
            rig.close(clients.remove(at: draws.below(clients.count)), reset: number % 2 == 0)
            if number % 3 == 0 { clients.append(try rig.open()) }
            talk(number)
        }
        while !clients.isEmpty { rig.close(clients.remove(at: draws.below(clients.count))) }
        #expect(rig.run { rig.router.connectionCount == 0 })
        #expect(rig.router.audit() == [] && rig.router.violations == 0)
    }

    /// The table grows while there is something to send to those in it.
    @Test func theTableGrowsBetweenFlushes() throws {
        let rig = try RouterRig()
        let clients = try (0..<60).map { _ in try rig.open() }
        #expect(rig.router.table.count == 64)
        for (index, client) in clients.enumerated() { #expect(rig.send([UInt8(index)], to: client.peer)) }
        let more = try (0..<10).map { _ in try RawClient(connectedTo: rig.endpoint) }
        rig.router.look(now: rig.now)
        while rig.router.receive(now: rig.now) != nil {}
        #expect(rig.router.table.count == 128 && rig.router.connectionCount == 70 && rig.router.audit() == [])
        var heard: Set<Int> = []
        let isDone = rig.run {
            for (index, client) in clients.enumerated() where client.nextMessage() == [[UInt8(index)]] {
                heard.insert(index)
            }
            return heard.count == 60
        }
        #expect(isDone)
        for client in more {
            client.send(Codec.greeting + Codec.ready("REQ"))
            #expect(
                rig.run {
                    _ = client.exchange()
                    return client.hasHandshake
                })
        }
        #expect(rig.router.audit() == [])
    }

    // MARK: At rest

    /// Large ones go at once: many clients that send a large message now and then would add up.
    @Test func idleConnectionsKeepNoBuffers() throws {
        let rig = try RouterRig()
        let idle = try rig.open()
        let waiting = try rig.open()
        let small = try rig.open()
        let medium = try rig.open()
        let content = pattern(200_000)
        let message = makeFrame(content)
        for client in [idle, waiting] {
            client.send(Array(message[..<150_000]))
            #expect(rig.run { client.unsent == 0 && rig.isAtRest })
        }
        idle.send(Array(message[150_000...]))
        #expect(rig.run { idle.nextMessage() == [content] })
        #expect(rig.echoes(small, [pattern(500)]))
        func buffers(_ client: RawClient) -> [Int] {
            let connection = rig.router.connection(client.peer)
            return [connection?.input.capacity ?? -1, connection?.output.capacity ?? -1]
        }
        #expect(buffers(idle) == [0, 0])
        let kept = buffers(small)
        #expect(kept.allSatisfy { $0 <= 4096 })
        #expect(rig.echoes(medium, [pattern(30_000)]))
        #expect(buffers(medium)[1] >= 30_000)
        // In use within the second before the first look; not before the second.
        rig.now = rig.router.nextDeadline
        rig.settle()
        #expect(buffers(medium)[1] >= 30_000)
        rig.now = rig.router.nextDeadline
        rig.settle()
        #expect(buffers(medium) == [0, 0] && buffers(small) == kept)
        #expect(rig.router.connection(waiting.peer)?.input.count == 150_000)
        waiting.send(Array(message[150_000...]))
        #expect(rig.run { waiting.nextMessage() == [content] })
        #expect(rig.echoes(idle, [content]) && rig.router.audit() == [])
    }

    /// Nothing wakes a lane while nobody says anything.
    @Test func wakesForNothingAtRest() throws {
        let rig = try RouterRig("tcp://127.0.0.1:0")
        #expect(!rig.isReadable && rig.router.nextDeadline == .max)
        let clients = [try rig.connect(), try rig.open(), try rig.open()]
        #expect(rig.echoes(clients[1], [[1]]))
        clients[2].send([3, 0])
        rig.settle()
        #expect(!rig.isReadable && !rig.router.hasMore && rig.router.nextDeadline > rig.now)
    }

    /// What stays in the kernel after a look is news again.
    @Test func nothingIsForgottenBetweenLooks() throws {
        let rig = try RouterRig()
        let clients = try (0..<100).map { _ in try rig.open() }
        for client in clients { client.send(makeFrame([1]) + makeFrame([2])) }
        rig.router.look(now: rig.now)
        #expect(rig.router.receive(now: rig.now) != nil && rig.router.hasMore)
        // Looks while there is more to work on change nothing.
        rig.router.look(now: rig.now)
        var count = 1
        while rig.router.receive(now: rig.now) != nil { count += 1 }
        #expect(count == 200 && !rig.isReadable)
        // More than is received at once.
        #expect(rig.echoes(clients[0], [[], pattern(1 << 20)]))
    }

    // MARK: Listening

    @Test func aFreePort() throws {
        let first = try Router(listeningAt: "tcp://127.0.0.1:0", limits: RouterRig.limits)
        let second = try Router(listeningAt: "tcp://127.0.0.1:*", limits: RouterRig.limits)
        #expect(first.port > 0 && second.port > 0 && first.port != second.port)
    }

    @Test func aPlaceThatIsTaken() throws {
        let first = try Router(listeningAt: "tcp://127.0.0.1:0", limits: RouterRig.limits)
        let endpoint = "tcp://127.0.0.1:\(first.port)"
        let error = #expect(throws: SocketError.self) { try Router(listeningAt: endpoint, limits: RouterRig.limits) }
        #expect(error?.description == "bind \(endpoint): Address already in use" && error?.code == EADDRINUSE)
        // An abstract name, too, and a path.
        for name in ["ipc://@\(freshPath())", "ipc://\(freshPath())"] {
            let rig = try RouterRig(name)
            let error = #expect(throws: SocketError.self) { try Router(listeningAt: name, limits: RouterRig.limits) }
            #expect(error?.description == "bind \(name): Address already in use" && error?.code == EADDRINUSE)
            // Who listens there keeps it.
            #expect(rig.echoes(try rig.open(), [[1]]))
        }
        withExtendedLifetime(first) {}
    }

    /// A path that nobody listens at any more, as one has left that was killed.
    @Test func aPathThatWasLeft() throws {
        let endpoint = "ipc://\(freshPath())"
        let address = try SocketAddress(endpoint, passive: true)
        let file = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        #expect(address.withPointer { bind(file, $0, $1) } == 0 && listen(file, 1) == 0 && address.isListenedAt)
        Glibc.close(file)
        #expect(!address.isListenedAt)
        let rig = try RouterRig(endpoint)
        #expect(rig.echoes(try rig.open(), [[1]]) && address.isListenedAt)
    }

    @Test(arguments: ["ipc:///nowhere/at/all", "tcp://192.0.2.1:0", "tcp://no.such.host.invalid:0", "inproc://x"])
    func placesThatAreNone(endpoint: String) {
        let error = #expect(throws: SocketError.self) { try Router(listeningAt: endpoint, limits: RouterRig.limits) }
        #expect(error?.description.contains(endpoint) == true)
    }

    /// At once after a restart, with connections of before still about.
    @Test func thePlaceIsFreeAgainAtOnce() throws {
        var rig: RouterRig? = try RouterRig("tcp://127.0.0.1:0")
        let endpoint = "tcp://127.0.0.1:\(rig!.router.port)"
        let client = try rig!.open()
        // Closed by the router first: its side waits.
        client.send([0xFF, 0])
        #expect(rig!.run { client.isClosed })
        rig = nil
        _ = try Router(listeningAt: endpoint, limits: RouterRig.limits)
    }
}
