/// Deliberate mistakes that a test switches on, to show that the simulator finds them.
package struct PlantedBugs: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    // MARK: In the core

    /// An acceptance in an older view counts as a vote in this one.
    package static var votesOverViews: PlantedBugs { PlantedBugs(rawValue: 1 << 0) }
    /// A quorum is (N+1)/2: two disjoint ones for even N.
    package static var smallQuorum: PlantedBugs { PlantedBugs(rawValue: 1 << 1) }
    /// A Promise leaves before the promise is durable.
    package static var promiseBeforeDurable: PlantedBugs { PlantedBugs(rawValue: 1 << 2) }
    /// The commit index decides an entry that was accepted in another view.
    package static var commitWithoutView: PlantedBugs { PlantedBugs(rawValue: 1 << 3) }
    /// An Accepted leaves before the accepted value is durable.
    package static var acceptedBeforeDurable: PlantedBugs { PlantedBugs(rawValue: 1 << 4) }
    /// The established record is written together with the values it vouches for, not after them.
    package static var establishedTooEarly: PlantedBugs { PlantedBugs(rawValue: 1 << 5) }
    /// A new leader takes the first reported value of an instance, not that of the highest view.
    package static var adoptFirstReported: PlantedBugs { PlantedBugs(rawValue: 1 << 6) }
    /// A proposal leaves before the proposer's own acceptance is durable, though followers count it.
    package static var proposeBeforeDurable: PlantedBugs { PlantedBugs(rawValue: 1 << 7) }
    /// A decided value from a higher view is kept without promising that view first.
    package static var decidedWithoutView: PlantedBugs { PlantedBugs(rawValue: 1 << 8) }

    /// Whose storage is stuck goes on to lead and to campaign.
    package static var stuckStorageUnnoticed: PlantedBugs { PlantedBugs(rawValue: 1 << 9) }

    /// Proposals are sent again by time, whatever is still under way.
    package static var resendByTime: PlantedBugs { PlantedBugs(rawValue: 1 << 10) }
    /// A failed election is tried again as soon as the first was.
    package static var noBackOff: PlantedBugs { PlantedBugs(rawValue: 1 << 11) }

    // MARK: Around the core: the core knows nothing of these, the simulated storage and executor do

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

    /// All, by the names under which they are reported.
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
