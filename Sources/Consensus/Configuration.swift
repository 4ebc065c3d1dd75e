import MPaxosInvariants

/// What a core is told about the cluster and its own limits. All but `replica` and `seed` are the same on every
/// replica.
package struct Configuration: Sendable {
    /// This replica's index.
    package var replica: ReplicaIndex
    /// Count of members, 1 to 9.
    package var replicaCount: Int
    /// Most instances that a leader keeps proposed and undecided, 1 to 1024.
    package var window: Int
    /// Slots of the log, at least 8 windows: an instance fits when it is below `floor + slotCount`.
    package var slotCount: Int
    /// A leader is heard at least this often.
    package var heartbeat: Microseconds
    /// Silence after which a leader is suspected; the real timeout is drawn from suspect ..< 2 suspect.
    package var suspect: Microseconds
    /// Time without an answer after which a question (not a proposal) is asked again, as long as no round trip is
    /// known.
    package var retransmit: Microseconds
    /// Seed of the randomised timeouts.
    package var seed: UInt64
    /// Mistakes to make, for tests of the simulator; none in a replica.
    package var plantedBugs: PlantedBugs

    package init(
        replica: ReplicaIndex, replicaCount: Int, window: Int = 64, slotCount: Int = 65_536,
        heartbeat: Microseconds = 50_000, suspect: Microseconds = 300_000, retransmit: Microseconds = 50_000,
        seed: UInt64 = 1, plantedBugs: PlantedBugs = []
    ) {
        invariant((1...9).contains(replicaCount), "a cluster has 1 to 9 replicas")
        invariant((0..<replicaCount).contains(replica), "the replica is one of the members")
        invariant((1...1024).contains(window), "the window is 1 to 1024 instances")
        invariant(slotCount >= 8 * window, "the log has at least 8 windows of slots")
        invariant(heartbeat > 0 && suspect > heartbeat && retransmit > 0, "suspect exceeds the heartbeat interval")
        self.replica = replica
        self.replicaCount = replicaCount
        self.window = window
        self.slotCount = slotCount
        self.heartbeat = heartbeat
        self.suspect = suspect
        self.retransmit = retransmit
        self.seed = seed
        self.plantedBugs = plantedBugs
    }

    /// Any two quorums have a member in common.
    package var quorum: Int {
        if plantedBugs.contains(.smallQuorum) { return (replicaCount + 1) / 2 }
        return replicaCount / 2 + 1
    }
}
