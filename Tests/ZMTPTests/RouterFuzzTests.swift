import Foundation
import MPaxosMessaging
import Testing

@testable import MPaxosZMTP

/// What a stream of bytes is to a router, read in one go: the yardstick for what it makes of the same in pieces.
private struct Reading {
    enum End {
        /// The connection stands, or waits for more.
        case open
        /// It is dropped.
        case breach
    }

    static let limit = 20_000

    private(set) var messages: [[[UInt8]]] = []
    private(set) var end = End.open

    init(_ bytes: [UInt8]) {
        end = Self.greeting(bytes)
        let size = Self.isOld(bytes) ? 12 : 64
        if end == .open, bytes.count >= size { readFrames(bytes, from: size) }
    }

    private static func isOld(_ bytes: [UInt8]) -> Bool { bytes.count > 10 && bytes[10] == 1 }

    private static func greeting(_ bytes: [UInt8]) -> End {
        let known: [Int: (UInt8) -> Bool] = [0: { $0 == 0xFF }, 9: { $0 == 0x7F }, 10: { $0 >= 3 || $0 == 1 }]
        if known.contains(where: { $0.key < bytes.count && !$0.value(bytes[$0.key]) }) { return .breach }
        if isOld(bytes) { return bytes.count < 12 || [3, 5, 6].contains(bytes[11]) ? .open : .breach }
        return bytes.count < 64 || bytes[12..<17].elementsEqual([0x4E, 0x55, 0x4C, 0x4C, 0]) ? .open : .breach
    }

    private mutating func readFrames(_ bytes: [UInt8], from first: Int) {
        var isUp = false
        var message: [[UInt8]] = []
        // Commands between the frames of a message count as its bytes.
        var start = first
        var at = first
        while true {
            let left = bytes.count - at
            end = bytes.count - start > Self.limit ? .breach : .open
            guard left >= 2 else { return }
            let isLong = bytes[at] & 2 != 0
            let head = isLong ? 9 : 2
            if bytes[at] & 0xF8 != 0 {
                end = .breach
                return
            }
            guard left >= head else { return }
            let length = bytes[(at + 1)..<(at + head)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let isCommand = bytes[at] & 4 != 0
            if length > UInt64(isCommand || !isUp ? 512 : Self.limit) {
                end = .breach
                return
            }
            guard left >= head + Int(length) else { return }
            let content = Array(bytes[(at + head)..<(at + head + Int(length))])
            let hasMore = bytes[at] & 1 != 0
            at += head + Int(length)
            end = .breach
            guard at - start <= Self.limit else { return }
            if isCommand || !isUp {
                guard !hasMore, isCommand != Self.isOld(bytes) else { return }
                if !isUp, isCommand {
                    guard case .ready(let type) = content.withUnsafeBytes({ Codec.readReady($0) }) else { return }
                    guard ["REQ", "DEALER", "ROUTER", nil].contains(type) else { return }
                }
                isUp = true
                if message.isEmpty { start = at }
            } else {
                message.append(content)
                if hasMore { continue }
                messages.append(message)
                message = []
                start = at
            }
        }
    }
}

@Suite struct RouterFuzzTests {
    /// Streams by chance over some connections at once, in pieces, while a client of libzmq goes on getting its echoes.
    @Test func streamsByChance() throws {
        let rounds = ProcessInfo.processInfo.environment["MPAXOS_FUZZ_ROUNDS"].flatMap(Int.init) ?? 1500
        print("router: streams from MPAXOS_SEED=\(Fuzz.seed) on")
        var run = try FuzzRun(seed: Fuzz.seed)
        for round in 0..<rounds {
            try run.step(round)
        }
        try run.finish()
        #expect(run.rig.router.violations == run.breaches)
        // The streams reach what they are to try.
        #expect(run.breaches > rounds / 10 && run.opens > rounds / 10 && run.messages > rounds / 2)
        #expect(run.honestEchoes > rounds / 10)
    }

    @Test func theYardstickReadsWhatIsValid() {
        let stream = RouterTests.stream
        let reading = Reading(stream.bytes)
        #expect(reading.messages == [stream.first, stream.second] && reading.end == .open)
        for index in RouterTests.hostile.indices { #expect(Reading(RouterTests.hostile[index].bytes).end == .breach) }
    }
}

private struct FuzzRun {
    /// A connection on its way through its stream.
    struct Session {
        var round: Int
        var client: RawClient
        var stream: [UInt8]
        var sent = 0
        var arrived: [[[UInt8]]] = []
    }

    let rig: RouterRig
    private(set) var breaches: UInt64 = 0
    private(set) var opens = 0
    private(set) var messages = 0
    private(set) var honestEchoes = 0

    private var random: FuzzRandom
    private var whole: Mutator
    private var behindHandshake: Mutator
    private let inputs: [[UInt8]]
    private let handshake = Codec.greeting + Codec.ready("DEALER")
    private var sessions: [Session] = []
    private let honest: ZMQClient
    private var honestSent = 0
    private let deadline = Date(timeIntervalSinceNow: 120)

    init(seed: UInt64) throws {
        rig = try RouterRig(
            "tcp://127.0.0.1:0",
            limits: Router.Limits(
                largestMessage: Reading.limit, mostQueued: 50_000, mostQueuedTogether: 200_000, handshakeTime: 5_000_000
            ))
        random = FuzzRandom(seed: seed)
        let small = (0..<30).flatMap { number in
            makeFrame([], more: true) + makeFrame(pattern(number * 3, seed: number))
        }
        let large = [9_000, 10_000, 300].map { makeFrame(pattern($0), more: $0 > 300) }.flatMap { $0 }
        let many = (0..<1020).flatMap { makeFrame([UInt8($0 & 1)], more: true) } + makeFrame([]) + makeFrame([1])
        let behind = [small, large, many]
        let handshake = handshake
        let inputs =
            try [
                Self.record(
                    .dealer, [[[], pattern(32), pattern(8)], [[], pattern(32), pattern(700)], [[1], [2], [3]]]),
                Self.record(.req, [[pattern(32), pattern(100)]]), RouterTests.stream.bytes,
                OldClientTests.greeting(5) + [0, 2, 65, 66] + large,
            ] + behind.map { handshake + $0 }
        self.inputs = inputs
        whole = Mutator(seed: random.next(), inputs: inputs)
        behindHandshake = Mutator(
            seed: random.next(),
            inputs: behind + inputs[..<3].map { Array($0[Self.endOfHandshake($0)...]) })
        honest = try ZMQClient(.dealer, rig.endpoint, in: try Context(ioThreads: 1))
        let rig = rig
        try #require(rig.run { rig.router.standing.contains { $0.connection.state == .up } })
    }

    /// What a socket of libzmq sends: its handshake, and these messages.
    private static func record(_ kind: Socket.Kind, _ messages: [[[UInt8]]]) throws -> [UInt8] {
        let endpoint = "ipc://@\(freshPath())"
        let listener = try Listener(at: endpoint, backlog: 1)
        let client = try ZMQClient(kind, endpoint, in: try Context(ioThreads: 1))
        let deadline = Date(timeIntervalSinceNow: 20)
        var file: Int32 = -1
        while file < 0, Date() < deadline {
            if case .connection(let accepted) = listener.accept() { file = accepted } else { usleep(1000) }
        }
        defer { close(file) }
        let answer = Codec.greeting + Codec.ready("ROUTER")
        #expect(send(file, answer, answer.count, 0) == answer.count)
        var bytes: [UInt8] = []
        var queued = 0
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while Reading(bytes).messages.count < messages.count, Date() < deadline {
            if queued < messages.count, client.send(messages[queued]) { queued += 1 }
            let count = recv(file, &buffer, buffer.count, 0)
            if count > 0 { bytes += buffer[..<count] } else { usleep(1000) }
        }
        let expected = kind == .req ? messages.map { [[]] + $0 } : messages
        #expect(Reading(bytes).messages == expected)
        return bytes
    }

    private static func endOfHandshake(_ bytes: [UInt8]) -> Int {
        Codec.greetingSize + 2 + Int(bytes[Codec.greetingSize + 1])
    }

    private mutating func nextStream() -> [UInt8] {
        switch random.below(10) {
        case 0: inputs[random.below(inputs.count)]
        case 1, 2, 3: whole.next(largest: 1 << 20)
        default: handshake + behindHandshake.next(largest: 1 << 20)
        }
    }

    // MARK: Steps

    /// Begins a stream, and takes others further until there is room for the next.
    mutating func step(_ round: Int) throws {
        let client = try rig.connect()
        client.reads = random.below(4) > 0
        sessions.append(Session(round: round, client: client, stream: nextStream()))
        repeat {
            try advance(random.below(sessions.count))
            talk()
        } while sessions.count > 6
    }

    mutating func finish() throws {
        while !sessions.isEmpty { try advance(random.below(sessions.count)) }
        let sent = honestSent
        while honestEchoes < sent {
            try require(rig.run { true }, "an echo that never came")
            talk(more: false)
        }
        try require(rig.router.connectionCount == 1 && rig.router.audit() == [], "accounts: \(rig.router.audit())")
    }

    private func require(_ holds: Bool, _ what: @autoclosure () -> String) throws {
        if !holds || Date() > deadline { throw Violation(description: "\(what()); MPAXOS_SEED=\(Fuzz.seed)") }
    }

    private mutating func advance(_ index: Int) throws {
        let session = sessions[index]
        if session.sent < session.stream.count, !session.client.isClosed {
            let left = session.stream.count - session.sent
            let piece = min(left, [1, 1 + random.below(10), 1 + random.below(3000), left][random.below(4)])
            session.client.send(Array(session.stream[session.sent..<(session.sent + piece)]))
            sessions[index].sent += piece
            // Something large for who does not read: then more is queued than the kernel takes.
            if !session.client.reads, random.below(4) == 0 { _ = rig.send(pattern(40_000), to: session.client.peer) }
            if random.below(3) > 0 { rig.turn() }
            try deal()
        } else {
            sessions.remove(at: index)
            try end(session)
        }
    }

    /// Hands the messages that came to the sessions they came over.
    private mutating func deal() throws {
        for arrival in rig.takeArrivals() {
            if let index = sessions.firstIndex(where: { $0.client.peer == arrival.peer }) {
                sessions[index].arrived.append(arrival.frames)
            } else if arrival.frames.count != 3 || arrival.frames[1] != Self.mark {
                try require(false, "a message of nobody")
            }
        }
    }

    private mutating func end(_ session: Session) throws {
        let reading = Reading(session.stream)
        let peer = session.client.peer
        let rig = rig
        sessions.append(session)
        defer { sessions.removeAll { $0.client.peer == peer } }
        if reading.end == .breach {
            try require(rig.run { rig.router.connection(peer) == nil }, "\(session.round) was not dropped")
            breaches += 1
        } else {
            try require(
                rig.run { session.client.unsent == 0 && rig.isAtRest || session.client.isClosed },
                "\(session.round) was not received")
            try require(rig.router.connection(peer) != nil, "\(session.round) was dropped")
            opens += 1
        }
        try deal()
        let arrived = sessions.last!.arrived
        try require(
            arrived == reading.messages,
            "\(session.round): \(arrived.count) messages, not \(reading.messages.count), or others")
        messages += arrived.count
        rig.close(session.client, reset: random.below(2) == 0)
        try require(rig.run { rig.router.connection(peer) == nil }, "\(session.round) stayed")
        try deal()
        try require(sessions.last!.arrived.count == arrived.count, "\(session.round) went on after its end")
        if session.round % 16 == 0 { try require(rig.router.audit() == [], "\(session.round): \(rig.router.audit())") }
    }

    // MARK: The honest client

    private static let mark = pattern(40, seed: 77)

    private func honestMessage(_ number: Int) -> [[UInt8]] { [[], Self.mark, pattern(number % 900, seed: number)] }

    private mutating func talk(more: Bool = true) {
        if more, honestSent - honestEchoes < 8, honest.send(honestMessage(honestSent)) { honestSent += 1 }
        while let echo = honest.receive() {
            #expect(echo == honestMessage(honestEchoes), "echo \(honestEchoes)")
            honestEchoes += 1
        }
    }
}
