import MPaxosConsensus

/// The pools of a replica as they were at some time: its log and its state.
final class CopiedPools {
    var storage: SimulatedStorage
    var executor: SimulatedExecutor
    /// The last life that is in them when they are copied.
    let life: Life

    init(of replica: borrowing SimulatedReplica) {
        storage = replica.storage.copy()
        executor = replica.executor.copy()
        life = replica.storage.members.life
    }
}
