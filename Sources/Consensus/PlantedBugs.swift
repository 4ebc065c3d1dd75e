/// Deliberate mistakes of the core that a test switches on, to show that the simulator finds them. Bits from 16 on are
/// the simulator's, for mistakes around the core.
package struct PlantedBugs: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

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
}
