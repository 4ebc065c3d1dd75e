import MPaxosConsensus
import MPaxosPersistentMemory

/// Where things lie in a state.pool:
///
/// ```
/// region:    page 0: identity (IdentityPage); from page 1: the heap, whose line for the owner is Breadcrumbs
/// progress:  Progress, then a stamp for each session slot, a CheckedNumber or 0       (journaled, not digested)
/// data:      StateRoot in the system root; the session table, one block               (journaled, digested)
/// ```
enum StateLayout {
    static let magic: UInt64 = 0x3154_4154_5358_504D  // "MPXSTAT1"
    static let version: UInt32 = 6
    static let poolLayout = "mpaxos-state-4"
    static let heapOffset = 4096
    static let stampsOffset: UInt64 = 64
    /// Three lines. A slot begins on a line, which holds all of it but the reply.
    static let slotSize = 192
    static let lineSize = 64
    /// Journal that the beginning of a command may find, in bytes: opening, closing and evicting a session touch some
    /// ten lines.
    static let sessionRoom = 64 * 72

    static func progressSize(sessions: Int) -> Int { Int(stampsOffset) + 8 * sessions }
    static func tableSize(sessions: Int) -> Int { slotSize * sessions }
    /// A sixteenth of the region, but room for a command of a MiB or so also in a small pool.
    static func journalSize(regionSize: Int) -> Int { max(regionSize / 16, min(regionSize / 4, 4 << 20)) }
}

/// How far this replica has executed. Not digested: duplicates and empty instances change it without changing the
/// position.
struct Progress: CheckedLine {
    /// All instances up to it are executed.
    var executed: UInt64 = 0
    /// Records of the next instance that are executed already.
    var records: UInt64 = 0
    /// Counts the uses of sessions; the stamps are its values.
    var useClock: UInt64 = 0
    /// All up to this instance came in a snapshot of another replica's state: what this replica's log says of it counts
    /// no more.
    var installed: UInt64 = 0
    /// How often this replica was started on it, see `AcceptorPool.belongs`.
    var bootCount: UInt64 = 0
    /// Of the data, with this commit: see `Heap.digest`.
    var digest: UInt64 = 0
    private var zero: UInt64 = 0
    private var zero32: UInt32 = 0
    var checksum: UInt32 = 0
}

/// The runtime's own part of the replicated state, one line.
struct StateRoot: CheckedLine {
    static let magic: UInt64 = 0x3154_4F4F_5258_504D  // "MPXROOT1"

    var magic = StateRoot.magic
    /// Ordered commands executed.
    var position: UInt64 = 0
    /// OPENs executed: the first half of the next session's id.
    var openings: UInt64 = 0
    /// Sessions that are open.
    var sessions: UInt64 = 0
    /// Slots from 0 on that were ever used.
    var usedSlots: UInt64 = 0
    /// Offset of the session table.
    var table: UInt64 = 0
    /// Offset of the block that the table lies in.
    var tableBlock: UInt64 = 0
    var capacity: UInt32 = 0
    var checksum: UInt32 = 0
}

/// What a slot of the table begins with: a session. A reply of up to `KeptReply.inlineLimit` bytes follows it.
struct SessionSlot: BitwiseCopyable {
    /// 0: the slot is free.
    var id: UInt64 = 0
    /// The last sequence executed or refused; 0: none yet.
    var sequence: UInt64 = 0
    /// The position of that command.
    var position: UInt64 = 0
    /// A reply block, also when the reply at hand is short; 0: none.
    var block: UInt64 = 0
    var replyLength: UInt32 = 0
    var status: UInt8 = 0
    private var zero8: UInt8 = 0
    /// Where in its block the reply begins.
    var replyStart: UInt16 = 0
    /// The count of uses when the session was opened, or that command executed. Later uses, which take no position and
    /// so must not change the digest, stamp the progress.
    var stamp: UInt64 = 0

    static let sequenceOffset: UInt64 = 8
    static let blockOffset: UInt64 = 24
    static let size = 48

    init() {}
}

/// Where the kept reply of a session lies: in its slot when it is short, else in a block of its own.
enum KeptReply {
    static let inlineLimit = StateLayout.slotSize - SessionSlot.size

    /// Whether a block that a session has is kept for a reply of `count` bytes: when it fits, and does not waste much.
    /// A session that alternates between short and long replies so keeps a small block, and gives back a large one.
    static func keepsBlock(capacity: Int, for count: Int) -> Bool {
        if count <= inlineLimit { return capacity <= 256 }
        return count <= capacity && capacity <= max(256, 4 * count)
    }

    /// Bytes to ask for: whole lines, so that replies of nearly one size share a block.
    static func blockSize(for count: Int) -> Int { (count + 63) & ~63 }
}
