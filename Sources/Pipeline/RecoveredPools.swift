import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosWire

/// The two pools of a replica, found to belong together, and brought to where a new life of the replica begins.
package struct RecoveredPools {
    package let acceptor: AcceptorPool
    package let state: StatePool
    /// The one that began with this opening.
    package let life: Life
    /// Whether all bytes of the state were read and found to be what commits have made; else there were too many for
    /// the opening.
    package let isVerified: Bool
    /// What the process before this one was executing when it ended.
    package let lastEnd: Breadcrumbs.End?

    /// What both survive: the weaker of the two.
    package var durability: Durability {
        if acceptor.durability == .emulated || state.durability == .emulated { return .emulated }
        return acceptor.durability == .msync ? .msync : state.durability
    }

    /// - Parameters:
    ///   - replicas: how many the cluster has.
    ///   - nonce: of the life that begins: drawn at random, not 0.
    ///   - mayVerify: asked now and then whether there is time to read more of the state.
    ///   - resize: gives the log, or in its place one with the same votes and another size; told what is executed.
    /// - Throws: when they do not belong together, when they are never to be used again, or when something in them is
    ///   damaged.
    package init(
        acceptor opened: AcceptorPool, state: StatePool, replicas: Int, nonce: UInt64, mayVerify: () -> Bool,
        resize: (AcceptorPool, _ executed: UInt64) throws(PoolError) -> AcceptorPool = { acceptor, _ in acceptor }
    ) throws(PoolError) {
        try Self.requirePair(opened, state)
        // Where the state came as a snapshot, votes for what is part of it may be for values that were not chosen.
        opened.raiseFloor(to: state.installed + 1)
        try opened.settle(executed: state.executed)
        try Self.requireRuns(in: opened, above: state.executed, replicas: replicas)
        // Before anything is believed, or answered, that only the digest covers.
        isVerified = try state.verifyDigest(while: mayVerify)
        acceptor = try resize(opened, state.executed)
        self.state = state
        // In three steps, see `AcceptorPool.life`. Whoever calls this has said nothing to anybody yet.
        life = Life(bootCount: acceptor.life.bootCount + 1, nonce: nonce)
        acceptor.begin(start: life.bootCount)
        state.record(bootCount: life.bootCount)
        acceptor.record(life: life)
        lastEnd = state.takeUpBreadcrumb()
        // One alone has met all.
        if replicas == 1, acceptor.founding != .founded { acceptor.record(founding: .founded) }
    }

    /// Closes the log, when the stages have stopped; the executor closes the state.
    /// - Parameters:
    ///   - promising: a view to be promised besides, at least: before a state is installed that was decided in it,
    ///     since what is decided in a view counts as accepted in the view promised.
    ///   - isExpelled: the pools are never to be opened again.
    package func end(promising view: UInt64 = 0, isExpelled: Bool = false) {
        if view > acceptor.promised { acceptor.record(promise: view) }
        if isExpelled { acceptor.expel() }
        acceptor.close()
    }

    private static func requirePair(_ acceptor: AcceptorPool, _ state: StatePool) throws(PoolError) {
        let both = "\(acceptor.path) and \(state.path)"
        guard acceptor.identity == state.identity else {
            throw PoolError(
                .foreign,
                "\(both) were not formatted together: one of them comes from another time or a copy; bring back the pair that belongs together"
            )
        }
        guard !acceptor.isExpelled else {
            throw PoolError(
                .foreign,
                "\(both) cannot be used any more: when they were started last, another replica had met a later start of this one, so they come from an earlier time, or from a copy, and have forgotten votes; run replica \(acceptor.identity.replica) from its newest pools, and if they are gone leave it stopped: the others go on without it"
            )
        }
        guard acceptor.belongs(toStateStarted: state.bootCount) else {
            let (logCount, stateCount) = (acceptor.life.bootCount, state.bootCount)
            let older =
                logCount < stateCount ? "the log is older than the state" : "the state is older than the log"
            throw PoolError(
                .foreign,
                "\(acceptor.path) was started \(logCount) times, \(state.path) \(stateCount) times: \(older), so one of them comes from an earlier time, and what was promised or executed since is forgotten; bring back the newest of both, and if it is gone leave this replica stopped: the others go on without it"
            )
        }
        guard state.executed + 1 >= acceptor.floor else {
            throw PoolError(
                .foreign,
                "\(state.path) stands at instance \(state.executed), but the log in \(acceptor.path) begins at \(acceptor.floor): the state is older than the log; bring back the pair that belongs together"
            )
        }
    }

    /// A batch that is executed must consist of commands. This version votes for no other; a log may hold others from
    /// earlier versions.
    private static func requireRuns(
        in acceptor: AcceptorPool, above executed: UInt64, replicas: Int
    ) throws(PoolError) {
        var refused: UInt64?
        acceptor.forEachEntry { instance, _, batch in
            guard instance > executed, instance < refused ?? .max else { return }
            if !CommandRecords.isRun(acceptor.bytes(of: batch), ofReplicas: 0..<replicas) { refused = instance }
        }
        guard let refused else { return }
        throw PoolError(
            .damaged,
            "\(acceptor.path): the batch of instance \(refused), not executed yet, is no run of commands of this cluster, and cannot be executed; restore both files as they were before it was voted for, or leave this replica down: the others go on without it"
        )
    }

    /// Whom this replica has met before.
    /// - Parameter ids: of all members, by index.
    package func acquaintances(of ids: [UInt16], index: Int) -> Acquaintances {
        var records = ids.map {
            Acquaintances.Record(incarnation: acceptor.incarnation(of: $0) ?? 0, life: acceptor.life(of: $0))
        }
        records[index] = .init(incarnation: acceptor.identity.incarnation, life: life)
        return Acquaintances(
            index: index, ancestors: acceptor.ancestors, records: records, refused: ids.map(acceptor.refusedLife(of:)),
            founding: acceptor.founding)
    }

    /// The core as it was when the process before this one ended, not started yet.
    package func core(_ configuration: Configuration) -> Core {
        let established = acceptor.established
        var core = Core(
            configuration: configuration, promised: acceptor.promised,
            established: established.view == 0 ? nil : EstablishedView(view: established.view, base: established.base),
            floor: acceptor.floor, executed: state.executed)
        acceptor.forEachEntry { instance, view, batch in core.restore(instance: instance, view: view, batch: batch) }
        return core
    }
}
