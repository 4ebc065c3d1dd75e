/// XXH64 (Collet) over one page, with the page number as its seed; 0 for a page of zeros.
package enum PageHash {
    private static let p1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let p2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let p3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let p4: UInt64 = 0x85EB_CA77_C2B2_AE63

    /// Reads 4,096 bytes.
    package static func hash(_ page: UnsafeRawPointer, number: UInt64) -> UInt64 {
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
