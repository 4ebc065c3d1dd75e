import MPaxosPersistentMemory

/// A small record kept twice, in two lines of their own: a primary that is written first, and a mirror that gets the
/// same bytes once the primary is durable. So there is always one durable copy of the last fenced value, and damage to
/// either line is noticed or harmless: a primary that is gone has its equal in the mirror, and a lost write can never
/// look like an older value.
struct PairedRecord: CheckedLine {
    var kind: UInt64
    /// Rises with every write of this record.
    var sequence: UInt64
    /// The group commit that it belongs to, see `VoteLine.epoch`.
    var epoch: UInt64
    var first: UInt64
    var second: UInt64
    private var zero: (UInt64, UInt64) = (0, 0)
    private var zero32: UInt32 = 0
    var checksum: UInt32 = 0

    init(kind: UInt64, sequence: UInt64, epoch: UInt64, first: UInt64, second: UInt64) {
        self.kind = kind
        self.sequence = sequence
        self.epoch = epoch
        self.first = first
        self.second = second
        self = sealed
    }

    func isValid(kind expected: UInt64) -> Bool { kind == expected && isIntact }
}

/// The two lines of a record as they were found.
struct PairedRecordReading {
    var value: PairedRecord
    /// Mirror and primary differ: one write was under way when the process ended, or one line is damaged.
    var needsRepair: Bool

    /// nil when neither line can be trusted, or when the mirror is ahead of the primary, which no crash brings about.
    init?(primary: PairedRecord, mirror: PairedRecord, kind: UInt64) {
        switch (primary.isValid(kind: kind), mirror.isValid(kind: kind)) {
        case (true, true):
            guard primary.sequence >= mirror.sequence else { return nil }
            value = primary
            needsRepair = primary.sequence != mirror.sequence
        case (true, false):
            value = primary
            needsRepair = true
        case (false, true):
            value = mirror
            needsRepair = true
        case (false, false):
            return nil
        }
    }
}
