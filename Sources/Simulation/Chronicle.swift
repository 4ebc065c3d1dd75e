import MPaxosConsensus

/// Which pools and lives the replicas really had: what one has on record of another must be among them.
struct Chronicle {
    /// By index; `Life.none` for pools that were only formatted.
    private var records: [Set<Acquaintances.Record>]

    init(count: Int) { records = Array(repeating: [], count: count) }

    mutating func isFormatted(_ index: ReplicaIndex, incarnation: UInt64) {
        records[index].insert(Acquaintances.Record(incarnation: incarnation, life: .none))
    }

    /// A life begins, on pools that may be copies.
    mutating func begins(_ record: Acquaintances.Record, of index: ReplicaIndex) {
        let isOfACopy = records[index].contains {
            $0.incarnation == record.incarnation && $0.life.bootCount == record.life.bootCount
        }
        records[index].insert(record)
        guard isOfACopy else { return }
        // As they are known to whom has heard of both.
        let both = Life(bootCount: record.life.bootCount, nonce: 0)
        records[index].insert(Acquaintances.Record(incarnation: record.incarnation, life: both))
    }

    /// - Parameters:
    ///   - known: what replica `index` knows of all, by index.
    /// - Returns: what of it never was, in words.
    func contradiction(to known: [Acquaintances.Record], of index: ReplicaIndex) -> String? {
        for (member, record) in known.enumerated() where record != .none && !records[member].contains(record) {
            return "replica \(index) knows \(member) as \(record), which it never was"
        }
        return nil
    }
}
