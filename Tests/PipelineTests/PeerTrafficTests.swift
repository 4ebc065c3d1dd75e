import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// What goes whole, what in pieces, and in which order. The way carries 1 MB/s, unless a test says otherwise.
@Suite struct PeerTrafficTests {
    /// What goes whole as long as nothing was measured.
    private static let largestWhole = 16 << 10

    /// Up to the limit a proposal goes whole, beyond it in pieces; either way each byte goes once and arrives as it
    /// was.
    @Test(arguments: [1, largestWhole - PeerHeader.size, largestWhole - PeerHeader.size + 1, 1 << 20])
    func wholeOrInPieces(size: Int) throws {
        let rig = try TrafficRig()
        rig.sender.propose(1, bytes: size)
        rig.run(for: 2_000_000, until: !rig.receiver.proposals.isEmpty)
        try #require(rig.receiver.proposals == [1])
        #expect(rig.receiver.got.first.map { Array($0.payload) } == TrafficEnd.payload(size, salt: 1))
        #expect(rig.network.payloadBytes(from: 0, to: 1) == size, "each byte goes once")
        let sent = rig.network.sent(from: 0, to: 1)
        let isWhole = size + PeerHeader.size <= Self.largestWhole
        #expect(sent.contains { $0.message?.instance == 1 } == isWhole)
        #expect(sent.contains { $0.pieceOf != nil } == !isWhole)
    }

    /// What a peer asked for to catch up goes in pieces, too, between which proposals pass.
    @Test func answersToAPeerThatCatchesUp() throws {
        let rig = try TrafficRig()
        let batch = rig.sender.batch(300_000, for: 1)
        rig.turn { end in
            guard end.index == 0 else { return }
            end.traffic.send(Message(kind: .decided, view: 3, instance: 1, commit: 1, batch: batch), to: 1 << 1)
            end.propose(2, bytes: 100)
        }
        rig.run(for: 2_000_000)
        #expect(rig.receiver.got.map(\.message?.kind) == [.accept, .decided])
        #expect(rig.receiver.got.last.map { Array($0.payload) } == TrafficEnd.payload(300_000, salt: 1))
    }

    private static func answer(_ batch: Batch, view: View = 3, commit: Instance = 1, kind: Message.Kind = .decided)
        -> Message
    {
        Message(
            kind: kind, view: view, instance: 1, commit: commit, acceptedView: kind == .promise ? 2 : 0, batch: batch)
    }

    /// What a peer asks for again while it is on its way goes out once, with what is known by now.
    @Test func anAnswerAskedForAgain() throws {
        let rig = try TrafficRig()
        let batch = rig.sender.batch(200_000, for: 1)
        rig.sender.traffic.send(Self.answer(batch, commit: 1), to: 1 << 1)
        rig.run(for: 50_000)
        rig.sender.traffic.send(Self.answer(batch, commit: 9), to: 1 << 1)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.got.map(\.message?.commit) == [9])
        #expect(rig.network.payloadBytes(from: 0, to: 1) == 200_000)
        rig.sender.traffic.send(Self.answer(batch, commit: 10), to: 1 << 1)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.got.map(\.message?.commit) == [9, 10], "it has arrived, and was lost")
    }

    /// Another value that is known by now takes the place of one that has not begun to go out, and no other.
    @Test(arguments: [true, false]) func anAnswerThatChanged(hasBegun: Bool) throws {
        let rig = try TrafficRig()
        let old = rig.sender.batch(200_000, for: 1)
        let new = rig.sender.batch(100_000, for: 2)
        rig.sender.traffic.send(Self.answer(old), to: 1 << 1)
        if hasBegun { rig.run(for: 50_000) }
        rig.sender.traffic.send(Self.answer(new), to: 1 << 1)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.got.map(\.payload.count) == [hasBegun ? 200_000 : 100_000])
        let salt = hasBegun ? 1 : 2
        let size = hasBegun ? 200_000 : 100_000
        #expect(rig.receiver.got.first.map { Array($0.payload) } == TrafficEnd.payload(size, salt: salt))
    }

    /// A promise of a view that is over does not go out any more, unless it has begun to.
    @Test func promisesOfOldViews() throws {
        let rig = try TrafficRig()
        let batch = rig.sender.batch(200_000, for: 1)
        rig.sender.traffic.send(Self.answer(batch, view: 4, kind: .promise), to: 1 << 1)
        rig.sender.traffic.send(Self.answer(batch, view: 7, kind: .promise), to: 1 << 1)
        rig.sender.traffic.send(Self.answer(batch), to: 1 << 1)
        rig.run(for: 2_000_000)
        #expect(rig.receiver.got.map(\.message?.view) == [7, 3])
        #expect(rig.network.payloadBytes(from: 0, to: 1) == 400_000)
    }

    /// Proposals that the core takes back, since it repeats them, do not go out.
    @Test func withdrawnProposals() throws {
        let rig = try TrafficRig(3)
        rig.sender.propose(1, bytes: 100_000, to: 1 << 1 | 1 << 2)
        rig.sender.forward(TrafficEnd.payload(50_000, salt: 1), to: 1)
        rig.sender.traffic.withdrawProposals(to: 1)
        #expect(rig.sender.traffic.room(to: 1) > 0 && rig.sender.traffic.room(to: 2) == 0)
        rig.run(for: 1_000_000)
        #expect(rig.ends[1].proposals == [] && rig.ends[1].runs.count == 1)
        #expect(rig.ends[2].proposals == [1])
    }

    /// Of a peer that is away nobody will say what the pieces are that came.
    @Test func whoIsAway() throws {
        let rig = try TrafficRig()
        rig.sender.forward(TrafficEnd.payload(20_000, salt: 1), to: 1)
        rig.run(for: 30_000)
        #expect(rig.receiver.runs.isEmpty)
        rig.receiver.progress.set(connected: false, 0)
        rig.receiver.traffic.publish()
        rig.receiver.progress.set(connected: true, 0)
        rig.run(for: 500_000)
        #expect(rig.receiver.runs.isEmpty)
    }

    /// Heartbeats and acknowledgements leave between the pieces, and arrive soon, though the payload takes a second. Of
    /// the proposal that they overtake heartbeats do not speak.
    @Test func heartbeatsPassBetweenPieces() throws {
        let rig = try TrafficRig()
        rig.sender.propose(8, bytes: 1 << 20)
        for _ in 0..<300 where rig.receiver.proposals.isEmpty {
            rig.sender.traffic.begin(now: rig.now)
            rig.sender.heartbeat(8)
            rig.sender.traffic.send(Message(kind: .accepted, view: 3, instance: 2), to: 1 << 1)
            rig.run(for: 10_000)
        }
        try #require(rig.receiver.proposals == [8])
        let sent = rig.network.sent(from: 0, to: 1)
        let first = try #require(sent.firstIndex { $0.pieceOf != nil })
        let deliver = try #require(sent.firstIndex { if case .deliver? = $0.link { true } else { false } })
        for kind in [Message.Kind.heartbeat, .accepted] {
            let between = sent[first..<deliver].filter { $0.message?.kind == kind }
            #expect(between.count > 50, "\(kind)")
            #expect(between.allSatisfy { $0.arrival - $0.departure < 100_000 }, "\(kind)")
        }
        let before = sent[..<deliver].compactMap { $0.message?.kind == .heartbeat ? $0.message?.instance : nil }
        #expect(before.allSatisfy { $0 == 7 }, "the proposal has not left")
        rig.sender.traffic.begin(now: rig.now)
        rig.sender.heartbeat(8)
        rig.run(for: 100_000)
        #expect(rig.receiver.heartbeats.last == 8)
    }

    /// A heartbeat says to each of several peers what was sent to it.
    @Test func heartbeatsByPeer() throws {
        let rig = try TrafficRig(3)
        rig.sender.propose(5, bytes: 1 << 20, to: 1 << 1)
        rig.sender.heartbeat(5, to: 1 << 1 | 1 << 2)
        rig.sender.propose(6, bytes: 10, to: 1 << 1)
        rig.sender.heartbeat(6, to: 1 << 1 | 1 << 2)
        rig.sender.heartbeat(3, to: 1 << 1 | 1 << 2)
        rig.run(for: 200_000)
        #expect(rig.ends[1].heartbeats == [4, 4, 3])
        #expect(rig.ends[2].heartbeats == [5, 6, 3])
    }

    /// Proposals arrive in the order of their instances, whatever their sizes, and the core is told to wait.
    @Test func proposalsInOrder() throws {
        let rig = try TrafficRig()
        let sizes = [20_000, 300_000, 100, 17_000, 16, 60_000, 1]
        for (place, size) in sizes.enumerated() { rig.sender.propose(Instance(place + 1), bytes: size) }
        #expect(rig.sender.traffic.room(to: 1) == 0)
        rig.run(for: 2_000_000)
        #expect(rig.receiver.proposals == Array(1...7))
        for (place, size) in sizes.enumerated() {
            #expect(Array(rig.receiver.got[place].payload) == TrafficEnd.payload(size, salt: place + 1))
        }
        #expect(rig.network.payloadBytes(from: 0, to: 1) == sizes.reduce(0, +))
        #expect(rig.sender.traffic.room(to: 1) > 0)
    }

    /// Proposals, behind which all others wait, have the right of way before runs, also smaller ones.
    @Test func proposalsGoFirst() throws {
        let rig = try TrafficRig()
        rig.sender.forward(TrafficEnd.payload(80_000, salt: 9), to: 1)
        rig.sender.propose(1, bytes: 100_000)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.got.map(\.payload.count) == [100_000, 80_000])
    }

    /// A batch that went ahead is proposed when its turn comes: not before a proposal of a lower instance that is still
    /// on its way.
    @Test func whatWentAheadWaitsForItsTurn() throws {
        let rig = try TrafficRig()
        let frame = Frame(size: PeerHeader.size + 20_000)
        let batch = LargeBatch(frame, isOwn: true)
        defer { batch.frame.discard() }
        let parcel = rig.sender.disseminate(batch)
        rig.run(for: 200_000)
        #expect(rig.sender.traffic.hasLeft(parcel, for: 1))
        let logged = rig.sender.batch(20_000, for: 7)
        rig.turn { end in
            guard end.index == 0 else { return }
            end.propose(6, bytes: 100_000)
            end.traffic.wasProposed(parcel, as: logged, for: 7)
            end.traffic.send(TrafficEnd.propose(7, logged), to: 1 << 1)
            end.heartbeat(7)
        }
        rig.run(for: 1_000_000)
        #expect(rig.receiver.proposals == [6, 7])
        #expect(rig.receiver.heartbeats == [5])
        #expect(rig.network.payloadBytes(from: 0, to: 1) == 120_000, "what went ahead does not go again")
        let delivers = rig.network.sent(from: 0, to: 1).filter { if case .deliver? = $0.link { true } else { false } }
        #expect(delivers.count == 2 && delivers.first?.departure == delivers.last?.departure, "it waits no longer")
    }

    /// The core repeats its proposals from some instance on: those that wait from there on make way.
    @Test func repetitionsTakeThePlaceOfWhatWaits() throws {
        let rig = try TrafficRig()
        let batches = [
            rig.sender.batch(50_000, for: 1), rig.sender.batch(40_000, for: 2), rig.sender.batch(10, for: 3),
        ]
        func propose(from first: Int, round: UInt64) {
            for place in first...2 {
                rig.sender.traffic.send(
                    Message(
                        kind: .accept, view: 3, instance: Instance(place + 1), acceptedView: round,
                        batch: batches[place]), to: 1 << 1)
            }
        }
        propose(from: 0, round: 0)
        rig.run(for: 20_000)
        propose(from: 1, round: 1)
        rig.run(for: 20_000)
        propose(from: 1, round: 2)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.proposals == [1, 2, 3])
        #expect(rig.receiver.got.map(\.message?.round) == [0, 2, 2])
        #expect(rig.sender.traffic.room(to: 1) > 0, "none waits any more")
    }

    /// The log drops a batch in the middle of its parcel: as if it had been lost, and what comes behind it goes on.
    @Test func theLogDropsWhatIsOnItsWay() throws {
        let rig = try TrafficRig()
        rig.sender.propose(1, bytes: 1 << 20)
        rig.run(for: 100_000)
        #expect(rig.sender.traffic.parcelBytes(to: 1) < 1 << 20, "a part of it has left")
        let slots = UInt64(rig.sender.acceptor.slotCount)
        let floor = rig.sender.acceptor.makeRoom(for: 0, instance: slots + 1, executed: 1) { _, _ in false }
        try #require(floor == 2)
        rig.run(for: 200_000)
        #expect(rig.sender.traffic.parcelBytes(to: 1) == 0)
        #expect(rig.sender.traffic.room(to: 1) > 0)
        rig.sender.propose(2, bytes: 50_000)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.proposals == [2])
    }

    /// The link comes back in the middle of proposals: they are the core's to repeat.
    @Test func aNewLinkForgetsProposals() throws {
        let rig = try TrafficRig()
        rig.sender.propose(1, bytes: 1 << 20)
        rig.sender.propose(2, bytes: 100)
        rig.run(for: 100_000)
        #expect(rig.sender.traffic.room(to: 1) == 0)
        rig.reconnect(0, 1)
        #expect(rig.sender.traffic.room(to: 1) > 0)
        #expect(rig.sender.traffic.parcelBytes(to: 1) == 0)
        let start = rig.network.history.count
        rig.run(for: 500_000)
        #expect(rig.network.payloadBytes(from: 0, to: 1, since: start) == 0)
        rig.sender.propose(3, bytes: 30_000)
        rig.run(for: 200_000)
        #expect(rig.receiver.proposals == [3])
    }

    /// A run of commands begins anew on a new link, and arrives once.
    @Test func aNewLinkBeginsRunsAnew() throws {
        let rig = try TrafficRig()
        let run = TrafficEnd.payload(200_000, salt: 1)
        rig.sender.forward(run, to: 1)
        rig.run(for: 100_000)
        let before = rig.network.payloadBytes(from: 0, to: 1)
        #expect(before > 0 && before < run.count, "a part of it has left")
        rig.reconnect(0, 1)
        let start = rig.network.history.count
        rig.run(for: 1_000_000)
        #expect(rig.receiver.runs == [run])
        #expect(rig.network.payloadBytes(from: 0, to: 1, since: start) == run.count)
    }

    /// The end that takes forgets, too: pieces of an earlier connection do not make up a whole with those of this one.
    @Test func aNewLinkForgetsWhatCame() throws {
        let rig = try TrafficRig()
        rig.sender.forward(TrafficEnd.payload(20_000, salt: 1), to: 1)
        rig.run(for: 500, until: rig.network.sent(from: 0, to: 1).count { $0.pieceOf != nil } == 3)
        let pieces = rig.network.sent(from: 0, to: 1).filter { $0.pieceOf != nil }
        try #require(pieces.count == 3)
        let frame = Frame()
        func take(_ carried: Carried) -> Bool {
            carried.bytes.withUnsafeBytes {
                let payload = UnsafeRawBufferPointer(rebasing: $0[PeerHeader.size...])
                if case .piece = rig.receiver.traffic.take(carried.link!, payload, from: 0, whole: frame) {
                    return true
                }
                return false
            }
        }
        #expect(take(pieces[0]) && take(pieces[1]))
        rig.receiver.traffic.connected(0, now: rig.now)
        #expect(!take(pieces[2]))
        #expect(take(pieces[0]) && take(pieces[1]))
        rig.receiver.traffic.dropIncoming()
        #expect(!take(pieces[2]))
    }

    /// What is under way is bounded by the window, so that what is said at once arrives soon, at any rate of the way.
    @Test(arguments: [100_000, 1_000_000, 20_000_000] as [Double])
    func whatIsUnderWayIsBounded(rate: Double) throws {
        let rig = try TrafficRig(rate: rate)
        rig.network.set(0, 1, rate: rate)
        var instance: Instance = 0
        let chunk = max(100, Int(rate / 1000))
        let start = rig.now
        // Proposals, as many as there is room for, and a run that travels in pieces.
        rig.sender.forward(TrafficEnd.payload(min(max(40_000, Int(rate / 2)), 2_000_000), salt: 1), to: 1)
        let batch = rig.sender.batch(chunk, for: 1)
        var saidAt: UInt64 = 0
        rig.run(for: 4_000_000) { end in
            guard end.index == 0 else { return }
            while end.traffic.room(to: 1) > 0 {
                instance += 1
                end.traffic.send(TrafficEnd.propose(instance, batch), to: 1 << 1)
            }
            end.traffic.ranShort(to: 1)
            if rig.now >= saidAt + 20_000 {
                saidAt = rig.now
                end.traffic.send(Message(kind: .accepted, view: 3, instance: 2), to: 1 << 1)
            }
        }
        let sent = rig.network.sent(from: 0, to: 1)
        let said = sent.filter { $0.message?.kind == .accepted && $0.departure > start + 1_000_000 }
        try #require(said.count > 100)
        let waits = said.map { $0.arrival - $0.departure }
        // On slow ways it is the least window, and a piece of the least size.
        #expect(Double(waits.reduce(0, +)) / Double(waits.count) < 50_000 + 16e9 / rate)
        let carried = sent.filter { $0.departure > start + 1_000_000 }.reduce(0) { $0 + $1.bytes.count }
        #expect(Double(carried) > 3 * rate * 0.9, "the way is kept busy")
        #expect(rig.receiver.runs.count == 1, "pieces get a share")
    }

    /// One large parcel does not hold up small ones, and gets on however many of them come: a quarter of the pieces are
    /// its.
    /// - Parameter phase: turns in which nothing can be sent are strewn in so that, of all pieces and turns, always the
    ///   same of four is one that sends. The share is one of pieces: such turns do not use it up.
    @Test(arguments: 0...3) func smallAndLargeParcels(phase: Int) throws {
        let rig = try TrafficRig()
        let size = 600_000
        rig.sender.forward(TrafficEnd.payload(size, salt: 0), to: 1)
        let start = rig.now
        var begun: [UInt64] = []
        var turns = 0
        let small = TrafficEnd.payload(60_000, salt: 1)
        rig.run(for: 3_500_000, until: rig.receiver.runs.contains { $0.count == size }) { end in
            guard end.index == 0 else { return }
            // More than the window holds: some always wait.
            while begun.count < rig.receiver.runs.count + 6 {
                end.forward(small, to: 1)
                begun.append(rig.now)
            }
            turns += 1
            while (turns + rig.network.pieces) % 4 != phase {
                end.traffic.end()
                rig.network.send(end.rings.departures, from: 0, now: rig.now)
                turns += 1
            }
        }
        let runs = rig.receiver.got.filter { if case .forward? = $0.content { true } else { false } }
        try #require(runs.contains { $0.payload.count == size }, "the oldest gets on")
        #expect(rig.now > start + 1_800_000, "the others get most of what the way carries")
        let arrivals = runs.filter { $0.payload.count != size }.map(\.arrival)
        #expect(arrivals.count > 20)
        for (begun, arrival) in zip(begun, arrivals) { #expect(arrival < begun + 900_000) }
    }

    /// So many parcels wait for one peer, and no more.
    @Test func mostParcels() throws {
        let rig = try TrafficRig(3)
        let run = TrafficEnd.payload(17_000, salt: 1)
        for _ in 0..<PeerTraffic.mostParcels { rig.sender.forward(run, to: 1) }
        #expect(rig.sender.board.departuresDropped.load() == 0)
        rig.sender.forward(run, to: 1)
        #expect(rig.sender.board.departuresDropped.load() == 1)
        #expect(rig.sender.traffic.parcelBytes(to: 1) == PeerTraffic.mostParcels * run.count)
        rig.sender.forward(run, to: 2)
        #expect(rig.sender.board.departuresDropped.load() == 1, "each peer has a bound of its own")
        rig.run(for: 3_000_000)
        #expect(rig.ends[1].runs.count == PeerTraffic.mostParcels)
        #expect(rig.ends[2].runs.count == 1)
    }

    @Test func runsOfAPeer() throws {
        let rig = try TrafficRig(3)
        #expect(!rig.sender.traffic.hasFrame(for: 1))
        rig.sender.propose(1, bytes: 50_000, to: 1 << 1)
        #expect(!rig.sender.traffic.hasFrame(for: 1), "a proposal is none")
        rig.sender.forward(TrafficEnd.payload(100, salt: 1), to: 1)
        #expect(!rig.sender.traffic.hasFrame(for: 1), "it went whole")
        rig.sender.forward(TrafficEnd.payload(50_000, salt: 1), to: 1)
        #expect(rig.sender.traffic.hasFrame(for: 1) && !rig.sender.traffic.hasFrame(for: 2))
        rig.run(for: 300_000)
        #expect(!rig.sender.traffic.hasFrame(for: 1))
    }

    /// What was acknowledged needs not be sent any more.
    @Test func whatAPeerHasIsForgotten() throws {
        let rig = try TrafficRig()
        for instance in 1...3 as ClosedRange<Instance> { rig.sender.propose(instance, bytes: 100_000) }
        rig.sender.forward(TrafficEnd.payload(50_000, salt: 1), to: 1)
        rig.sender.traffic.forget(upTo: 2, for: 1)
        #expect(rig.sender.traffic.parcelBytes(to: 1) == 150_000)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.proposals == [3])
        #expect(rig.receiver.runs.count == 1)
        #expect(rig.sender.traffic.room(to: 1) > 0)
    }

    /// Who does not lead any more forgets what it proposes, not what it forwards.
    @Test func proposalsOfOldAreDropped() throws {
        let rig = try TrafficRig()
        rig.sender.propose(1, bytes: 100_000)
        rig.sender.forward(TrafficEnd.payload(50_000, salt: 1), to: 1)
        let batch = LargeBatch(Frame(size: PeerHeader.size + 20_000), isOwn: true)
        defer { batch.frame.discard() }
        _ = rig.sender.disseminate(batch)
        rig.sender.traffic.dropProposals()
        #expect(rig.sender.traffic.parcelBytes(to: 1) == 50_000)
        #expect(rig.sender.traffic.room(to: 1) > 0)
        rig.run(for: 1_000_000)
        #expect(rig.receiver.proposals == [] && rig.receiver.runs.count == 1)
        #expect(rig.network.payloadBytes(from: 0, to: 1) == 50_000)
    }

    /// Round trip and window of the fastest peers that make a quorum; nothing as long as too few are known.
    @Test func theFastestPeers() throws {
        let rig = try TrafficRig(4)
        rig.network.set(0, 1, rate: 10e6, roundTrip: 10_000)
        rig.network.set(0, 2, rate: 10e6, roundTrip: 40_000)
        rig.network.set(0, 3, isCut: true)
        for wanted in 1...3 { #expect(rig.sender.traffic.leastRoundTrip(toFastest: wanted) == 0) }
        rig.run(for: 3_000_000)
        #expect((10_000..<13_000).contains(rig.sender.traffic.leastRoundTrip(toFastest: 1)))
        #expect((40_000..<43_000).contains(rig.sender.traffic.leastRoundTrip(toFastest: 2)))
        #expect(rig.sender.traffic.leastRoundTrip(toFastest: 3) == 0, "the third is not known")
        #expect(rig.sender.traffic.patience(with: 3) == nil)
        let patience = try #require(rig.sender.traffic.patience(with: 2))
        #expect((50_000..<100_000).contains(patience))
    }

    /// One that asks for what was decided in view after view, and reads nothing, costs no more memory than so many
    /// answers.
    @Test func answersThatNobodyReads() throws {
        let rig = try TrafficRig()
        let batches = (1...200).map { rig.sender.batch(20_000, for: Instance($0)) }
        for view in 3...12 as ClosedRange<View> {
            for (place, batch) in batches.enumerated() {
                let instance = Instance(place + 1)
                rig.sender.traffic.send(
                    Message(kind: .decided, view: view, instance: instance, commit: instance, batch: batch), to: 1 << 1)
            }
        }
        let waiting = rig.sender.traffic.parcelBytes(to: 1)
        #expect(waiting == PeerTraffic.mostAnswers * 20_000)
        #expect(rig.sender.board.departuresDropped.load() == UInt64(10 * 200 - PeerTraffic.mostAnswers))
    }
}
