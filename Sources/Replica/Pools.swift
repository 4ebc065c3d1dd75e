import MPaxosCSupport
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosStorage
import MPaxosTopology

/// The two pools of a replica, opened as the topology says, and recovered.
struct Pools {
    let recovered: RecoveredPools
    /// What became of a `log_size` that the log was not formatted with, for the log of the process; nil where it was.
    let resizing: (what: String, isDone: Bool)?

    /// Microseconds that an opening may take to read the state: enough for some gigabytes in memory.
    private static let verificationTime: UInt64 = 500_000

    /// - Parameters:
    ///   - charter: of the topology and the program.
    ///   - viewLimit: bytes of DRAM for the state's changed pages.
    init(
        topology: Topology, member: Topology.Member, charter: Charter, viewLimit: Int = 256 << 20
    ) throws(ReplicaError) {
        try ReplicaPools.requireBoth(of: member)
        do throws(PoolError) {
            // Whoever formatted them may have been interrupted before this was durable.
            try Pool.syncDirectory(of: member.acceptorPool)
            let acceptor = try AcceptorPool(
                opening: member.acceptorPool, expecting: topology.name, replica: member.id, charter: charter)
            let state = try StatePool(
                opening: member.statePool, expecting: topology.name, replica: member.id, charter: charter,
                viewLimit: viewLimit)
            let deadline = csupport_monotonic_us() + Self.verificationTime
            var resizing: (what: String, isDone: Bool)?
            recovered = try RecoveredPools(
                acceptor: acceptor, state: state, replicas: topology.replicas.count,
                nonce: UInt64.random(in: 1...UInt64.max), mayVerify: { csupport_monotonic_us() < deadline },
                resize: { acceptor, executed throws(PoolError) in
                    try Self.resize(acceptor, to: topology.storage.logSize, executed: executed, &resizing)
                })
            self.resizing = resizing
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        // Not before: now the pools are this process's.
        IncomingSnapshot.removeLeftovers(beside: member.statePool)
        recovered.acceptor.removeLeftovers()
    }

    /// The log becomes as large as the topology has it; where that cannot be, it stays as it is.
    private static func resize(
        _ acceptor: AcceptorPool, to logSize: Int, executed: UInt64, _ outcome: inout (what: String, isDone: Bool)?
    ) throws(PoolError) -> AcceptorPool {
        guard !acceptor.has(logSize: logSize) else { return acceptor }
        let (path, before, wanted) = (acceptor.path, acceptor.sizeInWords, Charter.size(UInt64(logSize)))
        do throws(PoolError) {
            let resized = try acceptor.resized(logSize: logSize, executed: executed)
            outcome = (
                "\(path): held \(before) of batches, and holds \(resized.sizeInWords) from now on, beside its votes, as the topology has log_size = \(wanted)",
                true
            )
            return resized
        } catch {
            // It has the name of the log already, and a loss of power may take that back.
            guard acceptor.isInPlace else { throw error }
            outcome = (
                "\(path): holds \(before) of batches, where the topology has log_size = \(wanted), and goes on so, since it cannot be changed: \(error); it is tried again at the next start",
                false
            )
            return acceptor
        }
    }
}
