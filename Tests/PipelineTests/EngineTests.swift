import MPaxosConsensus
import MPaxosMessaging
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// Engines over links in virtual time: what large requests, slow links, full logs and new leaders do to them.
@Suite struct EngineTests {
    private static let mebibyte = 1 << 20

    /// A large request is decided on all replicas, each of its bytes sent once to each that needs it; small ones beside
    /// it are decided while it is on its way. Links carry 1 MB/s.
    @Test(arguments: [0, 1]) func aLargeRequest(at origin: Int) throws {
        let rig = try EngineRig(rate: 1e6, roundTrip: 20_000)
        try rig.settle()
        let leader = try #require(rig.leader)
        #expect(leader.index == 1)
        let start = rig.network.history.count
        let began = rig.now
        rig.replicas[origin].submit(1, bytes: Self.mebibyte)
        var small: [UInt64: (at: UInt64, by: Int)] = [:]
        while !rig.isExecuted([1]), rig.now < began + 10_000_000 {
            for index in 0..<3 {
                let tag = UInt64(100 + small.count)
                small[tag] = (rig.now, index)
                rig.replicas[index].submit(tag, bytes: 100)
            }
            rig.run(for: 20_000)
        }
        try #require(rig.isExecuted([1]))
        rig.run(for: 500_000)
        try #require(rig.isExecuted(small.keys))
        #expect(rig.agrees)
        let large = try #require(leader.executed(1))
        // On the links of the leader the way takes a second, and as long from a follower to the leader before.
        #expect(large.at - began > 1_000_000)
        for replica in rig.replicas {
            for executed in replica.executed where executed.tag >= 100 {
                let submitted = small[executed.tag]!
                #expect(executed.at - submitted.at < 250_000, "\(executed) at \(replica.index)")
            }
            #expect(replica.board.elections.load() == (replica.index == 1 ? 1 : 0))
        }
        for follower in [0, 2] {
            let sent = rig.network.payloadBytes(from: 1, to: follower, since: start)
            #expect((Self.mebibyte..<Self.mebibyte + 200_000).contains(sent), "\(sent) bytes to \(follower)")
        }
        if origin == 0 {
            let forwarded = rig.network.payloadBytes(from: 0, to: 1, since: start)
            #expect((Self.mebibyte..<Self.mebibyte + 100_000).contains(forwarded))
        }
        #expect(rig.replicas.allSatisfy { $0.board.resent.load() == 0 })
    }

    /// Of each peer the incarnation and the life are on record before its first message counts.
    @Test func theLivesOfPeersAreOnRecord() throws {
        let rig = try EngineRig(rate: 1e9)
        try rig.settle()
        for (index, replica) in rig.replicas.enumerated() {
            for peer in 0..<rig.replicas.count where peer != index {
                #expect(replica.acceptor.incarnation(of: UInt16(peer)) == UInt64(peer) + 1)
                #expect(replica.acceptor.life(of: UInt16(peer)) == Life(bootCount: 1, nonce: UInt64(peer) + 1))
            }
        }
    }

    /// A follower whose executor stands still says that its log is full; it is sent nothing meanwhile, the leader goes
    /// on leading, and when the executor goes on it catches up.
    @Test func aFullLog() throws {
        let rig = try EngineRig(rate: 100e6, logSize: 8 << 20)
        try rig.settle()
        let follower = rig.replicas[0]
        follower.isStill = true
        // More than the log of the follower holds, no more than the others can keep for it.
        let most = rig.replicas[0].acceptor.capacity / 8_300
        var tag: UInt64 = 0
        while follower.board.batchesDropped.load() == 0, tag < UInt64(most + 100) {
            tag += 1
            rig.replicas[1].submit(tag, bytes: 8_192)
            rig.run(for: 1_000)
        }
        try #require(follower.board.batchesDropped.load() > 0, "the log gets full")
        rig.run(for: 100_000)
        let isFull = follower.engine.core.isFull
        #expect(isFull)
        let start = rig.network.history.count
        let dropped = follower.board.batchesDropped.load()
        let last = tag
        while tag < last + 20 {
            tag += 1
            rig.replicas[1].submit(tag, bytes: 8_192)
            rig.run(for: 100_000)
        }
        #expect(rig.isExecuted([tag], by: [1, 2]), "the others go on")
        #expect(rig.network.payloadBytes(from: 1, to: 0, since: start) == 0, "it has no room")
        #expect(follower.board.batchesDropped.load() == dropped)
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0], "the leader is heard all the same")
        #expect(follower.executed.isEmpty)
        follower.isStill = false
        let caughtUp = rig.run(for: 5_000_000, until: follower.executed.last?.tag == tag)
        #expect(caughtUp && rig.agrees)
        let stillFull = follower.engine.core.isFull
        #expect(!stillFull)
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
    }

    /// A link goes down and up again in the middle of a large request.
    @Test(arguments: [(0, 1), (1, 0), (1, 2)]) func aNewLinkInTheMiddle(origin: Int, other: Int) throws {
        let rig = try EngineRig(rate: 1e6, roundTrip: 20_000)
        try rig.settle()
        let start = rig.network.history.count
        rig.replicas[origin].submit(1, bytes: Self.mebibyte)
        rig.run(for: 500_000)
        let before = rig.network.payloadBytes(from: origin, to: other, since: start)
        #expect(before > 100_000 && before < Self.mebibyte)
        rig.cut(origin, other)
        rig.run(for: 50_000)
        rig.mend(origin, other)
        let isDecided = rig.run(for: 10_000_000, until: rig.isExecuted([1]))
        #expect(isDecided && rig.agrees)
        #expect(rig.replicas.allSatisfy { $0.executed.count == 1 }, "once")
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
        let sent = rig.network.payloadBytes(from: origin, to: other, since: start)
        #expect(sent < before + Self.mebibyte + 20_000, "what was lost is sent again, nothing else")
    }

    /// The leader is cut off in the middle of a large request of its own client. The others elect another; when the old
    /// one hears of it, it hands the request on.
    @Test func aNewLeaderInTheMiddle() throws {
        let rig = try EngineRig(rate: 1e6, roundTrip: 20_000)
        try rig.settle()
        rig.replicas[1].submit(1, bytes: Self.mebibyte)
        rig.replicas[1].submit(2, bytes: Self.mebibyte / 2)
        rig.run(for: 300_000)
        #expect(!rig.replicas.contains { $0.executed(1) != nil })
        rig.cut(1, 0)
        rig.cut(1, 2)
        let isElected = rig.run(
            for: 10_000_000, until: rig.replicas[0].isLeading || rig.replicas[2].isLeading)
        try #require(isElected)
        let leader = try #require(rig.leader)
        try #require(leader.index != 1)
        leader.submit(3, bytes: 100)
        rig.run(for: 500_000)
        #expect(rig.isExecuted([3], by: [0, 2]))
        let start = rig.network.history.count
        rig.mend(1, 0)
        rig.mend(1, 2)
        let isDecided = rig.run(for: 20_000_000, until: rig.isExecuted([1, 2, 3]))
        #expect(isDecided && rig.agrees)
        #expect(rig.replicas.allSatisfy { $0.executed.count == 3 })
        #expect(rig.leader === leader && rig.replicas[1].board.knownLeader == leader.index)
        let forwarded = rig.network.payloadBytes(from: 1, to: leader.index, since: start)
        let size = Self.mebibyte * 3 / 2
        #expect((size..<size + 10_000).contains(forwarded))
        #expect(rig.network.payloadBytes(from: 1, to: 2 - leader.index, since: start) == 0, "it does not lead")
        #expect(rig.replicas[1].board.commandsForwarded.load() == 2)
    }

    /// What a peer sends in pieces is no more trusted than what it sends whole.
    @Test func malformedParcels() throws {
        let rig = try EngineRig()
        try rig.settle()
        let victim = rig.replicas[1]
        let figures = victim.board.peers[0]
        var number: UInt64 = 1 << 50
        func header(_ encode: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: PeerHeader.size)
            bytes.withUnsafeMutableBytes { encode($0.baseAddress!) }
            return bytes
        }
        /// A parcel of 100 bytes, delivered with this header.
        func deliver(_ inner: [UInt8]) {
            number += 1
            let piece = header {
                LinkFrame.piece(parcel: number, offset: 0, size: 100).encodeHeader(
                    payloadCount: 100, sender: 0, into: $0)
            }
            let deliver = header {
                LinkFrame.deliver(parcel: number).encodeHeader(payloadCount: PeerHeader.size, sender: 0, into: $0)
            }
            victim.arrived(piece + [UInt8](repeating: 9, count: 100), from: 0)
            victim.arrived(deliver + inner, from: 0)
            rig.run(for: 1_000)
        }
        func message(_ kind: Message.Kind, length: UInt32, view: UInt64 = 1) -> [UInt8] {
            header {
                PeerFrame.encodeHeader(
                    of: Message(
                        kind: kind, view: view, instance: 1, commit: kind == .decided ? 1 : 0,
                        batch: Batch(offset: 0, length: length, checksum: 5)), sender: 0, into: $0)
            }
        }
        func link(_ frame: LinkFrame, count: Int) -> [UInt8] {
            header { frame.encodeHeader(payloadCount: count, sender: 0, into: $0) }
        }
        func foreign(_ kind: UInt8, sender: UInt8 = 0) -> [UInt8] {
            header { PeerHeader(kind: kind, sender: sender, payloadCount: 100).encode(into: $0) }
        }
        let view = victim.board.view.load()
        let malformed: [(String, [UInt8])] = [
            ("a shorter payload", message(.decided, length: 99)),
            ("a longer payload", message(.decided, length: 101)),
            ("a huge payload", message(.decided, length: .max)),
            ("a kind without a payload", message(.accepted, length: 0)),
            ("a piece", link(.piece(parcel: 1, offset: 0, size: 100), count: 100)),
            ("a deliver", link(.deliver(parcel: number + 5), count: PeerHeader.size)),
            ("a mark", link(.mark(stamp: 1), count: 0)),
            ("handshakes", foreign(0xF0)), ("the last kind", foreign(0xFF)), ("no kind", foreign(0x7F)),
            ("another sender", foreign(Message.Kind.decided.rawValue, sender: 2)),
            ("garbage", [UInt8](repeating: 0x5A, count: PeerHeader.size)),
            ("zeros", [UInt8](repeating: 0, count: PeerHeader.size)),
        ]
        for (what, inner) in malformed {
            let before = figures.framesMalformed.load()
            deliver(inner)
            #expect(figures.framesMalformed.load() == before + 1, "\(what)")
        }
        // A run of commands whose checksum or records are not right.
        let before = figures.framesMalformed.load()
        deliver(header { PeerFrame.encodeForwardHeader(count: 100, checksum: 1, view: 1, sender: 0, into: $0) })
        #expect(figures.framesMalformed.load() == before + 1)
        #expect(victim.board.view.load() == view && victim.isLeading)
        // Nothing is wrong with replica or link.
        rig.replicas[0].submit(1, bytes: 50_000)
        rig.replicas[1].submit(2, bytes: 300_000)
        let isDecided = rig.run(for: 2_000_000, until: rig.isExecuted([1, 2]))
        #expect(isDecided)
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
    }

    /// Where a round trip takes 300 ms, a command that comes while others are under way is not held back until these
    /// are decided.
    @Test func farAway() throws {
        let rig = try EngineRig(roundTrip: 300_000)
        try rig.settle()
        // The round trip gets known.
        rig.run(for: 3_000_000)
        let leader = try #require(rig.leader)
        let first = UInt64(1)
        for tag in first..<first + 40 {
            leader.submit(tag, bytes: 100)
            let submitted = rig.now
            rig.run(for: 17_000)
            let sent = rig.network.sent(from: leader.index, to: 0).last { $0.message?.kind == .accept }
            #expect((sent?.departure ?? 0) >= submitted, "the proposal of \(tag) leaves within 17 ms")
        }
        rig.run(for: 1_000_000)
        #expect(rig.isExecuted(first..<first + 40))
        #expect(rig.agrees)
    }

    /// What waits makes several batches where peers are far away, since a batch counts when its last byte has arrived;
    /// else one.
    @Test(arguments: [(900, 1...2), (300_000, 6...10)]) func whatWaits(roundTrip: UInt64, batches: ClosedRange<UInt64>)
        throws
    {
        let rig = try EngineRig(roundTrip: roundTrip)
        try rig.settle()
        rig.run(for: 3_000_000)
        let leader = try #require(rig.leader)
        for tag in 1...450 as ClosedRange<UInt64> { leader.submit(tag, bytes: 100) }
        let before = leader.board.batchesProposed.load()
        rig.run(for: 1_000)
        #expect(batches.contains(leader.board.batchesProposed.load() - before))
    }

    /// Near each other, what comes within a round trip makes a batch or two: a batch each would cost more.
    @Test func nearby() throws {
        let rig = try EngineRig(roundTrip: 900)
        try rig.settle()
        let leader = try #require(rig.leader)
        let before = leader.board.batchesProposed.load()
        for tag in 1...200 as ClosedRange<UInt64> {
            leader.submit(tag, bytes: 100)
            rig.run(for: 50)
        }
        rig.run(for: 100_000)
        #expect(rig.isExecuted(1...200))
        // 10 ms of commands, a round trip of 900 µs.
        #expect(leader.board.batchesProposed.load() - before < 30)
    }

    /// A follower on a link that is slower than the load for a while is waited for: the log does not leave it behind.
    @Test func aSlowLink() throws {
        let rig = try EngineRig(rate: 100e6, logSize: 8 << 20, window: 1024)
        rig.network.set(1, 2, rate: 16e6)
        rig.network.set(0, 2, isCut: true)
        try rig.settle()
        let count = UInt64(14_000_000 / 8_000)
        var waits = 0
        for tag in 1...count {
            rig.replicas[1].submit(tag, bytes: 8_000)
            if tag % 10 == 0 { rig.run(for: 800) }
            if rig.replicas[1].engine.isHeldBack {
                waits += 1
                #expect(rig.replicas[1].engine.nextDeadline <= rig.now + 1_000, "it looks again soon")
            }
        }
        #expect(waits > 0)
        let isDecided = rig.run(for: 5_000_000, until: rig.isExecuted(1...count))
        #expect(isDecided && rig.agrees)
        let needsState = rig.replicas[2].engine.core.needsStateTransfer
        #expect(!needsState)
        #expect(rig.replicas[1].board.floor.load() > 1, "the log has gone round")
        #expect(rig.restless == 0, "a leader that waits sleeps")
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
    }

    /// A leader whose log is full of what is not executed waits for the executor, and sleeps meanwhile.
    @Test(arguments: [100, 8_000, 300_000]) func theLeadersOwnLogIsFull(bytes: Int) throws {
        let rig = try EngineRig(rate: 100e6, logSize: 8 << 20)
        try rig.settle()
        let leader = rig.replicas[1]
        leader.isStill = true
        let count = UInt64(bytes == 100 ? 4_000 : 12_000_000 / bytes)
        for tag in 1...count {
            leader.submit(tag, bytes: bytes)
            if bytes > 100 { rig.run(for: 1_000) }
        }
        rig.run(for: 1_000_000)
        #expect(rig.restless == 0)
        #expect(rig.replicas.map { $0.board.elections.load() } == [0, 1, 0])
        if bytes > 100 { #expect(!rig.isExecuted([count], by: [0])) }
        leader.isStill = false
        let isDecided = rig.run(for: 10_000_000, until: rig.isExecuted(1...count))
        #expect(isDecided && rig.agrees)
    }

    /// What a new leader sends in pieces right behind its first words is not taken for something of the view before.
    @Test func piecesRightBehindANewView() throws {
        let rig = try EngineRig(rate: 100e6, roundTrip: 100)
        try rig.settle()
        rig.cut(1, 0)
        rig.cut(1, 2)
        let candidates = [rig.replicas[0], rig.replicas[2]]
        let isStanding = rig.run(for: 5_000_000, until: candidates.contains { $0.board.knownLeader == nil })
        try #require(isStanding)
        let leader = try #require(candidates.first { $0.board.knownLeader == nil })
        let start = rig.network.history.count
        leader.submit(1, bytes: Self.mebibyte)
        let isDecided = rig.run(for: 5_000_000, until: rig.isExecuted([1], by: [0, 2]))
        try #require(isDecided && leader.isLeading)
        let sent = rig.network.payloadBytes(from: leader.index, to: 2 - leader.index, since: start)
        #expect(sent < Self.mebibyte + 1_000, "each byte goes once")
    }

    /// Pieces of an earlier view do not make up a whole with what comes in a later one.
    @Test func piecesOfAnEarlierView() throws {
        let rig = try EngineRig()
        try rig.settle()
        let victim = rig.replicas[2]
        let figures = victim.board.peers[0]
        /// The first half of a parcel, or the second, and a word of what it is that makes no sense.
        func send(_ parcel: UInt64, offset: Int) {
            var piece = [UInt8](repeating: 9, count: PeerHeader.size + 50)
            piece.withUnsafeMutableBytes {
                LinkFrame.piece(parcel: parcel, offset: UInt64(offset), size: 100).encodeHeader(
                    payloadCount: 50, sender: 0, into: $0.baseAddress!)
            }
            victim.arrived(piece, from: 0)
            guard offset > 0 else { return }
            var deliver = [UInt8](repeating: 9, count: 2 * PeerHeader.size)
            deliver.withUnsafeMutableBytes {
                LinkFrame.deliver(parcel: parcel).encodeHeader(
                    payloadCount: PeerHeader.size, sender: 0, into: $0.baseAddress!)
            }
            victim.arrived(deliver, from: 0)
        }
        send(1, offset: 0)
        send(2, offset: 0)
        rig.run(for: 10_000)
        send(1, offset: 50)
        rig.run(for: 10_000)
        #expect(figures.framesMalformed.load() == 1, "it is whole")
        #expect(figures.parcelsLost.load() == 0)
        rig.cut(1, 0)
        rig.cut(1, 2)
        let isElected = rig.run(for: 10_000_000, until: rig.replicas[0].isLeading || victim.isLeading)
        try #require(isElected)
        rig.run(for: 100_000)
        send(2, offset: 50)
        rig.run(for: 10_000)
        #expect(figures.framesMalformed.load() == 1, "the first half is forgotten")
        #expect(figures.parcelsLost.load() == 2, "the piece and the word are counted")
    }

    /// The promise of a replica carries a large value over a slow link: whoever waits for it is not overtaken, nor
    /// gives up.
    @Test func aPromiseThatTakesLong() throws {
        let rig = try EngineRig(5, rate: 10e6)
        for other in [2, 3] { rig.network.set(1, other, rate: 20_000) }
        try rig.settle()
        rig.replicas[1].submit(1, bytes: Self.mebibyte)
        let isAccepted = rig.run(for: 5_000_000, until: rig.replicas[0].engine.core.highest == 1)
        try #require(isAccepted)
        for other in [0, 2, 3] {
            rig.cut(1, other)
            rig.cut(4, other)
        }
        for other in [2, 3] { rig.network.set(0, other, rate: 200_000) }
        let began = rig.now
        let isDecided = rig.run(for: 60_000_000, until: rig.isExecuted([1], by: [0, 2, 3]))
        // Five seconds to whoever is to lead, and five to the third.
        #expect(isDecided && rig.now < began + 16_000_000)
    }

    /// Before the founding an engine keeps what the links tell it of members, takes part in nothing, and rests; the
    /// links that stood by then are those that it begins with.
    @Test func theFoundingBeginsIt() throws {
        let rig = try EngineRig(isFounded: false)
        rig.run(for: 3_000_000)
        for replica in rig.replicas {
            #expect(replica.board.role == .joining && replica.board.view.load() == 0 && !replica.board.isReady)
            #expect(replica.acceptor.incarnation(of: UInt16((replica.index + 1) % 3)) != nil)
        }
        #expect(rig.restless == 0)
        for replica in rig.replicas {
            replica.say(.whole)
            rig.run(for: 10_000)
            #expect(replica.progress.founding == .whole && replica.acceptor.founding == .whole)
            replica.say(.founded)
        }
        try rig.settle()
        #expect(rig.replicas.allSatisfy { $0.acceptor.founding == .founded })
    }
}
