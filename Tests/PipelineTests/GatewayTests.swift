import MPaxosQueues
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline

/// How long requests wait for their answers, and which repetitions are recognised. Replica 0 is asked, and replica 1
/// leads.
@Suite struct GatewayTests {
    /// Clients that are played by a test.
    private final class Port: ClientPort {
        private var requests: [(client: UInt8, frame: [UInt8])] = []
        private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 8)
        /// By client, in order.
        private(set) var replies: [(client: UInt8, header: ReplyHeader, body: [UInt8])] = []

        /// By client.
        private(set) var outstanding: [UInt8: Int] = [:]

        deinit { memory.deallocate() }

        private func client(of envelope: UnsafeRawBufferPointer) -> UInt8 { Envelope.Frames(envelope).map { $0[0] }[0] }

        override func outstanding(of envelope: UnsafeRawBufferPointer) -> Int {
            outstanding[client(of: envelope)] ?? 0
        }

        override func admitted(_ envelope: UnsafeRawBufferPointer) {
            outstanding[client(of: envelope), default: 0] += 1
        }

        override func answered(_ envelope: UnsafeRawBufferPointer) { outstanding[client(of: envelope)]! -= 1 }

        func ask(_ header: RequestHeader, client: UInt8) {
            var frame = [UInt8](repeating: 0, count: clientHeaderSize)
            frame.withUnsafeMutableBytes { header.encode(into: $0.baseAddress!) }
            requests.append((client, frame))
        }

        override func isReady(now: UInt64) -> Bool { !requests.isEmpty }

        override func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
            guard !requests.isEmpty else { return .nothing }
            let (client, frame) = requests.removeFirst()
            envelope.pointee.clear()
            _ = [client].withUnsafeBytes { envelope.pointee.append($0) }
            memory.copyBytes(from: frame)
            header = UnsafeRawBufferPointer(rebasing: memory[..<frame.count])
            let hasBody = ![CommandCode.open, .close, .status].map(\.rawValue).contains(frame[4])
            body = UnsafeRawBufferPointer(rebasing: memory[1_024..<(hasBody ? 1_034 : 1_024)])
            return .request(frames: 2)
        }

        override func reply(
            to envelope: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer
        ) -> Bool {
            replies.append((client(of: envelope), ReplyHeader(decoding: header)!, Array(body)))
            return true
        }
    }

    private static let patience: UInt64 = 2_000_000
    private static let start: UInt64 = 10_000_000

    private final class Rig {
        let port = Port()
        let board = StatusBoard(members: [0, 1, 2])
        let rings: Rings
        let progress = Progress.allocate()
        let gateway: Gateway
        private let parker = Parker.allocate()!
        private(set) var now = GatewayTests.start

        init(outstanding: Int = 16) {
            rings = Rings(outstanding: outstanding)
            progress.founding = .founded
            progress.leader = 1
            progress.era = 4
            gateway = Gateway(
                settings: .init(
                    replica: 0, maximumRequest: 1_000, maximumOutstanding: outstanding,
                    maximumOutstandingBytes: 1 << 20, patience: GatewayTests.patience,
                    clientEndpoints: ["a", "b", "c"], index: 0, epoch: 3,
                    secret: { UInt64.random(in: 1...UInt64.max) }),
                port: port, progress: progress, board: board, validator: { _, _ in nil }, statusReport: { "" },
                rings: rings,
                parkers: Parkers(gateway: parker, engine: parker, links: parker, executor: parker), gate: nil)
        }

        deinit {
            rings.deallocate()
            progress.deallocate()
            parker.deallocate()
        }

        /// Microseconds since the start.
        var time: UInt64 { now - GatewayTests.start }

        func turn() { while gateway.poll(budget: 16, now: now) {} }

        func ask(session: UInt64 = 9, sequence: UInt64 = 1, client: UInt8 = 1) {
            port.ask(RequestHeader(.submit, session: session, sequence: sequence), client: client)
            turn()
        }

        /// Lets time pass up to some time since the start, in turns of 100 ms and at deadlines.
        /// - Parameter progress: bytes get through to other replicas, or instances are decided.
        func run(until end: UInt64, progress: Bool = false) {
            while time < end {
                now = min(GatewayTests.start + end, min(now + 100_000, max(gateway.nextDeadline, now + 1)))
                if progress { self.progress.arrived += 1 }
                turn()
            }
        }

        func answer(_ tag: UInt64) {
            complete(tag)
            turn()
        }

        /// The executor has the answer, of which the gateway has not heard.
        func complete(_ tag: UInt64) {
            let pushed = rings.completions.push(
                Completion(
                    tag: tag, status: 0, session: 9, position: 5,
                    body: Body(copying: ClientPort.nothing, into: rings.replyBodies))
            )
            precondition(pushed, "more answers than the ring has room for")
            rings.completions.publish()
        }

        /// What the engine got so far, in order.
        var submissions: [Submission] {
            while let submission = rings.submissions.pop() {
                submission.body.release(to: rings.bodies)
                taken.append(submission)
            }
            return taken
        }
        private var taken: [Submission] = []

        var statuses: [StatusCode] { port.replies.map(\.header.status) }
    }

    /// Nothing gets through: after its patience a request is answered NO_LEADER.
    @Test func withoutProgress() throws {
        let rig = Rig()
        rig.ask()
        #expect(rig.board.outstanding.load() == 1)
        rig.run(until: Self.patience - 1)
        #expect(rig.statuses.isEmpty)
        rig.run(until: Self.patience)
        let reply = try #require(rig.port.replies.first)
        #expect(reply.client == 1 && reply.header.status == .noLeader)
        #expect(reply.header.session == 9 && reply.header.sequence == 1)
        #expect(reply.body == [20, 0, 0, 0])
        #expect(rig.board.unanswered.load() == 1 && rig.board.outstanding.load() == 0)
    }

    /// A replica that stops leaves nobody without a word: who has an answer gets it, who waits is told to try again.
    @Test func atTheEnd() throws {
        let rig = Rig()
        rig.ask()
        rig.ask(sequence: 2, client: 2)
        let tag = try #require(rig.submissions.first?.tag)
        rig.complete(tag)
        rig.gateway.close()
        #expect(rig.statuses == [.ok, .noLeader] && rig.port.replies.map(\.client) == [1, 2])
        #expect(rig.board.unanswered.load() == 1 && rig.gateway.waiting == 0)
    }

    /// While the state is in dispute nothing of it reaches a client: neither what is asked now nor what was under way.
    @Test func beforeTheFounding() {
        let rig = Rig()
        rig.progress.founding = .whole
        rig.ask()
        rig.port.ask(RequestHeader(.query, flags: .local), client: 2)
        rig.port.ask(RequestHeader(.ping), client: 2)
        rig.turn()
        #expect(rig.statuses == [.noLeader, .noLeader, .ok])
        #expect(rig.submissions.isEmpty)
        rig.progress.founding = .founded
        rig.ask(sequence: 2)
        #expect(rig.submissions.count == 1)
    }

    /// What each role may do; with 0 the key was withdrawn.
    @Test(arguments: 0...3 as ClosedRange<UInt8>) func whatARoleAllows(rank: UInt8) throws {
        let rig = Rig()
        rig.port.permission = try #require(Permission(rawValue: rank))
        let requests: [(CommandCode, UInt64, RequestFlags, UInt8)] = [
            (.ping, 0, [], 1), (.status, 0, [], 1), (.query, 0, .local, 1), (.query, 0, [], 1),
            (.open, 0, [], 2), (.submit, 9, [], 2), (.submit, 0, [], 2), (.close, 9, [], 2), (.open, 0, .noForward, 2),
        ]
        for (place, (code, session, flags, least)) in requests.enumerated() {
            let sequence = UInt64(place) + 1
            rig.port.ask(RequestHeader(code, flags: flags, session: session, sequence: sequence), client: 1)
            rig.turn()
            let reply = rig.port.replies.last { $0.header.sequence == sequence }
            guard rank < least else {
                #expect(reply?.header.status != .denied)
                continue
            }
            #expect(reply?.header.status == .denied && reply?.header.session == session)
            let text = String(decoding: try #require(reply).body, as: UTF8.self)
            #expect(text.contains(rank == 0 ? "was withdrawn" : "for reading alone"))
        }
        let denied = requests.count { rank < $0.3 }
        #expect(rig.board.denied.load() == UInt64(denied))
        // Nothing of what was denied has gone on.
        #expect(rig.submissions.count == [0, 1, 5, 5][Int(rank)])
    }

    /// What an OPEN is ordered with makes the id of its session; no two have the same, and none has nothing.
    @Test func opensCarryASeed() {
        let rig = Rig()
        for sequence in 1...10 as ClosedRange<UInt64> {
            rig.port.ask(RequestHeader(.open, session: 0, sequence: sequence), client: 1)
        }
        rig.port.ask(RequestHeader(.close, session: 9, sequence: 1), client: 1)
        rig.turn()
        let ordered = rig.submissions.map(\.session)
        #expect(ordered.count == 11 && ordered.last == 9)
        #expect(Set(ordered.dropLast()).count == 10 && !ordered.contains(0))
    }

    @Test func inDispute() {
        let rig = Rig()
        rig.ask()
        rig.progress.isInDispute = true
        rig.answer(rig.submissions[0].tag)
        #expect(rig.statuses == [.noLeader] && rig.board.outstanding.load() == 0)
        rig.ask(sequence: 2)
        rig.port.ask(RequestHeader(.query, flags: .local), client: 2)
        rig.port.ask(RequestHeader(.query), client: 2)
        rig.port.ask(RequestHeader(.ping), client: 2)
        rig.turn()
        #expect(rig.statuses == [.noLeader, .noLeader, .noLeader, .noLeader, .ok])
        #expect(rig.submissions.count == 1 && rig.board.unanswered.load() == 4)
        rig.progress.isInDispute = false
        rig.ask(sequence: 3)
        #expect(rig.submissions.count == 2)
    }

    /// As long as something gets through in the era in which it was admitted, it waits; then its patience begins anew.
    @Test(arguments: [3, 40] as [UInt64]) func withProgress(times: UInt64) {
        let rig = Rig()
        rig.ask()
        rig.run(until: times * Self.patience + Self.patience / 2, progress: true)
        rig.run(until: (times + 2) * Self.patience - 1)
        #expect(rig.statuses.isEmpty)
        rig.run(until: (times + 2) * Self.patience)
        #expect(rig.statuses == [.noLeader])
    }

    /// What got through long ago says nothing.
    @Test func progressOfOld() {
        let rig = Rig()
        rig.progress.arrived = 77
        rig.turn()
        rig.run(until: 500_000)
        rig.ask()
        rig.run(until: 500_000 + Self.patience)
        #expect(rig.statuses == [.noLeader])
    }

    /// In another era it is not on its way any more, nor where no leader is known.
    @Test(arguments: [true, false]) func anotherEra(isNewEra: Bool) {
        let rig = Rig()
        rig.ask()
        rig.run(until: 1_000_000, progress: true)
        if isNewEra { rig.progress.era = 5 } else { rig.progress.leader = nil }
        rig.run(until: Self.patience - 1, progress: true)
        #expect(rig.statuses.isEmpty)
        rig.run(until: Self.patience, progress: true)
        #expect(rig.statuses == [.noLeader])
    }

    /// What was handed to a leader that is gone is ordered again when another one is known, once, and not what might
    /// take effect twice.
    @Test func orderedAgainWhenTheLeaderChanges() throws {
        let rig = Rig()
        rig.ask(session: 7, sequence: 3, client: 1)
        rig.ask(session: 0, sequence: 1, client: 2)
        let first = rig.submissions
        #expect(first.count == 2)
        rig.progress.leader = nil
        rig.progress.era = 5
        rig.turn()
        #expect(rig.submissions.count == 2 && rig.gateway.nextDeadline > rig.now + 1_000)
        rig.progress.leader = 2
        rig.turn()
        let again = rig.submissions.dropFirst(2)
        #expect(again.map(\.tag) == [first[0].tag] && again.map(\.session) == [7] && again.map(\.sequence) == [3])
        #expect(again.map(\.body.count) == [first[0].body.count] && rig.board.orderedAgain.load() == 1)
        rig.turn()
        #expect(rig.submissions.count == 3)
        // It is on its way again; the other one is not.
        rig.run(until: Self.patience, progress: true)
        #expect(rig.port.replies.map(\.client) == [2])
        rig.answer(first[0].tag)
        rig.progress.era = 6
        rig.turn()
        #expect(rig.submissions.count == 3)
    }

    /// Each request is looked at in its turn, also when those before it wait longer.
    @Test func requestsOfTwoEras() {
        let rig = Rig()
        rig.ask(session: 1, client: 1)
        rig.run(until: 1_000_000, progress: true)
        rig.progress.era = 5
        rig.ask(session: 2, client: 2)
        rig.run(until: Self.patience + 1_000_000, progress: true)
        #expect(rig.port.replies.map(\.client) == [1])
        rig.progress.era = 4
        rig.run(until: 2 * Self.patience + 1_000_000, progress: true)
        #expect(rig.port.replies.map(\.client) == [1, 2])
    }

    /// The answer finds a client that waited longer.
    @Test func answeredLate() throws {
        let rig = Rig()
        rig.ask()
        let submission = try #require(rig.submissions.first)
        rig.run(until: 3 * Self.patience, progress: true)
        rig.answer(submission.tag)
        #expect(rig.statuses == [.ok])
        #expect(rig.gateway.nextDeadline == .max)
        rig.run(until: 40 * Self.patience)
        #expect(rig.statuses == [.ok])
    }

    /// A request that is repeated while it is on its way is not ordered twice; the answer goes to where it was asked
    /// for last.
    @Test func repeated() throws {
        let rig = Rig()
        rig.ask(client: 1)
        rig.run(until: 1_000_000)
        rig.ask(client: 2)
        #expect(rig.board.repetitionsRecognised.load() == 1)
        rig.ask(sequence: 2, client: 3)
        rig.ask(session: 8, client: 4)
        #expect(rig.board.repetitionsRecognised.load() == 1, "others are no repetitions")
        #expect(rig.submissions.map(\.sequence) == [1, 2, 1])
        #expect(rig.port.outstanding == [1: 0, 2: 1, 3: 1, 4: 1])
        rig.answer(rig.submissions[0].tag)
        #expect(rig.port.replies.map(\.client) == [2])
    }

    /// One client alone has half of the room, and the next finds some, however many ask before it.
    @Test func sharesOfTheRoom() {
        let rig = Rig(outstanding: 128)
        for sequence in 1...100 { rig.ask(session: 0, sequence: UInt64(sequence), client: 1) }
        #expect(rig.port.outstanding == [1: 64] && rig.board.rejectedBusy.load() == 36)
        #expect(rig.statuses == [StatusCode](repeating: .busy, count: 36))
        for sequence in 1...100 { rig.ask(session: 0, sequence: UInt64(sequence), client: 2) }
        #expect(rig.port.outstanding == [1: 64, 2: 32])
        // A few whatever the others have, until there is no room at all.
        for client in 3...5 as ClosedRange<UInt8> {
            for sequence in 1...20 { rig.ask(session: 0, sequence: UInt64(sequence), client: client) }
        }
        #expect(rig.port.outstanding == [1: 64, 2: 32, 3: 16, 4: 16])
        // What is answered makes room.
        for submission in rig.submissions { rig.answer(submission.tag) }
        #expect(rig.port.outstanding.values.allSatisfy { $0 == 0 } && rig.board.outstanding.load() == 0)
        rig.ask(session: 0, sequence: 1, client: 5)
        #expect(rig.port.outstanding[5] == 1)
        rig.run(until: Self.patience * 2)
        #expect(rig.port.outstanding[5] == 0)
    }

    /// It is ordered again when it may be lost: in another era, or after long.
    @Test(arguments: [true, false]) func repeatedWhenItMayBeLost(isNewEra: Bool) throws {
        let rig = Rig()
        rig.ask(client: 1)
        let most = Gateway.Settings.mostPatience
        rig.run(until: isNewEra ? 1_000_000 : most, progress: true)
        rig.ask(client: 1)
        #expect(rig.board.repetitionsRecognised.load() == 1)
        if isNewEra { rig.progress.era = 5 } else { rig.run(until: most + 1, progress: true) }
        rig.ask(client: 1)
        #expect(rig.board.repetitionsRecognised.load() == 1)
        #expect(rig.submissions.count == 2)
    }
}
