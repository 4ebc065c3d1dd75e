import MPaxosConsensus
import MPaxosPipeline
import MPaxosSimulation
import MPaxosStorage

/// What one run is made of, as its seed has it: the sizes of all that can be full, and what goes wrong how often.
struct ClusterPlan {
    /// Which stages share a lane.
    enum Shape: CaseIterable { case fused, executorApart, staged }

    let replicaCount: Int
    var shape: Shape
    /// Whether each lane polls its stages in an order of its own.
    var isShuffled: Bool
    /// Pieces of work that a stage does in a turn.
    var budget: Int
    var rings = Rings.Sizes()
    /// Microseconds.
    var suspect: UInt64
    var window: Int
    var batchBytes: Int
    var batchDelay: UInt64
    var maxRequest: Int
    var maxOutstanding: Int
    var geometry: AcceptorGeometry
    var stateSize: Int
    var journalSize: Int
    var sessions: Int

    /// Whether the replicas have met before the run begins.
    var isFounded: Bool
    var clients: Int
    /// Whether most values are large, and nearly all as large as can be.
    var isCrowd: Bool
    var isHeavy: Bool
    /// Bytes of a value at most.
    var largestValue: Int
    var thinkTime: UInt64
    /// Microseconds after which a client repeats a request.
    var patience: UInt64
    /// Requests and replies of clients that are lost, in parts of a thousand.
    var clientLoss: UInt64

    /// Microseconds of a frame's way, and up to so many more.
    var delay: UInt64
    var jitter: UInt64
    /// Whether links lose, repeat and reorder frames, as no TCP does; in parts of a thousand.
    var isWild: Bool
    var loss: UInt64
    /// Whether each replica has a key, by which its connections are known.
    var hasKeys: Bool
    /// Mean microseconds between frames of somebody who is no replica; 0: there is nobody.
    var strangers: UInt64
    /// Frames of links that are changed on their way, in parts of a thousand.
    var damage: UInt64
    /// When the state of some replica drifts; 0: never.
    var driftTime: UInt64
    /// Microseconds of a fence, at most.
    var fence: UInt64
    /// Mean microseconds between faults; 0: none.
    var interval: UInt64
    var span: UInt64
    /// Relative, by `ClusterFault`.
    var weights: [UInt64]
    /// Chance of a crash for each start of a replica to come within its first thousand flushes and fences.
    var earlyCrash: UInt64

    init(replicaCount: Int, random: inout SimulationRandom) {
        self.replicaCount = replicaCount
        shape = Shape.allCases[random.index(3)]
        isShuffled = random.chance(perMille: 300)
        budget = random.chance(perMille: 300) ? 1 + random.index(4) : 256
        let isTight = random.chance(perMille: 400)
        rings.decided = isTight ? 2 << random.index(4) : 1024
        rings.arrivals = isTight ? 32 : 512
        rings.departures = isTight ? 16 << random.index(3) : 512
        rings.bodies = isTight ? 4 << 10 : 256 << 10
        rings.queryBodies = isTight ? 1 << 10 : 64 << 10
        suspect = 20_000 + random.below(200_000)
        window = random.chance(perMille: 300) ? 1 + random.index(2) : 2 + random.index(30)
        batchBytes = 256 << random.index(7)
        batchDelay = random.chance(perMille: 200) ? random.below(2_000) : 0
        largestValue = random.chance(perMille: 500) ? 200 : 200 << random.index(8)
        maxRequest = largestValue + 256
        maxOutstanding = random.chance(perMille: 300) ? 1 << random.index(3) : 64
        // The log holds a window of the largest batches or so, or little more, or much more.
        let largest = max(maxRequest + 64, batchBytes)
        let arena = (largest * (8 + random.index(random.chance(perMille: 500) ? 6 : 60)) + 4096) & ~63
        geometry = AcceptorGeometry(slots: 512 << random.index(3), arenaSize: arena)
        sessions = 64
        journalSize = max(64 << 10, 4 * maxRequest)
        // Room for all keys and replies; rarely for few of them, so that commands are refused.
        let values = random.chance(perMille: 100) ? 4 : 40
        stateSize = (journalSize * 2 + maxRequest * values * 2 + (512 << 10) + 4095) & ~4095

        isFounded = random.chance(perMille: 800)
        // A crowd whose commands together are more than the log holds, or a few.
        isCrowd = random.chance(perMille: 300)
        clients = isCrowd ? 10 + random.index(60) : 1 + random.index(6)
        // What a leader alone votes for fills its log.
        isHeavy = isCrowd && random.chance(perMille: 500)
        thinkTime = 1 + random.below(random.chance(perMille: 500) ? 500 : 20_000)
        patience = 20_000 + random.below(3 * suspect)
        clientLoss = random.chance(perMille: 500) ? random.below(100) : 0

        delay = 20 + random.below(1_000)
        jitter = 1 + random.below(random.chance(perMille: 500) ? 100 : 5_000)
        isWild = random.chance(perMille: 150)
        loss = random.below(150)
        fence = random.chance(perMille: 200) ? 1 + random.below(5_000) : 1 + random.below(20)
        interval = random.chance(perMille: 100) ? 0 : suspect / 2 + random.below(6 * suspect)
        span = suspect + random.below(8 * suspect)
        weights = ClusterFault.allCases.map { _ in random.chance(perMille: 500) ? 1 + random.below(4) : 0 }
        if isHeavy {
            window = 16 + random.index(48)
            batchBytes = 256
            largestValue = 2_000 << random.index(4)
            maxRequest = largestValue + 256
            geometry = AcceptorGeometry(
                slots: 1024, arenaSize: (maxRequest + 64) * (8 + random.index(window)) & ~63)
            journalSize = max(64 << 10, 4 * maxRequest)
            stateSize = (journalSize * 2 + maxRequest * 80 + (512 << 10) + 4095) & ~4095
            for fault in [ClusterFault.isolateLeader, .crashLeader, .crashAll, .longAway] {
                weights[fault.rawValue] += random.below(6)
            }
        }
        earlyCrash = random.chance(perMille: 300) ? random.below(300) : 0
        hasKeys = random.chance(perMille: 400)
        strangers = random.chance(perMille: 400) ? 200 << random.below(8) : 0
        let drifts = replicaCount > 2 && isFounded && random.chance(perMille: 150)
        driftTime = drifts ? 1 + random.below(1_500_000) : 0
        damage = random.chance(perMille: 300) ? 1 + random.below(40) : 0
    }

    /// Microseconds after which a request that nobody decided is answered NO_LEADER.
    var gatewayPatience: UInt64 { 4 * suspect }

    func options(of index: Int) -> ReplicaStages<SimulatedMachine>.Options {
        ReplicaStages.Options(
            index: index, memberIDs: (0..<UInt16(replicaCount)).map { $0 },
            clientEndpoints: (0..<replicaCount).map { "\($0)" }, window: window, heartbeat: suspect / 5,
            suspect: suspect, batchDelay: batchDelay, batchBytes: batchBytes, maxRequest: maxRequest,
            maxOutstandingBytes: isHeavy ? 80 * maxRequest : max(4 * maxRequest, 64 << 10),
            maxOutstanding: maxOutstanding,
            patience: gatewayPatience)
    }
}

/// What goes wrong.
enum ClusterFault: Int, CaseIterable {
    case crash
    case crashLeader
    case crashAll
    case cutLink
    case oneWay
    case isolate
    case isolateLeader
    case slowStorage
    case stuckLane
    case slowLane
    case clockJump
    case clockRate
    case longAway
    /// No fence of the log, or of the state, returns.
    case stuckLog
    case stuckState
}
