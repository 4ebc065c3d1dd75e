import Dispatch
import Foundation
import Logging
import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosQueues
import MPaxosStorage
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline
@testable import MPaxosStateTransfer

/// A command as an executor met it.
struct Executed: Equatable {
    let tag: UInt64
    let origin: Int
    let instance: UInt64
    let count: Int
    let at: UInt64
}

/// One replica as far as its engine: rings, log and board are real; links, gateway and executor are played by the rig.
final class EngineReplica {
    let index: Int
    let engine: Engine
    let alarm = Alarm {}
    let board: StatusBoard
    let rings = Rings(outstanding: 4096)
    let progress = Progress.allocate()
    let acceptor: AcceptorPool
    fileprivate(set) var executed: [Executed] = []
    /// The executor stands still.
    var isStill = false
    /// What it executes is what was submitted.
    var isHonestlyServed = true
    private let parker = Parker.allocate()!
    private let folder: TestFolder

    init(
        _ index: Int, of count: Int, in folder: TestFolder, logSize: Int, window: Int, clock: Clock,
        isFounded: Bool = true
    ) throws {
        self.index = index
        self.folder = folder
        let members = (0..<UInt16(count)).map { $0 }
        acceptor = try folder.acceptor(index, size: logSize)
        board = StatusBoard(members: members)
        let traffic = PeerTraffic(
            index: index, count: count, acceptor: acceptor, progress: progress, board: board,
            departures: rings.departures, links: parker, firstParcel: UInt64(index) << 31)
        let port = TransferTraffic(over: traffic)
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let desk = TransferDesk {}
        let core = Core(
            configuration: Configuration(
                replica: index, replicaCount: count, window: window, slotCount: acceptor.slotCount,
                suspect: 500_000, seed: UInt64(index) + 1),
            promised: 0, established: nil, floor: 1, executed: 0)
        for peer in 0..<count where peer != index && isFounded {
            acceptor.record(incarnation: UInt64(peer) + 1, of: members[peer])
        }
        if isFounded { acceptor.record(founding: .founded) }
        engine = Engine(
            index: index, memberIDs: members, core: core, clock: clock, acceptor: acceptor,
            batcher: Batcher(origin: index, batchBytes: 65_536, delay: 0, rings: rings), executed: 0,
            progress: progress, board: board,
            rings: rings,
            parkers: Parkers(gateway: parker, engine: parker, links: parker, executor: parker), gate: nil,
            traffic: traffic,
            transfer: StateTransfer(
                giver: SnapshotGiver(
                    port: port, memberIDs: members, order: SnapshotOrder(), geometry: 0, board: board, logger: logger),
                receiver: SnapshotReceiver(
                    port: port, memberIDs: members, desk: desk, geometry: 0, reluctance: 300_000, seed: 1,
                    board: board, logger: logger)),
            logger: logger, alarm: alarm)
    }

    deinit {
        engine.close()
        acceptor.close()
        rings.deallocate()
        progress.deallocate()
        parker.deallocate()
    }

    var isLeading: Bool { board.role == .leader }

    /// As the gateway would.
    func submit(_ tag: UInt64, bytes count: Int) {
        let body = TrafficEnd.payload(count, salt: Int(tag))
        body.withUnsafeBytes {
            let submission = Submission(
                kind: CommandCode.submit.rawValue, tag: tag, session: tag, sequence: 1,
                body: Body(copying: $0, into: rings.bodies))
            let pushed = rings.submissions.push(submission)
            precondition(pushed, "more submissions than the ring has room for")
        }
        rings.submissions.publish()
    }

    /// As the links would.
    func connected(to peer: Int) {
        progress.set(connected: true, peer)
        push(
            Arrival(
                kind: .connected, peer: UInt8(peer), incarnation: UInt64(peer) + 1,
                life: Life(bootCount: 1, nonce: UInt64(peer) + 1), frame: RawFrame()))
    }

    /// As the links would.
    func say(_ kind: Arrival.Kind) {
        push(Arrival(kind: kind, peer: UInt8(index), incarnation: UInt64(index) + 1, life: .none, frame: RawFrame()))
    }

    func arrived(_ bytes: [UInt8], from peer: Int) {
        let frame = Frame(size: bytes.count)
        frame.bytes.copyBytes(from: bytes)
        push(Arrival(kind: .frame, peer: UInt8(peer), incarnation: 0, life: .none, frame: frame.take()))
    }

    private func push(_ arrival: Arrival) {
        let pushed = rings.arrivals.push(arrival)
        precondition(pushed, "more arrivals than the ring has room for")
        rings.arrivals.publish()
    }

    fileprivate func execute(now: UInt64) {
        guard !isStill else { return }
        while let batch = rings.decided.pop() {
            var records = CommandRecords(UnsafeRawBufferPointer(start: batch.bytes, count: batch.count))
            while let record = records.next() {
                if isHonestlyServed { compare(record) }
                executed.append(
                    Executed(
                        tag: record.tag, origin: Int(record.origin), instance: batch.instance,
                        count: record.body.count, at: now))
            }
            if records.isDamaged, isHonestlyServed { Issue.record("instance \(batch.instance) is damaged") }
            progress.executed = batch.instance
        }
    }

    private func compare(_ record: CommandRecord) {
        // The rest has a checksum, which the engine looks at.
        let beginning = record.body.prefix(64)
        if !beginning.elementsEqual(TrafficEnd.payload(beginning.count, salt: Int(record.tag))) {
            Issue.record("command \(record.tag) is not what was submitted")
        }
    }

    func executed(_ tag: UInt64) -> Executed? { executed.first { $0.tag == tag } }
}

/// Some engines over a network in virtual time. Replica 1 of three stands first, and leads.
final class EngineRig {
    let replicas: [EngineReplica]
    let network: VirtualNetwork
    private(set) var now: UInt64 {
        get { time.pointee }
        set { time.pointee = newValue }
    }
    private let time = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    /// How often an engine wanted to be polled at once though it had nothing to do.
    private(set) var restless = 0

    /// The longest that a lane sleeps.
    private static let longestSleep: UInt64 = 20_000
    /// Virtual time passes in steps of that at least.
    private static let leastStep: UInt64 = 50

    init(
        _ count: Int = 3, rate: Double = 10e6, roundTrip: UInt64 = 2_000, logSize: Int = 16 << 20, window: Int = 64,
        isFounded: Bool = true
    ) throws {
        let folder = try TestFolder()
        time.initialize(to: 1_000_000)
        let clock = Clock(context: time) { $0!.load(as: UInt64.self) }
        replicas = try (0..<count).map {
            try EngineReplica(
                $0, of: count, in: folder, logSize: logSize, window: window, clock: clock, isFounded: isFounded)
        }
        network = VirtualNetwork(count: count, rate: rate, roundTrip: roundTrip)
        for one in 0..<count { for other in 0..<count where other != one { replicas[one].connected(to: other) } }
    }

    deinit { time.deallocate() }

    /// The replica that leads by its own word and the highest view.
    var leader: EngineReplica? {
        replicas.filter(\.isLeading).max { $0.board.view.load() < $1.board.view.load() }
    }

    /// Lets time pass. True: what was waited for has come.
    @discardableResult
    func run(for duration: UInt64, until isDone: @autoclosure () -> Bool = false) -> Bool {
        let end = now + duration
        while true {
            for replica in replicas { turn(replica) }
            if isDone() { return true }
            guard now < end else { return false }
            var next = min(network.nextArrival, now + Self.longestSleep)
            for replica in replicas { next = min(next, replica.engine.nextDeadline) }
            now = min(max(next, now + Self.leastStep), end)
        }
    }

    private func turn(_ replica: EngineReplica) {
        for carried in network.arrived(at: replica.index, now: now) {
            replica.arrived(carried.bytes, from: carried.from)
        }
        var turns = 0
        while replica.engine.poll(budget: 256, now: now) {
            replica.execute(now: now)
            turns += 1
            precondition(turns < 10_000, "an engine that never rests")
        }
        replica.execute(now: now)
        network.send(replica.rings.departures, from: replica.index, now: now)
        if replica.engine.nextDeadline <= now { restless += 1 }
    }

    /// Until a leader is followed by all.
    func settle() throws {
        let settled = run(for: 5_000_000, until: replicas.allSatisfy { $0.board.isReady })
        try #require(settled, "the cluster finds a leader")
        run(for: 100_000)
    }

    /// The link between two replicas goes down, with what is under way.
    func cut(_ one: Int, _ other: Int) {
        network.reset(one, other)
        network.set(one, other, isCut: true)
        replicas[one].progress.set(connected: false, other)
        replicas[other].progress.set(connected: false, one)
    }

    func mend(_ one: Int, _ other: Int) {
        network.set(one, other, isCut: false)
        replicas[one].connected(to: other)
        replicas[other].connected(to: one)
    }

    func isExecuted(_ tags: some Sequence<UInt64>, by some: [Int]? = nil) -> Bool {
        let tags = Array(tags)
        return (some ?? Array(replicas.indices)).allSatisfy { index in
            let done = Set(replicas[index].executed.map(\.tag))
            return tags.allSatisfy { done.contains($0) }
        }
    }

    /// Replicas executed the same commands in the same order, as far as each has come.
    var agrees: Bool {
        replicas.allSatisfy { one in
            replicas.allSatisfy { other in
                zip(one.executed, other.executed).allSatisfy { $0.tag == $1.tag && $0.instance == $1.instance }
            }
        }
    }
}
