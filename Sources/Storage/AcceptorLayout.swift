import MPaxosInvariants
import MPaxosPersistentMemory

/// Where things lie in the region of an acceptor.pool:
///
/// ```
/// page 0   identity (IdentityPage)
/// page 1   promise, established view, floor, shutdown mark, life, founding: a primary and a mirror line each
///          (PairedRecord);
///          the number of the newest group commit that was fenced (CheckedNumber);
///          the nonces of the last lives, as records
/// page 2   the peers' incarnations, the lives in which they were met last, and those that were refused, likewise
/// page 3   slots: S x 2 sides x 64 bytes (VoteLine)
/// ...      arena: the batches' bytes, circular
/// ```
package struct AcceptorGeometry: Equatable {
    static let magic: UInt64 = 0x5443_4341_5850_4D01  // "\u{1}MPXACCT"
    static let version: UInt32 = 5
    static let poolLayout = "mpaxos-acceptor-3"
    /// What libpmemobj takes of a file, at most.
    static let fileOverhead = 8 << 20
    static let recordsOffset = 4096
    static let fencedOffset = 5120
    /// The nonces take half of page 1, 16 records.
    static let pastOffset = 6144
    static let incarnationsOffset = 8192
    static let slotsOffset = 12288
    static let line = 64
    static let slotSize = 2 * line
    /// Above this the mirror in memory and the scan at open cost more than ever shorter batches are worth.
    static let slotLimit = 1 << 18

    /// Bytes of the file of a log of that size.
    static func fileSize(logSize: Int) -> Int {
        max(Pool.minimumSize, (logSize + fileOverhead) & ~(Pool.pageSize - 1))
    }

    /// The number of slots is a power of two.
    var slots: Int
    var arenaOffset: Int
    /// The size of the arena in bytes is a multiple of 64.
    var arenaSize: Int

    /// The slots take at most an eighth of the region, so batches of 1 KiB and more fill the arena before the slots run
    /// out.
    init(regionSize: Int) {
        invariant(regionSize >= 1 << 20, "an acceptor pool's region is at least 1 MiB")
        var slots = 1
        while slots * 2 * Self.slotSize <= regionSize / 8 && slots < Self.slotLimit { slots *= 2 }
        self.init(slots: slots, arenaSize: (regionSize - Self.slotsOffset - slots * Self.slotSize) & ~(Self.line - 1))
    }

    /// Other proportions than the usual, so that tests reach a wrap and a full ring early.
    package init(slots: Int, arenaSize: Int) {
        invariant(slots >= 2 && slots & (slots - 1) == 0, "the number of slots is a power of two")
        invariant(arenaSize > 0 && arenaSize % Self.line == 0, "the arena is whole lines")
        self.slots = slots
        arenaOffset = Self.slotsOffset + slots * Self.slotSize
        self.arenaSize = arenaSize
    }

    /// Bytes of a region for it.
    package var regionSize: Int { (arenaOffset + arenaSize + Pool.pageSize - 1) & ~(Pool.pageSize - 1) }

    /// nil when the words do not describe a layout that fits into the region.
    init?(words: [UInt64], regionSize: Int) {
        let limit = UInt64(regionSize)
        guard words.count >= 2, words[0] >= 2, words[0] <= UInt64(Self.slotLimit), words[0] & (words[0] - 1) == 0,
            words[1] > 0, words[1] <= limit, words[1] % UInt64(Self.line) == 0
        else { return nil }
        self.init(slots: Int(words[0]), arenaSize: Int(words[1]))
        guard arenaOffset + arenaSize <= regionSize else { return nil }
    }

    var words: [UInt64] { [UInt64(slots), UInt64(arenaSize)] }
}
