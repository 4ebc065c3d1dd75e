/// A hash of a line of 64 bytes with its number, such that sums of them tell states apart; 0 for a line of zeros.
///
/// Pairs of words, each masked by its own constant, are multiplied to 128 bits and folded (Wang Yi's wyhash): some
/// nanoseconds. It guards against accidents, not against who chooses the bytes.
package enum LineHash {
    /// Drawn once, a constant for each word: all replicas must have the same. No vector, from which each would have to
    /// be extracted.
    private static var key0: UInt64 { 0xA076_1D64_78BD_642F }
    private static var key1: UInt64 { 0xE703_7ED1_A0B4_28DB }
    private static var key2: UInt64 { 0x8EBC_6AF0_9C88_C6E3 }
    private static var key3: UInt64 { 0x5899_65CC_7537_4CC3 }
    private static var key4: UInt64 { 0x1D8E_4E27_C47D_124F }
    private static var key5: UInt64 { 0xEB44_ACCA_B455_D165 }
    private static var key6: UInt64 { 0x9E37_79B9_7F4A_7C15 }
    private static var key7: UInt64 { 0xC2B2_AE3D_27D4_EB4F }
    private static var placeKey: UInt64 { 0xD6E8_FEB8_6659_FD93 }

    /// Reads 64 bytes from an address that is a multiple of 8.
    @inline(__always)
    package static func hash(_ line: UnsafeRawPointer, number: UInt64) -> UInt64 {
        let words = line.assumingMemoryBound(to: UInt64.self)
        let (a, b, c, d) = (words[0], words[1], words[2], words[3])
        let (e, f, g, h) = (words[4], words[5], words[6], words[7])
        if ((a | b) | (c | d)) | ((e | f) | (g | h)) == 0 { return 0 }
        let place = (number &+ 1) &* placeKey
        let first = fold(a ^ key0, b ^ key1 ^ place)
        let second = fold(c ^ key2 ^ place, d ^ key3)
        let third = fold(e ^ key4, f ^ key5 ^ place)
        let fourth = fold(g ^ key6 ^ place, h ^ key7)
        return fold((first &+ third) ^ place, (second &+ fourth) ^ key0)
    }

    /// The sum of the hashes of `count` lines from `first` on, which lie at `start`.
    package static func sum(_ start: UnsafeRawPointer, count: Int, first: UInt64) -> UInt64 {
        var sum: UInt64 = 0
        for index in 0..<count { sum &+= hash(start + index * 64, number: first &+ UInt64(index)) }
        return sum
    }

    @inline(__always)
    private static func fold(_ x: UInt64, _ y: UInt64) -> UInt64 {
        let product = x.multipliedFullWidth(by: y)
        return product.high ^ product.low
    }
}
