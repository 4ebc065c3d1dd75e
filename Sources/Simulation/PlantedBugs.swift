import MPaxosConsensus

/// Deliberate mistakes around the core: what stands for storage, executor, links and handshake makes them, and the core
/// knows nothing of them.
extension PlantedBugs {
    // MARK: Of the simulated storage and executor

    /// The sessions are committed apart from what the commands changed.
    package static var sessionsOutsideCommit: PlantedBugs { PlantedBugs(rawValue: 1 << 16) }
    /// A reply leaves before the state that it speaks of is durable.
    package static var replyBeforeCommit: PlantedBugs { PlantedBugs(rawValue: 1 << 17) }
    /// Who believes to lead answers queries from its own state.
    package static var staleRead: PlantedBugs { PlantedBugs(rawValue: 1 << 18) }
    /// A replica below the floor of all others goes on behind what it cannot fetch.
    package static var catchUpSkips: PlantedBugs { PlantedBugs(rawValue: 1 << 19) }
    /// An acceptance is written over the older one in its slot.
    package static var slotInPlace: PlantedBugs { PlantedBugs(rawValue: 1 << 20) }
    /// A replica whose pools were lost comes back with empty ones, and votes.
    package static var amnesia: PlantedBugs { PlantedBugs(rawValue: 1 << 21) }
    /// The repetition of the last command of a session runs again.
    package static var retryRunsAgain: PlantedBugs { PlantedBugs(rawValue: 1 << 22) }
    /// How far an instance is executed is not part of the commit.
    package static var recordsForgotten: PlantedBugs { PlantedBugs(rawValue: 1 << 23) }
    /// The order in which sessions were used is kept in volatile memory.
    package static var useOrderForgotten: PlantedBugs { PlantedBugs(rawValue: 1 << 24) }

    /// On the way to a peer heartbeats and answers wait behind proposals and their payloads.
    package static var heartbeatsBehindBulk: PlantedBugs { PlantedBugs(rawValue: 1 << 25) }

    // MARK: Around the handshake

    /// A replica takes part as soon as it has met a majority.
    package static var foundedByMajority: PlantedBugs { PlantedBugs(rawValue: 1 << 26) }
    /// A replica on pools of an earlier time is let in.
    package static var livesUnchecked: PlantedBugs { PlantedBugs(rawValue: 1 << 27) }
    /// Of lives the counts are compared alone.
    package static var noncesUnchecked: PlantedBugs { PlantedBugs(rawValue: 1 << 28) }
    /// A replica starts on a log and a state of different starts.
    package static var poolsNotCompared: PlantedBugs { PlantedBugs(rawValue: 1 << 29) }
    /// A fenced vote in which a bit has flipped is dropped as one that was being written.
    package static var damageTakenForTear: PlantedBugs { PlantedBugs(rawValue: 1 << 30) }

    /// Nobody looks to whom the key of a connection belongs.
    package static var keysUnchecked: PlantedBugs { PlantedBugs(rawValue: 1 << 32) }

    /// Replicas do not tell each other the digests of their states.
    package static var digestsNotCompared: PlantedBugs { PlantedBugs(rawValue: 1 << 31) }

    /// All, those of the core too, by the names under which they are reported.
    package static var named: [(name: String, bug: PlantedBugs)] {
        [
            ("votesOverViews", .votesOverViews), ("smallQuorum", .smallQuorum),
            ("promiseBeforeDurable", .promiseBeforeDurable), ("commitWithoutView", .commitWithoutView),
            ("acceptedBeforeDurable", .acceptedBeforeDurable), ("establishedTooEarly", .establishedTooEarly),
            ("adoptFirstReported", .adoptFirstReported), ("proposeBeforeDurable", .proposeBeforeDurable),
            ("decidedWithoutView", .decidedWithoutView), ("stuckStorageUnnoticed", .stuckStorageUnnoticed),
            ("resendByTime", .resendByTime), ("noBackOff", .noBackOff), ("heartbeatsBehindBulk", .heartbeatsBehindBulk),
            ("sessionsOutsideCommit", .sessionsOutsideCommit),
            ("replyBeforeCommit", .replyBeforeCommit), ("staleRead", .staleRead), ("catchUpSkips", .catchUpSkips),
            ("slotInPlace", .slotInPlace), ("amnesia", .amnesia), ("retryRunsAgain", .retryRunsAgain),
            ("recordsForgotten", .recordsForgotten), ("useOrderForgotten", .useOrderForgotten),
            ("foundedByMajority", .foundedByMajority), ("livesUnchecked", .livesUnchecked),
            ("noncesUnchecked", .noncesUnchecked), ("poolsNotCompared", .poolsNotCompared),
            ("damageTakenForTear", .damageTakenForTear), ("digestsNotCompared", .digestsNotCompared),
            ("keysUnchecked", .keysUnchecked),
        ]
    }
}
