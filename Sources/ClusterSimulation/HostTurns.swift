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

/// Draws for stages, which call it as the node's would be called by any thread; here there is one.
private final class Draws: @unchecked Sendable {
    var random: SimulationRandom
    init(seed: UInt64) { random = SimulationRandom(seed: seed) }
    func next() -> UInt64 { random.next() | 1 }
}

/// The life of a host: its start, the turns of its lanes, its end.
extension ClusterSimulator {
    func start(_ host: Host) throws(SimulationFailure) {
        guard !host.isRetired else { return }
        host.starts += 1
        host.refusable = 0
        host.time.pointee.now = max(host.time.pointee.now, host.clock.local(now))
        if isFaulty, random.chance(perMille: plan.earlyCrash) { host.eventsUntilCrash = 1 + random.index(400) }
        do throws(PoolError) {
            host.life = try life(of: host)
        } catch {
            throw failure("replica \(host.index) does not start: \(error)")
        }
        guard let life = host.life else { return }
        plantAtStart(of: host)
        trace(
            "replica \(host.index) starts: view \(life.pools.acceptor.promised), executed \(life.pools.state.executed), floor \(life.pools.acceptor.floor)"
        )
        if host.isDoomed { return try crash(host) }
        for instance in host.unseen.keys.sorted() where instance <= life.pools.state.executed {
            try check(
                host.unseen[instance]!.withUnsafeBytes { checker.decided(instance, $0, by: host.index) })
        }
        host.unseen = [:]
        try check(checker.recovered(host.index, life.pools.acceptor, executed: life.pools.state.executed))
        host.compared = life.pools.state.executed
        for lane in host.lanes.indices { wake(host, lane) }
    }

    private func life(of host: Host) throws(PoolError) -> Host.Life {
        let event: (Bool) -> Void = { [unowned self, unowned host] in host.storageEvent(isFence: $0, random: &random) }
        let acceptor = try AcceptorPool(
            in: host.acceptor.open(atEvent: event), expecting: "simulated", replica: UInt16(host.index))
        let state = try StatePool(in: host.state.open(atEvent: event))
        let pools = try RecoveredPools(
            acceptor: acceptor, state: state, replicas: options.replicaCount, nonce: random.next() | 1,
            mayVerify: { true })
        let index = host.index
        let port = SimulatedPort(largestBody: plan.maxRequest + 64) { [unowned self, unowned host] in
            guard !host.isDoomed else { return false }
            return send($1, $2, to: $0, from: index)
        }
        let lanes = host.lanes.map(\.parker)
        let parkers = Parkers(
            gateway: lanes[0], engine: lanes[host.engineLane],
            links: lanes.count == 4 ? lanes[1] : lanes[0], executor: lanes[host.executorLane])
        let gate: Gate? = lanes.count == 4 ? nil : .allocate()
        let board = StatusBoard(members: (0..<UInt16(options.replicaCount)).map { $0 })
        let draws = Draws(seed: plants(.epochUsedTwice) ? UInt64(index) : random.next())
        let desk = DeskBell(host)
        let alarm = Alarm {}
        let stages: ReplicaStages<SimulatedMachine>
        do throws(Refusal) {
            stages = try ReplicaStages(
                plan.options(of: index), pools: pools,
                rings: Rings(outstanding: plan.maxOutstanding, sizes: plan.rings),
                in: .init(
                    clock: Clock(context: host.time) { context in
                        let time = context!.assumingMemoryBound(to: Host.LocalTime.self)
                        time.pointee.now += time.pointee.step
                        return time.pointee.now
                    }, random: { draws.next() }, port: port, parkers: parkers, gate: gate, board: board,
                    logger: logger(of: index), alarm: alarm, ring: { desk.ring() }, statusReport: { "" }))
        } catch {
            broken("a state of this size has room for the machine")
        }
        let links = links(of: host, pools, stages, engine: parkers.engine, board: board, draws, alarm)
        assign(stages, links, to: host)
        return Host.Life(
            pools: pools, stages: stages, links: links, port: port, board: board, alarm: alarm, gate: gate)
    }

    private func links(
        of host: Host, _ pools: RecoveredPools, _ stages: ReplicaStages<SimulatedMachine>, engine: Parker,
        board: StatusBoard, _ draws: Draws, _ alarm: Alarm
    ) -> PeerLinks {
        let ids = (0..<UInt16(options.replicaCount)).map { $0 }
        return PeerLinks(
            settings: .init(
                index: host.index, cluster: "simulated", replica: UInt16(host.index), charter: charter,
                fingerprint: charter.fingerprint(layout: pools.state.geometry.fingerprint),
                members: ids.map {
                    Handshake.Member(
                        id: $0, incarnation: 0, life: .none, peerEndpoint: "p\($0)", clientEndpoint: "\($0)")
                }, acquaintances: pools.acquaintances(of: ids, index: host.index), skips: []),
            sockets: SimulatedLinkSockets(
                index: host.index, memberCount: options.replicaCount, over: connections,
                keys: plan.hasKeys ? .init(own: host.index, named: (0..<options.replicaCount).map { [$0] }) : nil),
            random: { draws.next() }, progress: stages.progress, board: board, logger: logger(of: host.index),
            rings: stages.rings, engine: engine, expelled: { alarm.raise(.init(text: $0, isExpelled: true)) })
    }

    private func logger(of index: Int) -> Logger {
        guard options.trace else { return Logger(label: "replica") { _ in SwiftLogNoOpLogHandler() } }
        return Logger(label: "replica") { _ in TraceLog { print("    replica \(index) says \($0)") } }
    }

    private func assign(
        _ stages: ReplicaStages<SimulatedMachine>, _ links: PeerLinks, to host: Host
    ) {
        let (gateway, engine, executor) = (stages.gateway, stages.engine, stages.executor)
        switch plan.shape {
        case .staged:
            for (lane, stage) in ([gateway, links, engine, executor] as [Stage]).enumerated() {
                host.lanes[lane].stages = [stage]
            }
        case .executorApart:
            host.lanes[0].stages = [links, engine, gateway, engine, links]
            host.lanes[1].stages = [executor]
        case .fused: host.lanes[0].stages = [links, engine, gateway, engine, links, executor, gateway]
        }
        if plan.isShuffled { for lane in host.lanes.indices { host.lanes[lane].stages.shuffle(using: &random) } }
    }

    // MARK: Turns

    /// Has a lane look, if it sleeps.
    func wake(_ host: Host, _ lane: Int) {
        if host.isUp, host.lanes[lane].isAsleep { schedule(host, lane, at: now + 1 + random.below(30)) }
    }

    func schedule(_ host: Host, _ lane: Int, at time: Microseconds) {
        host.lanes[lane].isAsleep = false
        host.lanes[lane].number += 1
        let time = max(time, host.lanes[lane].stuckUntil) + host.lanes[lane].slowness
        agenda.put(.turn(host: host.index, lane: lane, number: host.lanes[lane].number), at: time)
    }

    func turn(_ host: Host, _ lane: Int) throws(SimulationFailure) {
        guard let life = host.life else { return }
        if host.lanes[lane].stuckUntil > now { return schedule(host, lane, at: host.lanes[lane].stuckUntil) }
        report.turns += 1
        let start = max(host.time.pointee.now, host.clock.local(now))
        host.time.pointee.now = start
        let parker = host.lanes[lane].parker
        parker.prepareToPark()
        var worked = false
        for stage in host.lanes[lane].stages {
            if stage.poll(budget: plan.budget, now: start) { worked = true }
            // At once: what is decided and executed in one turn may be gone from the log at its end.
            if stage === life.stages.engine, !host.isDoomed { try compareDecisions(host, life) }
        }
        if host.isDoomed { return try crash(host) }
        plantAfterTurn(of: host)
        try check(pendingViolation)
        try compare(host, life)
        let busy = host.time.pointee.now - start
        if worked {
            parker.cancelPark()
            schedule(host, lane, at: now + busy + 1 + random.below(20))
        } else if parker.park() {
            sleep(host, lane, busy)
        } else {
            schedule(host, lane, at: now + busy + 1)
        }
        for other in host.lanes.indices where other != lane && host.lanes[other].isAsleep {
            if !host.lanes[other].parker.isParked { schedule(host, other, at: now + 1 + random.below(50)) }
        }
        if host.isDeskRung {
            host.isDeskRung = false
            agenda.put(.desk(host: host.index, life: host.starts), at: now + 1 + random.below(20_000))
        }
    }

    /// A lane that has nothing to do sleeps until one of its stages wants to be polled.
    private func sleep(_ host: Host, _ lane: Int, _ busy: UInt64) {
        var deadline = UInt64.max
        for stage in host.lanes[lane].stages { deadline = min(deadline, stage.nextDeadline) }
        let time = max(host.clock.global(deadline), now + busy)
        host.lanes[lane].number += 1
        host.lanes[lane].isAsleep = true
        guard deadline < .max else { return }
        agenda.put(
            .turn(host: host.index, lane: lane, number: host.lanes[lane].number),
            at: max(time, now + 1) + host.lanes[lane].slowness)
    }

    /// What the engine has decided, against what all replicas together may do.
    private func compareDecisions(_ host: Host, _ life: Host.Life) throws(SimulationFailure) {
        let engine = life.stages.engine
        while host.compared < engine.decidedInstance {
            let instance = host.compared + 1
            guard let batch = engine.decidedBatch(of: instance) else {
                throw failure("replica \(host.index) decided \(instance) and has no batch of it")
            }
            try check(checker.decided(instance, batch, by: host.index))
            host.compared = instance
        }
    }

    /// What else a turn has changed.
    private func compare(_ host: Host, _ life: Host.Life) throws(SimulationFailure) {
        if host.driftPosition != nil { return try lookAtDrift(of: host, life) }
        if let digest = life.board.digest {
            try check(checker.stands(host.index, executed: digest.executed, digest.value, at: digest.position))
        }
        if let reason = life.alarm.raised {
            isOutvoted = lacksSoundMajority
            throw failure("replica \(host.index) gives up: \(reason.text)")
        }
    }

    // MARK: Ends

    func crash(_ host: Host) throws(SimulationFailure) {
        guard host.isUp else { return }
        host.doom()
        trace("replica \(host.index) crashes")
        report.crashes += 1
        count(host)
        noteUnseen(of: host)
        host.bury()
        if !host.isAway { agenda.put(.start(host: host.index), at: now + 1 + random.below(2 * plan.suspect)) }
    }

    private func noteUnseen(of host: Host) {
        guard let engine = host.life?.stages.engine else { return }
        var instance = host.compared + 1
        while instance <= engine.decidedInstance {
            if let batch = engine.decidedBatch(of: instance) { host.unseen[instance] = Array(batch) }
            instance += 1
        }
    }

    /// What the node's thread does: the slow work of a state transfer.
    func work(_ host: Host) throws(SimulationFailure) {
        guard let life = host.life else { return }
        let installed = life.stages.desk.work(with: SimulatedFiles(host: host, pools: life.pools))
        if host.isDoomed { return try crash(host) }
        for lane in host.lanes.indices { wake(host, lane) }
        guard let (snapshot, view) = installed else { return }
        let isFurther = snapshot.executed > life.stages.progress.executed
        trace("replica \(host.index) installs a state after \(snapshot.executed), with view \(view)")
        count(host)
        host.stop(promising: view)
        if isFurther {
            report.snapshots += 1
            guard let incoming = host.incoming else { broken("a snapshot is finished before it is installed") }
            host.state.replace(by: incoming.content)
        }
        snapshot.discard()
        try start(host)
    }
}

/// Rung by the engine: it carries no reference to the host that would be counted.
private final class DeskBell: @unchecked Sendable {
    // Unchecked: one thread runs a simulation.
    private unowned let host: Host
    init(_ host: Host) { self.host = host }
    func ring() { host.isDeskRung = true }
}

/// Snapshots that come in, in memory.
private struct SimulatedFiles: SnapshotFiles {
    let host: Host
    let pools: RecoveredPools

    func prepare() throws(PoolError) -> IncomingSnapshot {
        let geometry = pools.state.geometry
        let pool = try Pool(path: pools.state.path + ".incoming", memoryOf: geometry.regionSize)
        host.incoming = SimulatedPool.View(of: pool)
        return IncomingSnapshot(in: pool, geometry: geometry)
    }

    func finish(_ snapshot: IncomingSnapshot) throws(PoolError) {
        try snapshot.finish(as: pools.acceptor.identity, bootCount: pools.life.bootCount)
    }
}
