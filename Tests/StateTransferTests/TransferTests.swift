import Dispatch
import Foundation
import Logging
import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosPersistentMemory
import MPaxosQueues
import MPaxosStorage
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline
@testable import MPaxosStateTransfer

/// Giver and receiver, over a network that loses, repeats and reorders frames and brings others that nobody should have
/// sent.
@Suite struct TransferTests {
    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    /// One replica: its pool, its side of transfers, and what stands for executor and node.
    private final class Side: SnapshotFiles {
        let index: Int
        let pool: StatePool
        let rings = Rings(outstanding: 16)
        let board = StatusBoard(members: [0, 1, 2])
        let progress = Progress.allocate()
        var isInDispute = false
        let order = SnapshotOrder()
        let desk = TransferDesk {}
        let transfer: StateTransfer
        let traffic: PeerTraffic
        private let acceptor: AcceptorPool
        private let whole = Frame()
        var installed: (snapshot: IncomingSnapshot, view: UInt64)?
        private let parker = Parker.allocate()!
        private var snapshot: StateSnapshot?
        /// What it heard of others' states.
        var digests: DigestComparison

        init(_ index: Int, in folder: URL, executed: UInt64, sessions: Int = 20_000) throws {
            self.index = index
            digests = DigestComparison(index: index, count: 3)
            let path = folder.appending(path: "\(index).pool").path
            try StatePool.format(
                path: path,
                identity: PoolIdentity(cluster: "c", replica: UInt16(index), incarnation: 1, charter: charter),
                size: 20 << 20, sessions: sessions)
            pool = try whenFree { () throws(PoolError) in try StatePool(openingAny: path) }
            for _ in 0..<executed {
                _ = pool.begin(kind: .open, session: 0, sequence: 0)
                pool.endInstance(pool.executed + 1)
            }
            pool.commit()
            for peer in 0..<3 where peer != index { progress.set(connected: true, peer) }
            let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
            let log = folder.appending(path: "\(index).acceptor").path
            try AcceptorPool.format(path: log, identity: pool.identity, size: 8 << 20)
            acceptor = try AcceptorPool(opening: log, expecting: "c", replica: UInt16(index))
            traffic = PeerTraffic(
                index: index, count: 3, acceptor: acceptor, progress: progress, board: board,
                departures: rings.departures, links: parker, firstParcel: UInt64(index) << 31)
            let port = TransferTraffic(over: traffic)
            let geometry = pool.geometry.fingerprint
            transfer = StateTransfer(
                giver: SnapshotGiver(
                    port: port, memberIDs: [0, 1, 2], order: order, geometry: geometry, board: board, logger: logger),
                receiver: SnapshotReceiver(
                    port: port, memberIDs: [0, 1, 2], desk: desk, geometry: geometry, reluctance: 300_000,
                    seed: UInt64(index), board: board, logger: logger))
        }

        deinit {
            acceptor.close()
            rings.deallocate()
            progress.deallocate()
            parker.deallocate()
        }

        func standing(needsState: Bool) -> Standing {
            Standing(
                needsState: needsState, decided: pool.executed, view: 9, leader: 2, floor: 1, digests: digests,
                executed: pool.executed, isInDispute: isInDispute)
        }

        func turn(needsState: Bool, now: UInt64) throws {
            traffic.begin(now: now)
            transfer.poll(standing: standing(needsState: needsState), now: now)
            if order.isPlaced {
                if self.snapshot == nil { order.begin(at: now) }
                let snapshot = try self.snapshot ?? StateSnapshot(of: pool)
                self.snapshot = snapshot
                try snapshot.copy(atMost: 1 << 20)
                if snapshot.isWhole {
                    order.deliver(.success(snapshot))
                    self.snapshot = nil
                }
            }
            if let done = desk.work(with: self) {
                installed = done
            }
        }

        func take(_ bytes: [UInt8], needsState: Bool, now: UInt64) {
            bytes.withUnsafeBytes { raw in
                // Links and engine let no frame pass that says it comes from another than it does.
                guard let frame = try? PeerFrame(decoding: raw), frame.sender != index else { return }
                traffic.begin(now: now)
                switch frame.content {
                case .transfer(let message):
                    transfer.take(
                        message, frame.payload, from: frame.sender, standing: standing(needsState: needsState), now: now
                    )
                case .link(let message):
                    if case .whole = traffic.take(message, frame.payload, from: frame.sender, whole: whole) {
                        take(Array(whole.bytes), needsState: needsState, now: now)
                    }
                default: break
                }
            }
        }

        func prepare() throws(PoolError) -> IncomingSnapshot {
            try IncomingSnapshot(beside: pool.path, geometry: pool.geometry)
        }

        func finish(_ snapshot: IncomingSnapshot) throws(PoolError) {
            try snapshot.finish(as: pool.identity, bootCount: pool.bootCount)
        }

        /// What it sends, by receiver.
        func sent() -> [(to: Int, bytes: [UInt8])] {
            traffic.end()
            var all: [(Int, [UInt8])] = []
            let frame = Frame()
            while let departure = rings.departures.pop() {
                frame.adopt(departure.frame)
                all.append((departure.peers.trailingZeroBitCount, Array(frame.bytes)))
            }
            return all
        }
    }

    private static func folder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "mpaxos-transfer-\(UInt32.random(in: 0...UInt32.max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder
    }

    /// A turn of a receiver, replica 0, and a giver, replica 1, over a network that loses nothing.
    /// - Returns: what the giver sent.
    @discardableResult
    private static func exchange(_ receiver: Side, _ giver: Side, now: UInt64) throws -> [[UInt8]] {
        for side in [receiver, giver] { try side.turn(needsState: side === receiver, now: now) }
        for frame in receiver.sent() where frame.to == 1 { giver.take(frame.bytes, needsState: false, now: now) }
        let sent = giver.sent().map(\.bytes)
        for bytes in sent { receiver.take(bytes, needsState: true, now: now) }
        return sent
    }

    private static func content(of frame: [UInt8]) throws -> PeerFrame.Content {
        try frame.withUnsafeBytes { try PeerFrame(decoding: $0).content }
    }

    private static func garbage(_ random: inout Random, tickets: [UInt64]) -> [UInt8] {
        let values: [UInt64] = [
            0, 1, 4096, 8192, 262_144, 1 << 20, 1 << 62, .max, .max - 4095, random.next() % (4 << 20),
        ]
        func value() -> UInt64 { values.randomElement(using: &random)! }
        let ticket = tickets.randomElement(using: &random)!
        let message: TransferMessage =
            switch Int.random(in: 0..<5, using: &random) {
            case 0: .request(ticket: ticket, decided: value(), geometry: value())
            case 1:
                .offer(
                    ticket: ticket,
                    .init(executed: value(), view: value(), size: value(), position: value(), checksum: 7))
            case 2: .ask(ticket: ticket, offset: value())
            case 3: .chunk(ticket: ticket, offset: value(), checksum: UInt32(truncatingIfNeeded: value()))
            default: .refusal(ticket: ticket, TransferMessage.Refusal.allCases.randomElement(using: &random)!)
            }
        var payload: [UInt8] = []
        if case .chunk = message { payload = Array(repeating: 5, count: Int.random(in: 1...5000, using: &random)) }
        let block = UnsafeMutableRawBufferPointer.allocate(byteCount: PeerHeader.size, alignment: 8)
        defer { block.deallocate() }
        PeerFrame.encodeHeader(
            of: message, payloadCount: payload.count, sender: Int.random(in: 0..<3, using: &random),
            into: block.baseAddress!)
        return Array(block) + payload
    }

    private static func ticket(of frame: [UInt8]) -> UInt64 {
        frame.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 24, as: UInt64.self) }
    }

    /// - Parameter trouble: of a thousand frames, so many are lost, so many repeated later; and as many others come
    ///   that make no sense.
    @Test(arguments: [0, 50, 250]) func aStateArrivesWhole(trouble: Int) throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let seed = UInt64.random(in: 0..<1 << 32)
        var random = Random(state: seed)
        let giver = try Side(1, in: folder, executed: 400)
        let receiver = try Side(0, in: folder, executed: 5)
        // The third replica never answers.
        let sides = [receiver, giver]
        var tickets: [UInt64] = [1]
        var late: [(to: Int, bytes: [UInt8])] = []
        var now: UInt64 = 1
        for turn in 0..<100_000 where receiver.installed == nil {
            now += turn % 50 == 0 ? 100_000 : 300
            for side in sides { try side.turn(needsState: side === receiver, now: now) }
            for side in sides {
                for frame in side.sent() where frame.to < 2 {
                    tickets.append(Self.ticket(of: frame.bytes))
                    if tickets.count > 4 { tickets.removeFirst() }
                    let fate = Int.random(in: 0..<1000, using: &random)
                    if fate < trouble { continue }
                    if fate < 2 * trouble { late.append(frame) }
                    sides[frame.to].take(frame.bytes, needsState: frame.to == 0, now: now)
                }
            }
            if !late.isEmpty, Bool.random(using: &random) {
                let frame = late.remove(at: Int.random(in: late.indices, using: &random))
                sides[frame.to].take(frame.bytes, needsState: frame.to == 0, now: now)
            }
            // Not those that a replica believes since they come from its giver: refusals and offers would only begin it
            // anew.
            if Int.random(in: 0..<1000, using: &random) < trouble {
                let to = Int.random(in: 0..<2, using: &random)
                sides[to].take(Self.garbage(&random, tickets: [1, 2]), needsState: to == 0, now: now)
            }
        }
        let done = try #require(receiver.installed, "seed \(seed)")
        #expect(done.view == 9 && done.snapshot.executed == 400)
        receiver.pool.close()
        try done.snapshot.install(over: receiver.pool.path)
        let found = try PoolInspection.digest(path: receiver.pool.path)
        #expect(found == giver.pool.currentDigest(), "seed \(seed)")
        #expect(giver.board.statesGiven.load() <= 1)
    }

    /// Over a link that takes longer for a chunk than the receiver waits before it asks again, the state arrives all
    /// the same, and the link is not filled with what is on its way.
    @Test(arguments: [200_000, 450_000, 5_000_000] as [UInt64])
    func aSlowLinkIsEnough(bytesPerSecond: UInt64) throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let receiver = try Side(0, in: folder, executed: 5)
        receiver.progress.set(connected: false, 2)
        var link: [(arrival: UInt64, bytes: [UInt8])] = []
        var (sentBytes, linkIsFree, now): (UInt64, UInt64, UInt64) = (0, 0, 1)
        while receiver.installed == nil, now < 300_000_000 {
            now += 20_000
            for side in [receiver, giver] { try side.turn(needsState: side === receiver, now: now) }
            for frame in receiver.sent() where frame.to == 1 { giver.take(frame.bytes, needsState: false, now: now) }
            for frame in giver.sent() {
                linkIsFree = max(linkIsFree, now) + UInt64(frame.bytes.count) * 1_000_000 / bytesPerSecond
                link.append((linkIsFree, frame.bytes))
                sentBytes += UInt64(frame.bytes.count)
            }
            while let first = link.first, first.arrival <= now {
                receiver.take(link.removeFirst().bytes, needsState: true, now: now)
            }
        }
        let done = try #require(receiver.installed)
        #expect(sentBytes < UInt64(done.snapshot.size) * 3 / 2 + 16 * UInt64(TransferMessage.chunkSize))
        done.snapshot.discard()
    }

    /// A snapshot that is whole in itself, but of another state than a third replica told of the same instance, is not
    /// put in place.
    @Test(arguments: [true, false]) func anSnapshotThatAThirdContradicts(contradicts: Bool) throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let receiver = try Side(0, in: folder, executed: 5)
        let value = giver.pool.currentDigest().value
        _ = receiver.digests.take(.init(executed: 400, value: contradicts ? ~value : value), from: 2, now: 1)
        var now: UInt64 = 1
        for _ in 0..<3_000 where receiver.installed == nil && giver.board.statesGiven.load() < 3 {
            now += 20_000
            try Self.exchange(receiver, giver, now: now)
        }
        #expect(giver.board.statesGiven.load() > 0)
        #expect((receiver.installed == nil) == contradicts)
        receiver.installed?.snapshot.discard()
    }

    private enum ThirdWord: CaseIterable { case confirms, contradicts, silent, away }

    /// The word of a third replica is waited for where one is there: for some seconds at an instance that each tells
    /// of, and else for a moment.
    @Test(arguments: ThirdWord.allCases, [400, 1024] as [UInt64])
    private func anSnapshotWaitsForAThird(word: ThirdWord, executed: UInt64) throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: executed)
        let receiver = try Side(0, in: folder, executed: 5)
        let value = giver.pool.currentDigest().value
        if word == .away { receiver.progress.set(connected: false, 2) }
        var now: UInt64 = 1
        func run(for duration: UInt64) throws {
            let end = now + duration
            while now < end, receiver.installed == nil {
                now += 20_000
                try Self.exchange(receiver, giver, now: now)
            }
        }
        // One of the two is asked first by chance; the other is silent for six seconds.
        while giver.board.statesGiven.load() == 0, now < 60_000_000 { try run(for: 20_000) }
        let isToldByAll = executed == 1024
        try run(for: isToldByAll ? 1_000_000 : 100_000)
        #expect((receiver.installed == nil) == (word != .away))
        if word == .confirms || word == .contradicts {
            _ = receiver.digests.take(
                .init(executed: executed, value: word == .confirms ? value : ~value), from: 2, now: now)
        }
        try run(for: isToldByAll ? 4_000_000 : 400_000)
        #expect((receiver.installed == nil) == (word == .contradicts))
        receiver.installed?.snapshot.discard()
    }

    @Test func whoIsInDisputeGivesNoState() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        giver.isInDispute = true
        let receiver = try Side(0, in: folder, executed: 5)
        receiver.progress.set(connected: false, 2)
        var (refusals, now): (Int, UInt64) = (0, 1)
        for _ in 0..<100 {
            now += 20_000
            let sent = try Self.exchange(receiver, giver, now: now)
            refusals += try sent.count {
                if case .transfer(.refusal(_, .inDispute)) = try Self.content(of: $0) { true } else { false }
            }
        }
        #expect(refusals > 0 && receiver.installed == nil)
    }

    /// Peers whose pools were formatted differently do not link; if they did, no state would pass between them.
    @Test func aPoolOfOtherSizesGetsNoState() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let receiver = try Side(0, in: folder, executed: 5, sessions: 20_001)
        var (refusals, now): (Int, UInt64) = (0, 1)
        for _ in 0..<200 {
            now += 20_000
            let sent = try Self.exchange(receiver, giver, now: now)
            refusals += try sent.count {
                if case .transfer(.refusal(_, .otherGeometry)) = try Self.content(of: $0) { true } else { false }
            }
        }
        #expect(refusals > 0 && giver.board.statesGiven.load() == 0 && receiver.installed == nil)
    }

    /// A peer whose log does not reach back says so first, one whose log does helps a moment later.
    @Test func aNeedThatPassesBeginsNothing() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let side = try Side(0, in: folder, executed: 5)
        // As the engine does.
        func turn(_ needsState: Bool, at now: UInt64) throws {
            guard needsState || side.transfer.isActive else { return }
            try side.turn(needsState: needsState, now: now)
        }
        var isPrepared: Bool {
            FileManager.default.fileExists(atPath: IncomingSnapshot.path(beside: side.pool.path))
        }
        for (needsState, now) in [(true, 1), (true, 200_000), (false, 210_000), (true, 900_000), (true, 1_100_000)] {
            try turn(needsState, at: UInt64(now))
            #expect(!isPrepared, "at \(now)")
        }
        try turn(true, at: 1_200_000)
        #expect(isPrepared)
    }

    /// Whatever comes, with the tickets of what is under way: nothing but a transfer that begins anew.
    @Test func nothingThatComesStopsAReplica() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let seed = UInt64.random(in: 0..<1 << 32)
        print("seed \(seed)")
        var random = Random(state: seed)
        let sides = [try Side(0, in: folder, executed: 5), try Side(1, in: folder, executed: 400)]
        var tickets: [UInt64] = [1]
        var now: UInt64 = 1
        for _ in 0..<3000 {
            now += 10_000
            for side in sides { try side.turn(needsState: side.index == 0, now: now) }
            for side in sides {
                for frame in side.sent() where frame.to < 2 {
                    tickets.append(Self.ticket(of: frame.bytes))
                    if tickets.count > 3 { tickets.removeFirst() }
                    sides[frame.to].take(frame.bytes, needsState: frame.to == 0, now: now)
                }
            }
            let to = Int.random(in: 0..<2, using: &random)
            sides[to].take(Self.garbage(&random, tickets: tickets), needsState: to == 0, now: now)
        }
    }

    private static func frame(_ message: TransferMessage, from sender: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: PeerHeader.size)
        bytes.withUnsafeMutableBytes { PeerFrame.encodeHeader(of: message, sender: sender, into: $0.baseAddress!) }
        return bytes
    }

    /// One that asks for snapshot after snapshot has the executor pause once a second, not all the time.
    @Test func snapshotAfterSnapshot() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let geometry = giver.pool.geometry.fingerprint
        var (orders, wasPlaced, now): (Int, Bool, UInt64) = (0, false, 1)
        for ticket in 1...2_000 as ClosedRange<UInt64> {
            now += 5_000
            giver.take(
                Self.frame(.request(ticket: ticket, decided: 5, geometry: geometry), from: 0), needsState: false,
                now: now)
            if giver.order.isPlaced, !wasPlaced { orders += 1 }
            wasPlaced = giver.order.isPlaced
            try giver.turn(needsState: false, now: now)
            wasPlaced = wasPlaced && giver.order.isPlaced
            _ = giver.sent()
        }
        #expect((5...11).contains(orders), "in ten seconds")
    }

    /// One that asks for the same part of a snapshot again and again does not keep the giver from all others.
    @Test func onePartForEver() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let geometry = giver.pool.geometry.fingerprint
        var now: UInt64 = 1
        func answer(to message: TransferMessage, from peer: Int) throws -> [TransferMessage] {
            now += 500_000
            giver.take(Self.frame(message, from: peer), needsState: false, now: now)
            for _ in 0..<50 { try giver.turn(needsState: false, now: now) }
            return try giver.sent().compactMap { frame in
                if case .transfer(let answer) = try Self.content(of: frame.bytes) { answer } else { nil }
            }
        }
        let offered = try answer(to: .request(ticket: 7, decided: 5, geometry: geometry), from: 0)
        try #require(offered.contains { if case .offer = $0 { true } else { false } })
        let other = TransferMessage.request(ticket: 8, decided: 5, geometry: geometry)
        #expect(try answer(to: other, from: 2) == [.refusal(ticket: 8, .busy)])
        for _ in 0..<130 { _ = try answer(to: .ask(ticket: 7, offset: 0), from: 0) }
        #expect(try answer(to: other, from: 2).contains(.refusal(ticket: 8, .busy)) == false)
    }

    /// An executor that does not get on with a snapshot may be stuck for good: another giver is to be asked.
    @Test func oneThatDoesNotGetOn() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let giver = try Side(1, in: folder, executed: 400)
        let geometry = giver.pool.geometry.fingerprint
        func answers(at now: UInt64) throws -> [TransferMessage] {
            let request = TransferMessage.request(ticket: 7, decided: 5, geometry: geometry)
            giver.take(Self.frame(request, from: 0), needsState: false, now: now)
            return try giver.sent().compactMap { frame in
                if case .transfer(let answer) = try Self.content(of: frame.bytes) { answer } else { nil }
            }
        }
        #expect(try answers(at: 1) == [.refusal(ticket: 7, .notYet)])
        #expect(try answers(at: 9_000_000) == [.refusal(ticket: 7, .notYet)])
        #expect(try answers(at: 11_000_000) == [.refusal(ticket: 7, .failed)])
        giver.order.begin(at: 11_500_000)
        #expect(try answers(at: 12_000_000) == [.refusal(ticket: 7, .failed)], "its storage may be stuck")
        giver.order.advance()
        #expect(try answers(at: 30_000_000) == [.refusal(ticket: 7, .notYet)], "a large state takes its time")
        #expect(try answers(at: 39_000_000) == [.refusal(ticket: 7, .notYet)])
        #expect(try answers(at: 41_000_000) == [.refusal(ticket: 7, .failed)])
    }

    /// A snapshot that is in the making for ever, and one of a view that nobody can have come to: neither is waited
    /// for, nor taken.
    @Test func whatIsNoOffer() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let receiver = try Side(0, in: folder, executed: 5)
        receiver.progress.set(connected: false, 2)
        var now: UInt64 = 1
        var tickets: [UInt64] = []
        func turns(for duration: UInt64, _ answer: (UInt64) -> TransferMessage) throws {
            let end = now + duration
            while now < end {
                now += 250_000
                try receiver.turn(needsState: true, now: now)
                for frame in receiver.sent() {
                    guard case .transfer(.request(let ticket, _, _)) = try Self.content(of: frame.bytes) else {
                        continue
                    }
                    if tickets.last != ticket { tickets.append(ticket) }
                    receiver.take(Self.frame(answer(ticket), from: 1), needsState: true, now: now)
                }
            }
        }
        try turns(for: 500_000_000) { .refusal(ticket: $0, .notYet) }
        #expect(tickets.count == 1, "a large state takes its time")
        try turns(for: 200_000_000) { .refusal(ticket: $0, .notYet) }
        #expect(tickets.count == 2)
        tickets = []
        try turns(for: 600_000_000) { ticket in
            .offer(
                ticket: ticket,
                .init(executed: 400, view: 10 + mostViewsAtOnce, size: 20 << 20, position: 1, checksum: 7))
        }
        #expect(tickets.count > 2 && receiver.board.peers[1].framesImplausible.load() == UInt64(tickets.count))
    }
}
