import MPaxosConsensus
import MPaxosInvariants

/// The search for a planted bug: with a cluster of the size at which it matters.
package struct BugHunt: Sendable, CustomStringConvertible {
    package var name: String
    package var bug: PlantedBugs
    package var replicaCount: Int
    /// As in the options of a simulation.
    package var links: Bool?

    package var description: String { name }

    package init(name: String, bug: PlantedBugs, replicaCount: Int, links: Bool? = nil) {
        self.name = name
        self.bug = bug
        self.replicaCount = replicaCount
        self.links = links
    }

    /// One for each planted bug.
    package static var all: [BugHunt] {
        PlantedBugs.named.map { name, bug in
            let size =
                switch bug {
                case .smallQuorum: 4
                // Overlapping majorities of more than one other replica.
                case .votesOverViews, .establishedTooEarly, .adoptFirstReported: 5
                // The more there are to overtake each other.
                case .noBackOff: 5
                default: 3
                }
            let links: Bool? =
                switch bug {
                // What these do shows on links alone; the others were made for a network that loses and repeats.
                case .resendByTime, .heartbeatsBehindBulk: true
                case .noBackOff: nil
                default: false
                }
            return BugHunt(name: name, bug: bug, replicaCount: size, links: links)
        }
    }

    /// How many seeds it takes from `first` on, and what shows; nil when it takes more than `limit`.
    package func run(from first: UInt64, limit: UInt64) -> (seeds: UInt64, failure: SimulationFailure)? {
        invariant(limit > 0, "a hunt takes seeds")
        for count in 1...limit {
            let options = SimulationOptions(
                replicaCount: replicaCount, plantedBugs: bug, duration: 1_500_000, invariantInterval: 0, links: links)
            if let failure = Simulator(seed: first + count - 1, options: options).run().failure {
                return (count, failure)
            }
        }
        return nil
    }
}
