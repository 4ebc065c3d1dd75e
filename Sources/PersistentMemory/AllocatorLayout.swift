import MPaxosInvariants

/// The allocator's own records, at offsets from `HeapLayout.allocator`: counters, the map of filled first levels and
/// the sum of all its words on one line, then a map of second levels for each first level, then the heads of the free
/// lists.
enum AllocatorLayout {
    static let dataBytes: UInt64 = 0
    /// Right behind `dataBytes`: both are written as a pair.
    static let reserveBytes: UInt64 = 8
    static let highWater: UInt64 = 16
    static let firstLevelMap: UInt64 = 24
    static let sum: UInt64 = 32
    static let secondLevelMaps: UInt64 = 64
    static let heads: UInt64 = 64 + UInt64(SizeClass.firstLevels) * 8
    static let size = 64 + SizeClass.firstLevels * 8 + SizeClass.firstLevels * SizeClass.secondLevels * 8
    /// What the sum multiplies a word by. Odd, so that no change of one word, and so no bit of it, is lost.
    @inline(__always)
    static func weight(_ offset: UInt64) -> UInt64 { (offset | 1) &* 0x9E37_79B9_7F4A_7C15 }
    /// The smallest sensible room for blocks, in bytes.
    static let smallest = 4096
}

/// Two-level size classes of TLSF (Masmano et al., 2004): powers of two, each divided into 32; below 512 bytes steps of
/// 16.
struct SizeClass: Equatable {
    static let firstLevels = 40
    static let secondLevels = 32
    private static let linear: UInt64 = 512

    var first: Int
    var second: Int

    /// The class whose list a free block of this size belongs to.
    init(holding size: UInt64) {
        invariant(size >= BlockHeader.smallestBlock, "a block has room for its header")
        if size < SizeClass.linear {
            first = 0
            second = Int(size / 16)
        } else {
            let log = 63 - size.leadingZeroBitCount
            first = log - 8
            second = Int((size >> UInt64(log - 5)) & 31)
        }
        invariant(first < SizeClass.firstLevels, "a block is no larger than a data area can be")
    }

    /// The size that blocks for `size` bytes have: the least of a class, so that a block that was freed serves the next
    /// request of its size again (the class that holds it is the class that is searched). Costs a 32nd at most.
    static func rounded(_ size: UInt64) -> UInt64 {
        guard size >= SizeClass.linear else { return size }
        let step = UInt64(1) << UInt64(63 - size.leadingZeroBitCount - 5)
        return (size + step - 1) & ~(step - 1)
    }

    /// The lowest class all of whose blocks have at least this size.
    init(fitting size: UInt64) {
        guard size >= SizeClass.linear else {
            self.init(holding: size)
            return
        }
        let log = 63 - size.leadingZeroBitCount
        self.init(holding: size + (1 << UInt64(log - 5)) - 1)
    }
}

/// The 16 bytes before each block's content: {size with header, flags}, {size of the block before it in memory, tag}.
/// The sizes in both directions are the boundary tags (Knuth) by which neighbours are found and joined in O(1).
struct BlockHeader: BitwiseCopyable {
    static let size: UInt64 = 16
    /// Room for the two links of a free list.
    static let smallestBlock: UInt64 = 32

    private static let freeFlag: UInt64 = 1
    private static let reserveFlag: UInt64 = 2
    private static let flags: UInt64 = 15
    private static let tagShift: UInt64 = 48
    private static let sizeMask: UInt64 = (1 << tagShift) - 1
    private static let allocatedTag: UInt64 = 0xA110 << tagShift
    private static let freeTag: UInt64 = 0xF4EE << tagShift

    private var sizeAndFlags: UInt64
    private var beforeAndTag: UInt64

    init(size: UInt64, before: UInt64, isFree: Bool, isReserve: Bool) {
        invariant(
            size % 16 == 0 && size >= BlockHeader.smallestBlock,
            "a block's size is a multiple of 16 and has room for its header")
        invariant(before <= BlockHeader.sizeMask, "the size of the block before fits its field")
        sizeAndFlags = size | (isFree ? BlockHeader.freeFlag : 0) | (isReserve ? BlockHeader.reserveFlag : 0)
        beforeAndTag = before | (isFree ? BlockHeader.freeTag : BlockHeader.allocatedTag)
    }

    var size: UInt64 { sizeAndFlags & ~BlockHeader.flags }
    var isFree: Bool { sizeAndFlags & BlockHeader.freeFlag != 0 }
    var isReserve: Bool { sizeAndFlags & BlockHeader.reserveFlag != 0 }
    /// 0 for the first block.
    var before: UInt64 {
        get { beforeAndTag & BlockHeader.sizeMask }
        set { beforeAndTag = (beforeAndTag & ~BlockHeader.sizeMask) | newValue }
    }
    var isTagged: Bool {
        beforeAndTag & ~BlockHeader.sizeMask == (isFree ? BlockHeader.freeTag : BlockHeader.allocatedTag)
    }
}
