import Logging
import MPaxosClusterSimulation
import MPaxosConsensus
import MPaxosFrames
import MPaxosQueues
import MPaxosWire
import Testing

@testable import MPaxosLinks
@testable import MPaxosMetrics
@testable import MPaxosPipeline

/// A process of one replica, as far as its links.
final class LinkReplica {
    /// What is on durable record.
    struct Record {
        var ancestors: [UInt64] = []
        var members: [Acquaintances.Record]
        var refused: [Life]
        var founding = Acquaintances.Founding.gathering
        let incarnation: UInt64
        private(set) var life: Life

        init(incarnation: UInt64, memberCount: Int, life: Life) {
            self.incarnation = incarnation
            self.life = life
            members = Array(repeating: .none, count: memberCount)
            refused = Array(repeating: .none, count: memberCount)
        }

        func started(nonce: UInt64) -> Record {
            var next = self
            if life != .none { next.ancestors.insert(life.nonce, at: 0) }
            next.life = Life(bootCount: life.bootCount + 1, nonce: nonce)
            return next
        }
    }

    let index: Int
    let board: StatusBoard
    let log = ErrorLog()
    let progress = Progress.allocate()
    let sockets: SimulatedLinkSockets
    let links: PeerLinks
    private(set) var record: Record
    /// Why it can never be one of the cluster again.
    private(set) var expelled: String?
    /// What came from each replica, as often as it came.
    private(set) var received: [Int: [UInt64]] = [:]
    private let rings = Rings(outstanding: 16)
    private let parker = Parker.allocate()!
    private let frame = Frame()
    private var isStopped = false

    init(
        _ index: Int, at place: Int, from record: Record, _ charter: Charter, keys: SimulatedLinkSockets.Keys?,
        in cluster: LinkCluster
    ) {
        let board = StatusBoard(members: cluster.charter.members)
        let log = self.log
        self.index = index
        self.board = board
        self.record = record
        var records = record.members
        records[index] = .init(incarnation: record.incarnation, life: record.life)
        sockets = SimulatedLinkSockets(
            index: place, memberCount: cluster.count, over: cluster.connections, keys: keys)
        let last = Last()
        links = PeerLinks(
            settings: .init(
                index: index, cluster: "c", replica: UInt16(index), charter: charter,
                fingerprint: charter.fingerprint(layout: 1),
                members: cluster.charter.members.map {
                    .init(id: $0, incarnation: 0, life: .none, peerEndpoint: "p\($0)", clientEndpoint: "c\($0)")
                },
                acquaintances: Acquaintances(
                    index: index, ancestors: Array(record.ancestors.prefix(Life.mostAncestors)), records: records,
                    refused: record.refused, founding: record.founding),
                skips: []),
            sockets: sockets, random: { [world = cluster.world] in world.number() }, progress: progress, board: board,
            logger: Logger(label: "links", factory: { _ in log }), rings: rings, engine: parker,
            expelled: { last.words = $0 })
        self.last = last
        progress.founding = record.founding
        for (member, known) in record.members.enumerated() { progress.record(known.incarnation, of: member) }
    }

    private let last: Last

    private final class Last: @unchecked Sendable {
        // Unchecked: the links call on the test's thread.
        var words: String?
    }

    deinit {
        stop()
        rings.deallocate()
        progress.deallocate()
        parker.deallocate()
    }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        links.close()
    }

    func turn(now: UInt64) {
        for _ in 0..<100 {
            guard links.poll(budget: 64, now: now) else { break }
            playEngine()
        }
        expelled = last.words
    }

    private func playEngine() {
        while let arrival = rings.arrivals.pop() {
            let peer = Int(arrival.peer)
            switch arrival.kind {
            case .frame:
                frame.adopt(arrival.frame)
                guard let header = try? PeerHeader(decoding: UnsafeRawBufferPointer(frame.bytes)) else {
                    Issue.record("a frame that is handed on has a sound header")
                    continue
                }
                #expect(Int(header.sender) == peer && Int(header.numbers.1) == index, "it came from whom it names")
                received[peer, default: []].append(header.numbers.0)
            case .connected, .hearsay:
                record.members[peer] = .init(incarnation: arrival.incarnation, life: arrival.life)
                progress.record(arrival.incarnation, of: peer)
            case .refused: record.refused[peer] = arrival.life
            case .whole: found(.whole)
            case .founded: found(.founded)
            }
        }
    }

    private func found(_ founding: Acquaintances.Founding) {
        record.founding = max(record.founding, founding)
        progress.founding = record.founding
    }

    /// Hands a frame with this number to the links.
    func send(_ number: UInt64, to peer: Int) {
        Self.frame(number, from: index, to: peer).withUnsafeBytes { frame.rebuild(copying: $0) }
        #expect(rings.departures.push(Departure(peers: 1 << UInt16(peer), frame: frame.take())))
        rings.departures.publish()
    }

    static func frame(_ number: UInt64, from sender: Int, to peer: Int) -> [UInt8] {
        let header = PeerHeader(kind: 1, sender: UInt8(sender), number, UInt64(peer))
        return Array(unsafeUninitializedCapacity: PeerHeader.size) { buffer, count in
            header.encode(into: UnsafeMutableRawPointer(buffer.baseAddress!))
            count = PeerHeader.size
        }
    }

    func isLinked(to peer: Int) -> Bool { progress.isConnected(peer) }

    /// Why there is no link to the peer, by STATUS.
    func refusal(of peer: Int) -> String? { board.peers[peer].refusal.read() }
}
