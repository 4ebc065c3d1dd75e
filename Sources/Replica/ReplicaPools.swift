import Consensus
import Foundation
import StateMachines
import Storage
import Topology

/// Creates the pools of a replica.
public enum ReplicaPools {
    /// Creates both pools of replica `id` for a state machine, and missing folders. All or nothing: refuses when either
    /// exists.
    ///
    /// What they are formatted for they keep: the members, `max_request`, `sessions`, `state_size`, and the machine's
    /// name and version.
    public static func format<Machine: StateMachine>(
        _ topology: Topology, id: UInt16, for machine: Machine.Type
    ) throws(ReplicaError) {
        guard let index = topology.index(of: id) else { throw .noSuchReplica(id, topology) }
        let charter = try Charter(of: topology, for: machine)
        let member = topology.replicas[index]
        for path in [member.acceptorPool, member.statePool] where FileManager.default.fileExists(atPath: path) {
            throw ReplicaError(
                .refused,
                "\(path) exists already: formatting would lose what the replica has promised, and the other replicas would refuse it; to begin a new cluster, remove the pools of all replicas"
            )
        }
        do {
            try FileManager.default.createDirectory(atPath: member.folder, withIntermediateDirectories: true)
        } catch {
            throw ReplicaError(
                .refused,
                "cannot create the folder \(member.folder): \(error.localizedDescription); name one that this user may write to (storage.directory in the topology)"
            )
        }
        let identity = PoolIdentity(
            cluster: topology.name, replica: id, incarnation: UInt64.random(in: 1...UInt64.max),
            charter: charter)
        do {
            try AcceptorPool.format(path: member.acceptorPool, identity: identity, size: topology.storage.logSize)
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        do {
            try StatePool.format(
                path: member.statePool, identity: identity, size: topology.storage.stateSize,
                sessions: topology.client.sessions, journalSize: journalSize(topology))
        } catch {
            try? FileManager.default.removeItem(atPath: member.acceptorPool)
            throw ReplicaError(.refused, error.description)
        }
    }

    /// What a replica with one pool of two is told.
    package static func halfMissing(_ member: Topology.Member, present: String, missing: String) -> String {
        "\(missing) is missing while \(present) exists: a replica with one pool of two may not vote. Put the missing file back, or, if replica \(member.id) never ran, delete the other and format it again"
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
