import Glibc
import Invariants

/// A digest of the committed data area, kept by 4 KiB pages: the sum of a hash of every page and its number.
///
/// A pure function of the bytes: a page of zeros counts 0, so pages never used need not be read. Off the hot path: a commit
/// only marks pages stale, and idle time computes them.
struct DigestTable {
    private let hashes: UnsafeMutablePointer<UInt64>
    private let stale: UnsafeMutablePointer<UInt64>
    private let first: Int
    private let end: Int
    private var cursor = 0
    private(set) var staleCount = 0
    private(set) var sum: UInt64 = 0

    init(layout: HeapLayout) {
        first = Int(layout.progressSize) / Pool.pageSize
        end = Int(layout.dataSize) / Pool.pageSize
        invariant(first < end, "what is digested has bytes")
        hashes = zeroedMemory(end)
        stale = zeroedMemory((end + 63) / 64)
    }

    func deallocate() {
        free(hashes)
        free(stale)
    }

    mutating func changed(page: Int) {
        guard page >= first else { return }
        let bit: UInt64 = 1 << UInt64(page & 63)
        if stale[page >> 6] & bit == 0 {
            stale[page >> 6] |= bit
            staleCount += 1
        }
    }

    /// After open: whatever may have been used up to `offset`.
    mutating func allChanged(upTo offset: UInt64) {
        let last = min(end, (Int(offset) + Pool.pageSize - 1) / Pool.pageSize)
        for page in first..<max(first, last) { changed(page: page) }
    }

    /// Computes at most `budget` stale pages from the committed bytes.
    mutating func refresh(budget: Int, of data: UnsafeRawPointer) {
        var left = budget
        let words = (end + 63) / 64
        while staleCount > 0, left > 0 {
            if stale[cursor] == 0 {
                cursor = cursor + 1 == words ? 0 : cursor + 1
                continue
            }
            let bit = stale[cursor].trailingZeroBitCount
            stale[cursor] &= stale[cursor] &- 1
            let page = cursor * 64 + bit
            let hash = PageHash.hash(data + page * Pool.pageSize, number: UInt64(page - first))
            sum = sum &- hashes[page] &+ hash
            hashes[page] = hash
            staleCount -= 1
            left -= 1
        }
    }
}
