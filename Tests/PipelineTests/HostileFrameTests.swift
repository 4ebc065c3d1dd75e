import MPaxosConsensus
import MPaxosMessaging
import MPaxosPersistentMemory
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// Frames that no honest replica sends, in the name of one that is linked, through all that a frame passes: a replica
/// does not stop for them, and goes on to work with the others.
@Suite struct HostileFrameTests {
    private static func header(_ encode: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: PeerHeader.size)
        bytes.withUnsafeMutableBytes { encode($0.baseAddress!) }
        return bytes
    }

    private static func frame(_ message: Message, from peer: Int) -> [UInt8] {
        header { PeerFrame.encodeHeader(of: message, sender: peer, into: $0) }
    }

    private static func digest(_ executed: UInt64, from peer: Int) -> [UInt8] {
        header { PeerFrame.encode(.init(executed: executed, value: 7), sender: peer, into: $0) }
    }

    /// Each is refused and counted, at a leader and at a follower.
    @Test(arguments: [0, 1])
    func whatCannotBe(victim: Int) throws {
        let rig = try EngineRig()
        try rig.settle()
        rig.replicas[0].submit(1, bytes: 100)
        let isDecided = rig.run(for: 2_000_000, until: rig.isExecuted([1]))
        try #require(isDecided && rig.replicas[1].isLeading)
        let replica = rig.replicas[victim]
        let figures = replica.board.peers[2]
        let limit = plausibleLimit
        let messages: [(String, (View) -> Message)] = [
            ("a floor above what was decided", { Message(kind: .belowFloor, view: $0, instance: 9, commit: 1) }),
            (
                "a floor of a log without end",
                { Message(kind: .belowFloor, view: $0, instance: limit, commit: limit - 1) }
            ),
            ("a decided value above what was decided", { Message(kind: .decided, view: $0, instance: 9, commit: 8) }),
            ("decided: more than there can be", { Message(kind: .nack, view: $0, commit: limit) }),
            ("a question for no instance", { Message(kind: .catchUpRequest, view: $0, bound: 9) }),
            ("no view", { _ in Message(kind: .nack, view: 0) }),
            ("the last of all views", { _ in Message(kind: .nack, view: .max) }),
            ("a heartbeat of another's view", { _ in Message(kind: .heartbeat, view: 1) }),
            ("a proposal up to its base", { Message(kind: .accept, view: $0 / 3 * 3 + 2, instance: 4, bound: 4) }),
            ("a pre-vote for another", { Message(kind: .preVote, view: $0 / 3 * 3 + 4) }),
            ("a view far ahead", { Message(kind: .nack, view: $0 + 2 * mostViewsAtOnce) }),
            ("the last view", { _ in Message(kind: .heartbeat, view: (limit - 9) / 3 * 3 + 2) }),
        ]
        for (what, message) in messages {
            let (before, view) = (figures.framesImplausible.load(), replica.engine.core.view)
            replica.arrived(Self.frame(message(view), from: 2), from: 2)
            rig.run(for: 1_000)
            #expect(figures.framesImplausible.load() == before + 1, "\(what)")
        }
        let before = figures.framesImplausible.load()
        for executed in [limit, .max] { replica.arrived(Self.digest(executed, from: 2), from: 2) }
        rig.run(for: 1_000)
        #expect(figures.framesImplausible.load() == before + 2)
        #expect(figures.framesMalformed.load() == 0)
        // The two last of the messages took the view on, by next to nothing of what there is.
        let isSettled = rig.run(for: 5_000_000, until: rig.replicas.allSatisfy { $0.board.isReady })
        #expect(isSettled && rig.replicas.allSatisfy { $0.board.view.load() < 4 * mostViewsAtOnce })
        for index in 0..<3 { rig.replicas[index].submit(UInt64(10 + index), bytes: 30_000) }
        let goesOn = rig.run(for: 5_000_000, until: rig.isExecuted([10, 11, 12]))
        #expect(goesOn && rig.agrees)
        #expect(!rig.replicas.contains { $0.engine.core.needsStateTransfer })
    }

    /// A complaint of each sort about each peer is logged once a second at most.
    @Test func complaints() throws {
        let rig = try EngineRig()
        let engine = rig.replicas[0].engine
        #expect(engine.mayLog(.implausible, of: 2, now: 5_000_000))
        #expect(!engine.mayLog(.implausible, of: 2, now: 5_999_999))
        #expect(engine.mayLog(.implausible, of: 1, now: 5_999_999) && engine.mayLog(.differing, of: 2, now: 5_999_999))
        #expect(engine.mayLog(.implausible, of: 2, now: 6_000_000))
    }

    /// Anything that passes for a frame, mostly with numbers near those of the replica. `MPAXOS_SEED` and
    /// `MPAXOS_FUZZ_ROUNDS` are as with the decoders.
    @Test(arguments: 0..<4)
    func anything(run: Int) throws {
        let seed = Fuzz.seed &+ UInt64(run)
        print("frames: MPAXOS_SEED=\(seed)")
        let rig = try EngineRig(logSize: 4 << 20)
        try rig.settle()
        var source = FrameSource(seed: seed)
        for replica in rig.replicas { replica.isHonestlyServed = false }
        for round in 0..<Fuzz.rounds(150) {
            let victim = rig.replicas[source.random.below(3)]
            let peer = (victim.index + 1 + source.random.below(2)) % 3
            for _ in 0..<(1 + source.random.below(30)) {
                victim.arrived(source.next(for: victim, from: peer), from: peer)
            }
            if source.random.below(3) == 0 {
                victim.submit(UInt64(100 + round), bytes: 1 + source.random.below(60_000))
            }
            rig.run(for: [100, 2_000, 20_000, 300_000][source.random.below(4)])
            if source.random.below(20) == 0 {
                rig.cut(victim.index, peer)
                rig.mend(victim.index, peer)
            }
            for other in 0..<3 where other != victim.index {
                #expect(victim.engine.traffic.parcelBytes(to: other) < 64 << 20)
            }
        }
        #expect(rig.replicas.allSatisfy { $0.board.view.load() < 1 << 48 })
        let refused = rig.replicas.flatMap { $0.board.peers }.reduce(0) { $0 + $1.framesImplausible.load() }
        #expect(refused > 50)
    }

    /// Frames by chance.
    private struct FrameSource {
        var random: FuzzRandom
        private var messages: HostileMessages
        private var parcel: UInt64 = 1
        /// The DELIVER of a parcel that was made last.
        private var pending: [UInt8] = []

        init(seed: UInt64) {
            random = FuzzRandom(seed: seed)
            messages = HostileMessages(3, seed: seed, window: 64, slotCount: 4096)
        }

        mutating func next(for victim: EngineReplica, from peer: Int) -> [UInt8] {
            if !pending.isEmpty {
                defer { pending = [] }
                return pending
            }
            switch random.below(20) {
            case 0: return digest(for: victim, from: peer)
            case 1: return link(from: peer)
            case 2: return transfer(for: victim, from: peer)
            case 3: return run(from: peer)
            case 4..<7: return inPieces(message(for: victim, from: peer), from: peer)
            default: return message(for: victim, from: peer)
            }
        }

        private mutating func bytes(_ count: Int) -> [UInt8] {
            (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }

        private mutating func message(for victim: EngineReplica, from peer: Int) -> [UInt8] {
            var message = messages.next(about: victim.engine.core, from: peer, to: victim.index)
            guard message.carriesBatch, !message.batch.isNoop else {
                message.batch = .noop
                return HostileFrameTests.frame(message, from: peer)
            }
            let payload = random.below(3) == 0 ? bytes(1 + random.below(20_000)) : record(from: random.below(3))
            let checksum = payload.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
            message.batch = Batch(
                offset: 0, length: UInt32(payload.count), checksum: random.below(8) == 0 ? 7 : checksum)
            return HostileFrameTests.frame(message, from: peer) + payload
        }

        private mutating func record(from origin: Int) -> [UInt8] {
            let body = bytes(random.below(40))
            var record = [UInt8](repeating: 0, count: CommandRecord.size(bodyCount: body.count))
            record.withUnsafeMutableBytes { place in
                _ = body.withUnsafeBytes {
                    CommandRecord.write(
                        into: place.baseAddress!, kind: .submit, origin: UInt16(origin), tag: 9, session: 1,
                        sequence: 1, body: $0)
                }
            }
            return record
        }

        private mutating func run(from peer: Int) -> [UInt8] {
            let payload = random.below(3) == 0 ? bytes(1 + random.below(200)) : record(from: peer)
            let checksum = payload.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
            return HostileFrameTests.header {
                PeerFrame.encodeForwardHeader(
                    count: payload.count, checksum: checksum, view: 1, sender: peer, into: $0)
            } + payload
        }

        private mutating func digest(for victim: EngineReplica, from peer: Int) -> [UInt8] {
            let (decided, floor) = (victim.engine.core.decided, victim.engine.core.floor)
            return HostileFrameTests.digest(messages.number([decided, floor, 1024, 1 << 40]), from: peer)
        }

        private mutating func link(from peer: Int) -> [UInt8] {
            let number = messages.number([1, 2, 3, 60_000, 1 << 20])
            guard random.below(2) == 0 else {
                let frame: LinkFrame = random.below(2) == 0 ? .mark(stamp: number) : .echo(stamp: number)
                return HostileFrameTests.header { frame.encodeHeader(sender: peer, into: $0) }
            }
            // The beginning of something that never comes.
            parcel += 1
            let payload = bytes(1 + random.below(2_000))
            let size = max(min(number, UInt64(UInt32.max)), UInt64(payload.count))
            let piece = LinkFrame.piece(parcel: parcel, offset: 0, size: size)
            return HostileFrameTests.header {
                piece.encodeHeader(payloadCount: payload.count, sender: peer, into: $0)
            } + payload
        }

        private mutating func transfer(for victim: EngineReplica, from peer: Int) -> [UInt8] {
            let decided = victim.engine.core.decided
            let number = messages.number([decided, 0, 4096, 1 << 20])
            let message: TransferMessage =
                switch random.below(4) {
                case 0: .request(ticket: 1 + UInt64(random.below(3)), decided: number, geometry: 0)
                case 1:
                    .offer(ticket: 1, .init(executed: number, view: number, size: number, position: 1, checksum: 7))
                case 2: .ask(ticket: 1 + UInt64(random.below(3)), offset: number)
                default: .refusal(ticket: 1, .notYet)
                }
            return HostileFrameTests.header { PeerFrame.encodeHeader(of: message, sender: peer, into: $0) }
        }

        /// A parcel that is whole with its first piece: what DELIVER says of it is `frame`.
        private mutating func inPieces(_ frame: [UInt8], from peer: Int) -> [UInt8] {
            guard frame.count > PeerHeader.size else { return frame }
            parcel += 1
            let (number, count) = (parcel, frame.count - PeerHeader.size)
            pending =
                HostileFrameTests.header {
                    LinkFrame.deliver(parcel: number).encodeHeader(
                        payloadCount: PeerHeader.size, sender: peer, into: $0)
                } + frame.prefix(PeerHeader.size)
            return HostileFrameTests.header {
                LinkFrame.piece(parcel: number, offset: 0, size: UInt64(count)).encodeHeader(
                    payloadCount: count, sender: peer, into: $0)
            } + frame.dropFirst(PeerHeader.size)
        }
    }
}
