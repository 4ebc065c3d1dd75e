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

/// The links of some replicas over simulated connections, in virtual time. What the engine would do is played here: it
/// keeps on record whom it is told to, and counts frames.
final class LinkCluster {
    let charter: Charter
    let count: Int
    let world: World
    let connections: SimulatedConnections
    private(set) var replicas: [LinkReplica?]

    /// - Parameter listeners: replicas, and besides them who listens at an endpoint of no replica.
    init(of count: Int, listeners: Int? = nil, seed: UInt64 = 1) {
        self.count = count
        let world = World(seed: seed)
        self.world = world
        charter = Charter(
            members: (0..<UInt16(count)).map { $0 }, maxRequest: 1 << 20, sessions: 64, stateSize: 32 << 20,
            machine: "Machine", machineVersion: 1)
        replicas = Array(repeating: nil, count: listeners ?? count)
        connections = SimulatedConnections(
            replicaCount: replicas.count,
            in: .init(
                schedule: { world.schedule($1, after: $0) }, deliveries: { world.deliveries($0, $1, $2) },
                reaches: { world.reaches($0, $1) }, handshakeTime: { _, _ in 3 * world.weather.shortest },
                arrived: { _ in }))
    }

    deinit { for replica in replicas { replica?.stop() } }

    var weather: Weather {
        get { world.weather }
        set { world.weather = newValue }
    }

    func number() -> UInt64 { world.number() }

    // MARK: Replicas

    /// Starts a replica from what is on its record.
    /// - Parameter place: where it listens, if that is not where the topology has it.
    @discardableResult
    func start(
        _ index: Int, from record: LinkReplica.Record? = nil, at place: Int? = nil, charter: Charter? = nil,
        keys: SimulatedLinkSockets.Keys? = nil
    ) -> LinkReplica {
        let record =
            record
            ?? LinkReplica.Record(
                incarnation: UInt64(index) + 10, memberCount: count, life: Life(bootCount: 0, nonce: 0))
        let replica = LinkReplica(
            index, at: place ?? index, from: record.started(nonce: number()), charter ?? self.charter, keys: keys,
            in: self)
        replicas[place ?? index] = replica
        return replica
    }

    func startAll() {
        for index in 0..<count { start(index) }
    }

    /// The process of a replica ends.
    /// - Returns: what it had on record.
    @discardableResult
    func stop(_ place: Int) -> LinkReplica.Record? {
        replicas[place]?.stop()
        defer { replicas[place] = nil }
        return replicas[place]?.record
    }

    // MARK: Time

    /// Lets time pass until the condition holds, or that many microseconds have passed; says whether it holds.
    @discardableResult
    func run(for time: UInt64, until condition: () -> Bool = { false }) -> Bool {
        let end = world.now + time
        for case let replica? in replicas { replica.turn(now: world.now) }
        while !condition() {
            guard world.now < end else { return false }
            // A lane looks after a while though nothing arrives.
            var next = min(end, world.now + 10_000)
            for case let replica? in replicas { next = min(next, replica.links.nextDeadline) }
            world.advance(to: next)
            while let number = world.nextDue() { connections.happen(number) }
            for case let replica? in replicas { replica.turn(now: world.now) }
        }
        return true
    }

    /// Whether each two of these have their link, by both.
    func areLinked(_ indices: [Int]) -> Bool {
        indices.allSatisfy { index in
            indices.allSatisfy { $0 == index || replicas[index]?.isLinked(to: $0) == true }
        }
    }

    var isFounded: Bool { replicas.allSatisfy { $0?.progress.founding == .founded } }
}

/// What becomes of frames and connections.
struct Weather {
    /// Of a thousand frames.
    var lost: UInt64 = 0
    var repeated: UInt64 = 0
    /// Microseconds.
    var shortest: UInt64 = 50
    var longest: UInt64 = 400
    /// From, to: nothing gets there.
    var blocked: Set<[Int]> = []
}

/// Time, chance, and what is to happen.
final class World {
    private(set) var now: UInt64 = 1_000_000
    var weather = Weather()
    /// By time, then in the order in which they were scheduled.
    private var events: [(time: UInt64, number: Int)] = []
    /// Of all that was sent, as it was sent.
    private(set) var trace: UInt64 = 0
    private var random: UInt64

    init(seed: UInt64) { random = seed }

    /// Of splitmix64.
    private func next() -> UInt64 {
        random &+= 0x9E37_79B9_7F4A_7C15
        var z = random
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    func number() -> UInt64 { max(1, next()) }

    func schedule(_ number: Int, after delay: UInt64) {
        let time = now + delay
        let place = events.firstIndex { $0.time > time } ?? events.count
        events.insert((time, number), at: place)
    }

    /// To this time, or to the next event before it.
    func advance(to time: UInt64) { now = max(now, min(time, events.first?.time ?? .max)) }

    func nextDue() -> Int? {
        guard let event = events.first, event.time <= now else { return nil }
        return events.removeFirst().number
    }

    func reaches(_ from: Int, _ to: Int) -> Bool {
        !weather.blocked.contains([from, to]) && !weather.blocked.contains([to, from])
    }

    func deliveries(_ from: Int, _ to: Int, _ frame: UnsafeRawBufferPointer) -> [UInt64] {
        for byte in frame { trace = (trace ^ UInt64(byte)) &* 0x100_0000_01B3 }
        trace = (trace ^ now) &* 0x100_0000_01B3
        if weather.blocked.contains([from, to]) || next() % 1000 < weather.lost { return [] }
        let copies = next() % 1000 < weather.repeated ? 2 : 1
        return (0..<copies).map { _ in weather.shortest + next() % (weather.longest - weather.shortest) }
    }
}
