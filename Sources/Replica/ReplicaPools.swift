import Foundation
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology

/// Creates the pools of a replica.
public enum ReplicaPools {
    /// Creates both pools of replica `id` for a state machine, and missing folders. All or nothing: refuses when either
    /// exists, and leaves nothing behind when it fails. Where it is interrupted it is begun anew the next time.
    ///
    /// What they are formatted for they keep: the members, `max_request`, `sessions`, `state_size`, and the machine's
    /// name and version.
    public static func format<Machine: StateMachine>(
        _ topology: Topology, id: UInt16, for machine: Machine.Type
    ) throws(ReplicaError) {
        guard let index = topology.index(of: id) else { throw .noSuchReplica(id, topology) }
        let charter = try Charter(of: topology, for: machine)
        let member = topology.replicas[index]
        if let error = refusal(of: member) { throw error }
        let madeFolders = try makeFolders(of: member)
        do throws(PoolError) {
            let lock = try FolderLock(folderOf: member.acceptorPool)
            defer { lock.release() }
            // By a process that had the lock until now.
            if let error = refusal(of: member) { throw PoolError(.exists, error.description) }
            let making = [member.acceptorPool, member.statePool].map(UnfinishedPool.init(for:))
            UnfinishedPool.discard(making)
            do throws(PoolError) {
                let identity = PoolIdentity(
                    cluster: topology.name, replica: id, incarnation: UInt64.random(in: 1...UInt64.max),
                    charter: charter)
                try AcceptorPool.format(path: making[0].path, identity: identity, size: topology.storage.logSize)
                try StatePool.format(
                    path: making[1].path, identity: identity, size: topology.storage.stateSize,
                    sessions: topology.client.sessions, journalSize: journalSize(topology))
                for pool in making { try pool.finish() }
                for path in madeFolders + [member.acceptorPool] { try Pool.syncDirectory(of: path) }
            } catch {
                UnfinishedPool.discard(making)
                throw error
            }
        } catch {
            for folder in madeFolders.reversed() { rmdir(folder) }
            throw ReplicaError(.refused, error.description)
        }
    }

    /// - Returns: those that were made, from the outermost on.
    private static func makeFolders(of member: Topology.Member) throws(ReplicaError) -> [String] {
        var missing: [String] = []
        var folder = URL(fileURLWithPath: member.folder)
        while !exists(folder.path), folder.path != "/" {
            missing.insert(folder.path, at: 0)
            folder.deleteLastPathComponent()
        }
        for (made, folder) in missing.enumerated() where mkdir(folder, 0o755) != 0 && errno != EEXIST {
            let reason = String(cString: strerror(errno))
            for folder in missing[..<made].reversed() { rmdir(folder) }
            throw ReplicaError(
                .refused,
                "cannot create the folder \(member.folder): \(folder): \(reason); name one that this user may write to (storage.directory in the topology)"
            )
        }
        return missing
    }

    // MARK: What is there

    /// Whether a replica has both of its pools.
    public static func exist(for member: Topology.Member) -> Bool {
        exists(member.acceptorPool) && exists(member.statePool)
    }

    private static func exists(_ path: String) -> Bool {
        var status = stat()
        // Whatever is there, a dangling link too, is in the way.
        return lstat(path, &status) == 0
    }

    /// Why replica `member` is not formatted; nil where it may be.
    private static func refusal(of member: Topology.Member) -> ReplicaError? {
        let present = [member.acceptorPool, member.statePool].filter(exists)
        switch present.count {
        case 0: return nil
        case 1:
            // The other one is about to take its name: neither was ever opened.
            return isInterrupted(member, present: present[0])
                ? nil : ReplicaError(.refused, halfMissing(member, present: present[0]))
        default:
            return ReplicaError(
                .refused,
                "\(present[0]) exists already, so replica \(member.id) has its pools, and can be run: formatting would lose what it has promised, and the other replicas would refuse it; to begin a new cluster in their place, stop all replicas, and move the pools of all of them away"
            )
        }
    }

    /// For a start: one pool without the other is told from a replica that was never formatted, since to format that
    /// one anew would forget its votes; and a format that was interrupted from both.
    static func requireBoth(of member: Topology.Member) throws(ReplicaError) {
        let paths = [member.acceptorPool, member.statePool]
        let present = paths.filter(exists)
        guard present.count < 2 else { return }
        let isUnfinished =
            present.isEmpty
            ? paths.contains { exists(UnfinishedPool(for: $0).path) } : isInterrupted(member, present: present[0])
        if isUnfinished {
            throw ReplicaError(
                .refused,
                "\(paths.first { !present.contains($0) } ?? paths[0]): no such pool, since the format of replica \(member.id) was interrupted: format it again, which begins anew"
            )
        }
        if let present = present.first { throw ReplicaError(.refused, halfMissing(member, present: present)) }
    }

    /// Whether a format was interrupted between its two last steps.
    private static func isInterrupted(_ member: Topology.Member, present: String) -> Bool {
        let other = present == member.acceptorPool ? member.statePool : member.acceptorPool
        return UnfinishedPool(for: other).isPartner(of: present)
    }

    /// What a replica with one pool of two is told.
    private static func halfMissing(_ member: Topology.Member, present: String) -> String {
        let missing = present == member.acceptorPool ? member.statePool : member.acceptorPool
        return
            "\(missing) is missing while \(present) exists: a replica with one pool of two may not vote. Put the missing file back; only if replica \(member.id) never ran, move the other away and format it again"
    }

    /// The journal takes the largest command whole: a value of `max_request`, and the reply with the value that it
    /// replaced.
    private static func journalSize(_ topology: Topology) -> Int {
        max(
            topology.storage.stateSize / 16,
            min(topology.storage.stateSize / 3, topology.client.maxRequest * 5 / 2 + (1 << 20)))
    }
}

extension Charter {
    /// What a topology and a program ask for.
    init<Machine: StateMachine>(of topology: Topology, for machine: Machine.Type) throws(ReplicaError) {
        guard Self.isName(Machine.name) else {
            throw ReplicaError(
                .configuration,
                "the state machine \(Machine.self) has a name that cannot be kept in its pools: give it one of 1 to 255 bytes without control characters"
            )
        }
        self.init(
            members: topology.replicas.map(\.id), maxRequest: UInt64(topology.client.maxRequest),
            sessions: UInt64(topology.client.sessions), stateSize: UInt64(topology.storage.stateSize),
            machine: Machine.name, machineVersion: Int64(Machine.version))
    }
}
