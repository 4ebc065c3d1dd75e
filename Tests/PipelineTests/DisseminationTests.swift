import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// Large batches on their way ahead of their proposals, over real traffic. Replica 0 leads; links carry 1 MB/s.
@Suite struct DisseminationTests {
    /// A leader's large batches, let go at the end of a test.
    private final class Leader {
        var dissemination = Dissemination()
        let rig: TrafficRig
        /// Others that must have a batch, and those that are waited for besides.
        var others = 1
        var wanted: UInt16 = 0b110

        init(_ count: Int = 3, rate: Double = 1e6) throws { rig = try TrafficRig(count, rate: rate) }
        deinit {
            rig.sender.traffic.dropProposals()
            while let batch = dissemination.removeFirst() { batch.frame.discard() }
        }

        /// - Parameter salt: nil: what it holds does not matter.
        func add(_ size: Int, salt: Int? = nil) {
            let frame = Frame(size: PeerHeader.size + size)
            if let salt {
                (frame.bytes.baseAddress! + PeerHeader.size).copyMemory(
                    from: TrafficEnd.payload(size, salt: salt), byteCount: size)
            }
            dissemination.add(LargeBatch(frame, isOwn: true))
        }

        var ready: Int? {
            dissemination.ready(over: rig.sender.traffic, others: others, wanted: wanted, now: rig.now)
        }

        /// As the engine does: lets time pass until a batch may be proposed, then takes it out; returns its size.
        func nextReady(within duration: UInt64 = 5_000_000) -> Int? {
            var found: Int?
            rig.run(for: duration, until: found != nil) { end in
                guard end.index == 0, found == nil else { return }
                dissemination.spread(to: .max, over: end.traffic, now: rig.now)
                found = ready
            }
            guard let found else { return nil }
            let batch = dissemination.remove(found)
            defer { batch.frame.discard() }
            // A disseminated parcel may not outlive the frame.
            rig.sender.traffic.dropProposals()
            return batch.size
        }

        func begin() { dissemination.spread(to: .max, over: rig.sender.traffic, now: rig.now) }

        /// Lets time pass until all of a batch has left for a peer.
        func leave(_ place: Int, for peer: Int) -> UInt64? {
            guard let parcel = dissemination[place].parcel else { return nil }
            let traffic = rig.sender.traffic
            rig.run(for: 5_000_000, until: traffic.hasLeft(parcel, for: peer))
            guard traffic.hasLeft(parcel, for: peer) else { return nil }
            let pieces = rig.network.sent(from: 0, to: peer).filter { $0.pieceOf == parcel }
            #expect(!pieces.isEmpty)
            return rig.now
        }
    }

    /// A batch is proposed when it has left for a quorum, after a grace for the others: as long as that took, and a
    /// little.
    @Test func theOthersGetAGrace() throws {
        let leader = try Leader()
        leader.rig.network.set(0, 2, rate: 50_000)
        let start = leader.rig.now
        leader.add(400_000)
        leader.begin()
        let middle = start + 200_000
        leader.rig.run(for: middle - start)
        #expect(leader.ready == nil, "it has left for nobody")
        #expect(leader.dissemination.nextDeadline == .max)
        let departure = try #require(leader.leave(0, for: 1))
        #expect((start + 350_000...start + 700_000).contains(departure))
        #expect(leader.ready == nil, "the other gets a grace")
        let deadline = leader.dissemination.nextDeadline
        #expect(deadline == departure + 20_000 + (departure - start))
        leader.rig.run(for: deadline - 1 - leader.rig.now)
        #expect(leader.ready == nil)
        leader.rig.run(for: 1)
        #expect(leader.ready == 0)
        let parcel = try #require(leader.dissemination[0].parcel)
        #expect(!leader.rig.sender.traffic.hasLeft(parcel, for: 2))
    }

    /// When it has left for all that are waited for there is nothing to wait for.
    @Test func itHasLeftForAll() throws {
        let leader = try Leader()
        leader.rig.network.set(0, 2, rate: 900_000)
        leader.add(400_000)
        leader.begin()
        let first = try #require(leader.leave(0, for: 1))
        #expect(leader.ready == nil)
        let second = try #require(leader.leave(0, for: 2))
        #expect(second > first && second < leader.dissemination.nextDeadline)
        #expect(leader.ready == 0)
    }

    /// Who is not linked is not waited for; nor is a quorum made of those who are not.
    @Test func whoIsAway() throws {
        let leader = try Leader()
        leader.rig.sender.progress.set(connected: false, 2)
        leader.wanted = 0b010
        leader.add(100_000)
        leader.begin()
        leader.rig.run(for: 20_000)
        #expect(leader.ready == nil)
        _ = try #require(leader.leave(0, for: 1))
        #expect(leader.ready == 0)
        leader.wanted = 0b100
        #expect(leader.ready == nil, "the only one for which it left is away")
        #expect(leader.rig.network.payloadBytes(from: 0, to: 2) == 0)
    }

    /// With a larger quorum it must have left for more.
    @Test func aLargerQuorum() throws {
        let leader = try Leader(5)
        leader.others = 2
        leader.wanted = 0b11110
        for (peer, rate) in [(1, 1e6), (2, 8e5), (3, 1e5), (4, 1e5)] { leader.rig.network.set(0, peer, rate: rate) }
        leader.add(200_000)
        leader.begin()
        _ = try #require(leader.leave(0, for: 1))
        leader.rig.run(for: 1)
        #expect(leader.ready == nil && leader.dissemination.nextDeadline == .max)
        let second = try #require(leader.leave(0, for: 2))
        #expect(leader.ready == nil)
        #expect((second + 20_000..<second + 1_000_000).contains(leader.dissemination.nextDeadline))
    }

    /// Of batches that begin together the small ones arrive first, and equal ones in order; the large one gets there
    /// all the same.
    @Test func order() throws {
        let leader = try Leader(2)
        leader.wanted = 0b10
        for (size, salt) in [(500_000, 1), (50_000, 2), (60_000, 3), (60_008, 4)] { leader.add(size, salt: salt) }
        leader.begin()
        var order: [Int] = []
        leader.rig.run(for: 3_000_000, until: order.count == 4) { end in
            guard end.index == 0, let place = leader.ready else { return }
            let (large, parcel) = leader.dissemination[place]
            order.append(large.size)
            // Into the log and proposed, as the engine does.
            let instance = Instance(order.count)
            guard let room = end.acceptor.reserve(large.size) else { return }
            room.copyMemory(from: large.bytes, byteCount: large.size)
            let batch = end.acceptor.seal(large.size, for: instance)
            end.traffic.wasProposed(parcel!, as: batch, for: instance)
            leader.dissemination.remove(place).frame.discard()
            end.traffic.send(TrafficEnd.propose(instance, batch), to: 1 << 1)
        }
        leader.rig.run(for: 200_000)
        #expect(order == [50_000, 60_000, 60_008, 500_000])
        #expect(leader.rig.receiver.proposals == [1, 2, 3, 4])
        for (place, salt) in [2, 3, 4, 1].enumerated() {
            let payload = Array(leader.rig.receiver.got[place].payload)
            #expect(payload == TrafficEnd.payload(order[place], salt: salt))
        }
        #expect(leader.rig.network.payloadBytes(from: 0, to: 1) == 670_008, "each byte goes once")
    }

    /// Who leads again sends everything again: the others have forgotten what came.
    @Test func leadingAgain() throws {
        let leader = try Leader()
        leader.add(100_000)
        leader.begin()
        let first = try #require(leader.dissemination[0].parcel)
        _ = try #require(leader.leave(0, for: 1))
        _ = try #require(leader.leave(0, for: 2))
        #expect(leader.ready == 0)
        leader.rig.sender.traffic.dropProposals()
        leader.dissemination.stop()
        for end in leader.rig.ends { end.traffic.dropIncoming() }
        #expect(leader.ready == nil && leader.dissemination[0].parcel == nil)
        leader.rig.run(for: 1_000_000)
        #expect(leader.ready == nil)
        let start = leader.rig.network.history.count
        leader.begin()
        let second = try #require(leader.dissemination[0].parcel)
        #expect(second != first)
        #expect(leader.ready == nil && leader.dissemination.nextDeadline == .max)
        _ = try #require(leader.leave(0, for: 1))
        _ = try #require(leader.leave(0, for: 2))
        #expect(leader.ready == 0)
        #expect(leader.rig.network.payloadBytes(from: 0, to: 1, since: start) == 100_000)
    }

    /// On a new link a batch begins anew, and counts as gone only when it has left on that one.
    @Test func aNewLink() throws {
        let leader = try Leader()
        leader.wanted = 0b010
        leader.add(100_000)
        leader.begin()
        _ = try #require(leader.leave(0, for: 1))
        #expect(leader.ready == 0)
        leader.rig.reconnect(0, 1)
        #expect(leader.ready == nil)
        let start = leader.rig.network.history.count
        _ = try #require(leader.leave(0, for: 1))
        #expect(leader.ready == 0)
        #expect(leader.rig.network.payloadBytes(from: 0, to: 1, since: start) == 100_000)
    }

    /// A batch that began while nobody was linked goes out when somebody is.
    @Test func whoComesLater() throws {
        let leader = try Leader()
        for peer in 1...2 { leader.rig.sender.progress.set(connected: false, peer) }
        leader.wanted = 0
        leader.add(100_000)
        #expect(leader.nextReady(within: 500_000) == nil)
        #expect(leader.rig.network.payloadBytes(from: 0, to: 1) == 0)
        leader.rig.sender.progress.set(connected: true, 1)
        leader.wanted = 0b010
        #expect(leader.nextReady() == 100_000)
        #expect(leader.rig.network.payloadBytes(from: 0, to: 1) == 100_000)
    }

    /// A batch that began while a peer had too much to get already goes to it when there is room.
    @Test func whoHasTooMuchToGet() throws {
        let leader = try Leader(2)
        leader.wanted = 0b10
        let run = TrafficEnd.payload(17_000, salt: 1)
        for _ in 0..<PeerTraffic.mostParcels { leader.rig.sender.forward(run, to: 1) }
        leader.add(100_000)
        leader.begin()
        #expect(leader.rig.sender.traffic.parcelBytes(to: 1) == PeerTraffic.mostParcels * run.count)
        #expect(leader.nextReady() == 100_000)
        #expect(leader.rig.receiver.runs.count > 1)
    }

    @Test func room() throws {
        let leader = try Leader(2)
        for _ in 0..<PeerTraffic.mostParcels / 2 {
            #expect(leader.dissemination.hasRoom)
            leader.add(17_000)
        }
        #expect(!leader.dissemination.hasRoom)
        leader.dissemination.remove(3).frame.discard()
        #expect(leader.dissemination.hasRoom)
        while let batch = leader.dissemination.removeFirst() { batch.frame.discard() }
        #expect(leader.dissemination.isEmpty)
        leader.add((32 << 20) - 1)
        #expect(leader.dissemination.hasRoom)
        leader.add(1)
        #expect(!leader.dissemination.hasRoom)
    }
}
