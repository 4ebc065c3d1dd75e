import MPaxosSimulation

extension ClusterOptions {
    /// The options with which a seed is run, among others and when it is replayed.
    /// - Parameter replicaCount: nil: the seed's own.
    package init(seed: UInt64, replicaCount: Int?) {
        self.init(replicaCount: replicaCount ?? SeedRun.replicaCount(of: seed))
    }
}

extension SeedRun {
    /// Runs of whole replicas.
    package static func ofClusters(seeds: Range<UInt64>, replicaCount: Int?) -> SeedRun {
        SeedRun(seeds: seeds) { seed in
            let options = ClusterOptions(seed: seed, replicaCount: replicaCount)
            let report = ClusterSimulator(seed: seed, options: options).run()
            return Outcome(
                failure: report.failure, replicaCount: options.replicaCount, decided: report.decided,
                answered: report.answered, crashes: report.crashes, elections: report.elections,
                boundUsed: report.boundUsed, time: report.time)
        }
    }
}

extension ClusterPlant {
    /// How many seeds show it, the first that does among them; nil when none of `limit` does.
    package func seedsUntilFound(from first: UInt64, limit: UInt64) -> UInt64? {
        for count in 1...limit {
            var options = ClusterOptions(seed: first + count - 1, replicaCount: 3)
            options.plant = self
            if ClusterSimulator(seed: first + count - 1, options: options).run().failure != nil { return count }
        }
        return nil
    }
}
