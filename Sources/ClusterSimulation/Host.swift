import Logging
import MPaxosConsensus
import MPaxosInvariants
import MPaxosLinks
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosQueues
import MPaxosSimulation
import MPaxosStateTransfer
import MPaxosStorage
import MPaxosWire

/// The machine that a replica runs on: its persistent memory, its clock, its lanes, and the replica itself while it is
/// up.
final class Host {
    /// What the stages read as the time.
    struct LocalTime {
        var now: UInt64
        /// By how much each look at the clock in the middle of a turn takes it further.
        var step: UInt64
    }

    struct Lane {
        let parker = Parker.withoutDescriptor()
        var stages: [Stage] = []
        /// Of its entry in the agenda that counts.
        var number: UInt64 = 0
        /// No turn is due, but for what its stages wait for.
        var isAsleep = true
        /// Until then a fault keeps it from running.
        var stuckUntil: Microseconds = 0
        /// What each of its turns takes longer.
        var slowness: UInt64 = 0
    }

    /// One life of the replica.
    final class Life {
        let pools: RecoveredPools
        let stages: ReplicaStages<SimulatedMachine>
        let links: PeerLinks
        let port: SimulatedPort
        let board: StatusBoard
        let alarm: Alarm
        let gate: Gate?

        init(
            pools: RecoveredPools, stages: ReplicaStages<SimulatedMachine>, links: PeerLinks, port: SimulatedPort,
            board: StatusBoard, alarm: Alarm, gate: Gate?
        ) {
            self.pools = pools
            self.stages = stages
            self.links = links
            self.port = port
            self.board = board
            self.alarm = alarm
            self.gate = gate
        }

        deinit {
            stages.deallocate()
            gate?.deallocate()
        }
    }

    let index: Int
    let acceptor: SimulatedPool
    let state: SimulatedPool
    var clock = SimulatedClock()
    let time = UnsafeMutablePointer<LocalTime>.allocate(capacity: 1)
    var lanes: [Lane]
    /// Nil while it is down.
    var life: Life?
    /// Starts so far.
    var starts = 0
    /// Flushes and fences until it crashes.
    var eventsUntilCrash = Int.max
    /// What a crash in this turn leaves is taken already: nothing of it is seen by anybody any more.
    var isDoomed = false
    /// A state of another that is taken over.
    var incoming: SimulatedPool.View?
    /// Its node has work at the desk.
    var isDeskRung = false
    /// It is not started again by itself.
    var isAway = false
    /// Its state may be another than the log says from this position on.
    var driftPosition: UInt64?
    /// While the state of another was in doubt it did not have one of its own to compare.
    var hasLackedState = false
    /// It has stopped because its state is wrong, and nobody starts it again.
    var isRetired = false
    /// Microseconds of a fence, at most.
    var fence: UInt64
    /// What it decided in the turn in which it crashed: that counts if its state shows it at the next start.
    var unseen: [UInt64: [UInt8]] = [:]
    /// Frames that came in this life and that can but be refused.
    var refusable: UInt64 = 0
    /// How far its decisions were looked at.
    var compared: UInt64 = 0
    var crashSeed: CrashModel.Seeded

    init(
        _ index: Int, plan: ClusterPlan, incarnations: [UInt64], identity: PoolIdentity, random: inout SimulationRandom
    ) throws(PoolError) {
        self.index = index
        fence = plan.fence
        crashSeed = CrashModel.Seeded(seed: random.next())
        time.initialize(to: LocalTime(now: 0, step: 1 + random.below(200)))
        let path = "/dev/shm/mpaxos-simulation-\(identity.incarnation)"
        acceptor = try SimulatedPool(path: path + ".acceptor", size: plan.geometry.regionSize) {
            pool throws(PoolError) in
            AcceptorPool.write(identity: identity, geometry: plan.geometry, to: pool)
            guard plan.isFounded else { return }
            // The replicas have met, and their cluster is founded.
            let log = try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica)
            for (other, incarnation) in incarnations.enumerated() where other != index {
                log.record(incarnation: incarnation, of: UInt16(other))
            }
            log.record(founding: .founded)
            log.fence()
        }
        state = try SimulatedPool(path: path + ".state", size: plan.stateSize) { pool throws(PoolError) in
            try StatePool.format(
                in: pool, identity: identity, sessions: plan.sessions, journalSize: plan.journalSize)
        }
        let count = plan.shape == .staged ? 4 : plan.shape == .executorApart ? 2 : 1
        lanes = (0..<count).map { _ in Lane() }
    }

    deinit {
        life = nil
        for lane in lanes { lane.parker.deallocate() }
        time.deallocate()
    }

    /// Where the log is fenced, and where the state.
    var engineLane: Int { lanes.count == 4 ? 2 : 0 }
    var executorLane: Int { lanes.count - 1 }

    var isUp: Bool { life != nil }
    var isLeader: Bool { life?.board.role == .leader }

    /// A flush or a fence of one of the pools.
    func storageEvent(isFence: Bool, random: inout SimulationRandom) {
        guard !isDoomed else { return }
        if isFence, fence > 0 { time.pointee.now += random.below(fence) }
        eventsUntilCrash -= 1
        if eventsUntilCrash <= 0 { doom() }
    }

    /// A crash strikes now: what it leaves of the memory is what is durable.
    func doom() {
        guard !isDoomed else { return }
        isDoomed = true
        let kinds: [CrashModel.ImageKind] = [.nothing, .everything, .lines, .words]
        acceptor.crash(kinds[crashSeed.below(4)], random: &crashSeed)
        state.crash(kinds[crashSeed.below(4)], random: &crashSeed)
    }

    /// Ends the life that was doomed.
    func bury() {
        invariant(isDoomed, "who is buried has crashed")
        guard let life else { return }
        self.life = nil
        eventsUntilCrash = .max
        acceptor.discard {
            state.discard {
                let stages = life.stages
                for stage in [life.links, stages.gateway, stages.engine, stages.executor] as [Stage] {
                    stage.close()
                }
            }
            life.pools.acceptor.close()
        }
        // Only now: what a replica that has crashed would say at its end reaches nobody.
        isDoomed = false
        letGo()
    }

    /// Ends in order.
    func stop(promising view: UInt64 = 0) {
        guard let life else { return }
        self.life = nil
        acceptor.close {
            life.links.close()
            life.stages.gateway.close()
            life.stages.engine.close()
            state.close { life.stages.executor.close() }
            life.pools.end(promising: view)
        }
        letGo()
    }

    private func letGo() {
        for lane in lanes.indices {
            lanes[lane].stages = []
            lanes[lane].number += 1
            lanes[lane].isAsleep = true
            // A lane that begins is awake.
            if lanes[lane].parker.isParked { lanes[lane].parker.drain(signalled: false) }
        }
        isDeskRung = false
    }
}
