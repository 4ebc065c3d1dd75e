import Glibc

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
        precondition(first < end, "nothing to digest")
        hashes = zeroedMemory(end)
        stale = zeroedMemory((end + 63) / 64)
    }

    func deallocate() {
        free(hashes)
        free(stale)
    }

    mutating func changed(line: UInt64) { changed(page: Int(line >> 6)) }

    private mutating func changed(page: Int) {
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

/// XXH64 (Collet) over one page, with the page number as its seed; 0 for a page of zeros.
enum PageHash {
    private static let p1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let p2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let p3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let p4: UInt64 = 0x85EB_CA77_C2B2_AE63

    static func hash(_ page: UnsafeRawPointer, number: UInt64) -> UInt64 {
        let seed = (number &+ 1) &* p3
        var a = seed &+ p1 &+ p2
        var b = seed &+ p2
        var c = seed
        var d = seed &- p1
        var any: UInt64 = 0
        var at = page.assumingMemoryBound(to: UInt64.self)
        for _ in 0..<(Pool.pageSize / 32) {
            let (w, x, y, z) = (at[0], at[1], at[2], at[3])
            any |= (w | x) | (y | z)
            a = round(a, w)
            b = round(b, x)
            c = round(c, y)
            d = round(d, z)
            at += 4
        }
        if any == 0 { return 0 }
        var h = rotate(a, 1) &+ rotate(b, 7) &+ rotate(c, 12) &+ rotate(d, 18)
        h = merge(merge(merge(merge(h, a), b), c), d) &+ UInt64(Pool.pageSize)
        h = (h ^ (h >> 33)) &* p2
        h = (h ^ (h >> 29)) &* p3
        return h ^ (h >> 32)
    }

    @inline(__always) private static func rotate(_ x: UInt64, _ n: UInt64) -> UInt64 { (x &<< n) | (x &>> (64 &- n)) }
    @inline(__always) private static func round(_ h: UInt64, _ w: UInt64) -> UInt64 { rotate(h &+ w &* p2, 31) &* p1 }
    @inline(__always) private static func merge(_ h: UInt64, _ lane: UInt64) -> UInt64 {
        (h ^ round(0, lane)) &* p1 &+ p4
    }
}
