import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosQueues
import MPaxosStorage
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline

/// One replica's traffic with the others, over its own log, and nothing else of a replica.
final class TrafficEnd {
    let index: Int
    let acceptor: AcceptorPool
    let board: StatusBoard
    let rings = Rings(outstanding: 16)
    let progress = Progress.allocate()
    let traffic: PeerTraffic
    /// Frames that came whole, or were made whole, in order; none of the link itself.
    fileprivate(set) var got: [Carried] = []
    private let parker = Parker.allocate()!
    private let whole = Frame()
    private let folder: TestFolder

    init(_ index: Int, of count: Int, in folder: TestFolder, logSize: Int = 8 << 20) throws {
        self.index = index
        self.folder = folder
        acceptor = try folder.acceptor(index, size: logSize)
        board = StatusBoard(members: (0..<UInt16(count)).map { $0 })
        for peer in 0..<count where peer != index { progress.set(connected: true, peer) }
        traffic = PeerTraffic(
            index: index, count: count, acceptor: acceptor, progress: progress, board: board,
            departures: rings.departures, links: parker, firstParcel: UInt64(index) << 31)
    }

    deinit {
        acceptor.close()
        rings.deallocate()
        progress.deallocate()
        parker.deallocate()
    }

    /// Bytes by which payloads are told from each other.
    static func payload(_ count: Int, salt: Int) -> [UInt8] {
        var state = UInt64(salt) &+ 1
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 33)
        }
    }

    /// A batch in the log, with a vote for an instance.
    func batch(_ count: Int, for instance: Instance) -> Batch {
        guard let place = acceptor.reserve(count) else { preconditionFailure("the log of the test is full") }
        place.copyMemory(from: Self.payload(count, salt: Int(instance)), byteCount: count)
        let batch = acceptor.seal(count, for: instance)
        acceptor.record(instance: instance, view: 3, batch: batch)
        acceptor.fence()
        return batch
    }

    static func propose(_ instance: Instance, _ batch: Batch) -> Message {
        Message(kind: .accept, view: 3, instance: instance, batch: batch)
    }

    /// Puts a batch into the log and proposes it to some peers.
    @discardableResult
    func propose(_ instance: Instance, bytes: Int, to peers: UInt16 = 1 << 1) -> Batch {
        let batch = batch(bytes, for: instance)
        traffic.send(Self.propose(instance, batch), to: peers)
        return batch
    }

    func heartbeat(_ highest: Instance, to peers: UInt16 = 1 << 1) {
        traffic.send(Message(kind: .heartbeat, view: 3, instance: highest), to: peers)
    }

    /// A run of commands, as far as traffic can tell.
    func forward(_ payload: [UInt8], to peer: Int) {
        let frame = Frame(size: PeerHeader.size + payload.count)
        let bytes = frame.bytes.baseAddress!
        (bytes + PeerHeader.size).copyMemory(from: payload, byteCount: payload.count)
        PeerFrame.encodeForwardHeader(count: payload.count, checksum: 7, view: 3, sender: index, into: bytes)
        traffic.send(frame, to: peer)
    }

    /// Sends a batch ahead to all that are linked; returns the number of its parcel.
    func disseminate(_ batch: LargeBatch) -> UInt64 {
        let parcel = traffic.newParcelNumber()
        traffic.disseminate(batch.records, as: parcel, to: .max)
        return parcel
    }

    fileprivate func take(_ carried: Carried) {
        guard case .link(let message)? = carried.content else { return got.append(carried) }
        carried.bytes.withUnsafeBytes {
            let payload = UnsafeRawBufferPointer(rebasing: $0[PeerHeader.size...])
            guard case .whole = traffic.take(message, payload, from: carried.from, whole: whole) else { return }
            got.append(
                Carried(
                    from: carried.from, to: carried.to, departure: carried.departure, arrival: carried.arrival,
                    bytes: Array(whole.bytes)))
        }
    }

    /// Instances of the proposals that came, in order.
    var proposals: [Instance] {
        got.compactMap { $0.message?.kind == .accept ? $0.message?.instance : nil }
    }
    /// What the heartbeats that came say was sent.
    var heartbeats: [Instance] {
        got.compactMap { $0.message?.kind == .heartbeat ? $0.message?.instance : nil }
    }
    /// Payloads of the runs that came.
    var runs: [[UInt8]] {
        got.compactMap {
            if case .forward? = $0.content { return Array($0.payload) }
            return nil
        }
    }
}

/// The traffic of some replicas over a network in virtual time.
final class TrafficRig {
    let ends: [TrafficEnd]
    let network: VirtualNetwork
    private(set) var now: UInt64 = 1_000_000

    init(_ count: Int = 2, rate: Double = 1e6, roundTrip: UInt64 = 20_000, logSize: Int = 8 << 20) throws {
        let folder = try TestFolder()
        ends = try (0..<count).map { try TrafficEnd($0, of: count, in: folder, logSize: logSize) }
        network = VirtualNetwork(count: count, rate: rate, roundTrip: roundTrip)
        for end in ends {
            end.traffic.begin(now: now)
            for peer in 0..<count where peer != end.index { end.traffic.connected(peer, now: now) }
        }
    }

    var sender: TrafficEnd { ends[0] }
    var receiver: TrafficEnd { ends[1] }

    /// One turn of each end: takes what has arrived, does as the test says, and sends what there is room for.
    func turn(_ act: (TrafficEnd) -> Void = { _ in }) {
        for end in ends {
            end.traffic.begin(now: now)
            for carried in network.arrived(at: end.index, now: now) { end.take(carried) }
            act(end)
            end.traffic.end()
            network.send(end.rings.departures, from: end.index, now: now)
        }
    }

    /// Lets time pass; each end has a turn when something arrives, when it asked for one, and each millisecond.
    func run(
        for duration: UInt64, until isDone: @autoclosure () -> Bool = false, _ act: (TrafficEnd) -> Void = { _ in }
    ) {
        let end = now + duration
        while true {
            turn(act)
            guard now < end, !isDone() else { return }
            var next = min(network.nextArrival, now + 1_000)
            for end in ends { next = min(next, end.traffic.nextDeadline) }
            now = min(max(next, now + 1), end)
        }
    }

    /// The link between two ends goes down, with what is under way, and up again.
    func reconnect(_ one: Int, _ other: Int) {
        network.reset(one, other)
        ends[one].traffic.begin(now: now)
        ends[one].traffic.connected(other, now: now)
        ends[other].traffic.begin(now: now)
        ends[other].traffic.connected(one, now: now)
    }
}
