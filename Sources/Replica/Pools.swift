import Glibc
import MPaxosCSupport
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStorage
import MPaxosTopology
import MPaxosWire

/// The two pools of a replica, opened, recovered, and found to belong together.
struct Pools {
    let acceptor: AcceptorPool
    let state: StatePool
    /// The one that began with this opening.
    let life: Life
    /// Whether all bytes of the state were read and found to be what commits have made; else there were too many for
    /// the opening.
    let isVerified: Bool
    /// What became of a `log_size` that the log was not formatted with, for the log of the process; nil where it was.
    let resizing: (what: String, isDone: Bool)?
    /// What the process before this one was executing when it ended.
    let lastEnd: Breadcrumbs.End?

    /// Microseconds that an opening may take to read the state: enough for some gigabytes in memory.
    private static let verificationTime: UInt64 = 500_000

    /// What both survive: the weaker of the two.
    var durability: Durability {
        if acceptor.durability == .emulated || state.durability == .emulated { return .emulated }
        return acceptor.durability == .msync ? .msync : state.durability
    }

    /// - Parameters:
    ///   - charter: of the topology and the program.
    ///   - viewLimit: bytes of DRAM for the state's changed pages.
    init(
        topology: Topology, member: Topology.Member, charter: Charter, viewLimit: Int = 256 << 20
    ) throws(ReplicaError) {
        try ReplicaPools.requireBoth(of: member)
        var acceptor: AcceptorPool
        do throws(PoolError) {
            // Whoever formatted them may have been interrupted before this was durable.
            try Pool.syncDirectory(of: member.acceptorPool)
            acceptor = try AcceptorPool(
                opening: member.acceptorPool, expecting: topology.name, replica: member.id, charter: charter)
            state = try StatePool(
                opening: member.statePool, expecting: topology.name, replica: member.id, charter: charter,
                viewLimit: viewLimit)
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        guard acceptor.identity == state.identity else {
            throw ReplicaError(
                .refused,
                "\(member.acceptorPool) and \(member.statePool) were not formatted together: one of them comes from another time or a copy; bring back the pair that belongs together"
            )
        }
        guard !acceptor.isExpelled else {
            throw ReplicaError(
                .refused,
                "\(member.acceptorPool) and \(member.statePool) cannot be used any more: when they were started last, another replica had met a later start of this one, so they come from an earlier time, or from a copy, and have forgotten votes; run replica \(member.id) from its newest pools, and if they are gone leave it stopped: the others go on without it"
            )
        }
        guard acceptor.belongs(toStateStarted: state.bootCount) else {
            let (logCount, stateCount) = (acceptor.life.bootCount, state.bootCount)
            let older =
                logCount < stateCount ? "the log is older than the state" : "the state is older than the log"
            throw ReplicaError(
                .refused,
                "\(member.acceptorPool) was started \(logCount) times, \(member.statePool) \(stateCount) times: \(older), so one of them comes from an earlier time, and what was promised or executed since is forgotten; bring back the newest of both, and if it is gone leave this replica stopped: the others go on without it"
            )
        }
        guard state.executed + 1 >= acceptor.floor else {
            throw ReplicaError(
                .refused,
                "\(member.statePool) stands at instance \(state.executed), but the log in \(member.acceptorPool) begins at \(acceptor.floor): the state is older than the log; bring back the pair that belongs together"
            )
        }
        // Where the state came as a snapshot, votes for what is part of it may be for values that were not chosen.
        acceptor.raiseFloor(to: state.installed + 1)
        do throws(PoolError) {
            try acceptor.settle(executed: state.executed)
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        try Self.requireRuns(in: acceptor, above: state.executed, replicas: topology.replicas.count)
        // Before anything is believed, or answered, that only the digest covers.
        do throws(PoolError) {
            let deadline = csupport_monotonic_us() + Self.verificationTime
            isVerified = try state.verifyDigest { csupport_monotonic_us() < deadline }
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        resizing = try Self.resize(&acceptor, to: topology.storage.logSize, executed: state.executed)
        self.acceptor = acceptor
        // In three steps, see `AcceptorPool.life`. Whoever calls this has said nothing to anybody yet.
        life = Life(bootCount: acceptor.life.bootCount + 1, nonce: UInt64.random(in: 1...UInt64.max))
        acceptor.begin(start: life.bootCount)
        state.record(bootCount: life.bootCount)
        acceptor.record(life: life)
        lastEnd = state.takeUpBreadcrumb()
        // One alone has met all.
        if topology.replicas.count == 1, acceptor.founding != .founded { acceptor.record(founding: .founded) }
        // Not before: now the pools are this process's.
        IncomingSnapshot.removeLeftovers(beside: member.statePool)
        acceptor.removeLeftovers()
    }

    /// The log becomes as large as the topology has it; where that cannot be, it stays as it is.
    private static func resize(
        _ acceptor: inout AcceptorPool, to logSize: Int, executed: UInt64
    ) throws(ReplicaError) -> (what: String, isDone: Bool)? {
        guard !acceptor.has(logSize: logSize) else { return nil }
        let (path, before, wanted) = (acceptor.path, acceptor.sizeInWords, Charter.size(UInt64(logSize)))
        do throws(PoolError) {
            acceptor = try acceptor.resized(logSize: logSize, executed: executed)
            return (
                "\(path): held \(before) of batches, and holds \(acceptor.sizeInWords) from now on, beside its votes, as the topology has log_size = \(wanted)",
                true
            )
        } catch {
            // It has the name of the log already, and a loss of power may take that back.
            guard acceptor.isInPlace else { throw ReplicaError(.refused, error.description) }
            return (
                "\(path): holds \(before) of batches, where the topology has log_size = \(wanted), and goes on so, since it cannot be changed: \(error); it is tried again at the next start",
                false
            )
        }
    }

    /// A batch that is to be executed must consist of commands. A replica votes for no other; programs of old did.
    private static func requireRuns(
        in acceptor: AcceptorPool, above executed: UInt64, replicas: Int
    ) throws(ReplicaError) {
        var refused: UInt64?
        acceptor.forEachEntry { instance, _, batch in
            guard instance > executed, instance < refused ?? .max else { return }
            if !CommandRecords.isRun(acceptor.bytes(of: batch), ofReplicas: 0..<replicas) { refused = instance }
        }
        guard let refused else { return }
        throw ReplicaError(
            .refused,
            "\(acceptor.path): the batch of instance \(refused), not executed yet, is no run of commands of this cluster, and cannot be executed; restore both files as they were before it was voted for, or leave this replica down: the others go on without it"
        )
    }

    /// Whom this replica has met before.
    /// - Parameter ids: of all members, by index.
    func acquaintances(of ids: [UInt16], index: Int) -> Acquaintances {
        var records = ids.map {
            Acquaintances.Record(incarnation: acceptor.incarnation(of: $0) ?? 0, life: acceptor.life(of: $0))
        }
        records[index] = .init(incarnation: acceptor.identity.incarnation, life: life)
        return Acquaintances(
            index: index, ancestors: acceptor.ancestors, records: records, refused: ids.map(acceptor.refusedLife(of:)),
            founding: acceptor.founding)
    }

    /// The core as it was when the process before this one ended, not started yet.
    func core(topology: Topology, index: Int) -> Core {
        let options = topology.protocol
        let established = acceptor.established
        var core = Core(
            configuration: Configuration(
                replica: index, replicaCount: topology.replicas.count, window: options.window,
                slotCount: acceptor.slotCount, heartbeat: UInt64(options.heartbeatMilliseconds) * 1000,
                suspect: UInt64(options.suspectMilliseconds) * 1000,
                retransmit: UInt64(options.heartbeatMilliseconds) * 1000, seed: UInt64.random(in: 0...UInt64.max)),
            promised: acceptor.promised,
            established: established.view == 0 ? nil : EstablishedView(view: established.view, base: established.base),
            floor: acceptor.floor, executed: state.executed)
        acceptor.forEachEntry { instance, view, batch in core.restore(instance: instance, view: view, batch: batch) }
        return core
    }
}
