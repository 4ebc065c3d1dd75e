/// A 64-bit hash of bytes that is the same in every process, on every replica, for ever: bucket numbers derive from it,
/// and those are replicated state. (Swift's `Hasher` is seeded per process.) The construction is wyhash's, final
/// version 4: 64x64 to 128 bit multiplications, folded; see https://github.com/wangyi-fudan/wyhash. Read little-endian,
/// which is the only byte order supported.
///
/// It is not keyed: replicated state knows no secret, so who wants keys that collide can compute them.
/// ``PersistentDictionary`` bounds what that costs.
package func stableHash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    let secret0: UInt64 = 0xa076_1d64_78bd_642f
    let secret1: UInt64 = 0xe703_7ed1_a0b4_28db
    let secret2: UInt64 = 0x8ebc_6af0_9c88_c6e3
    let secret3: UInt64 = 0x5899_65cc_7537_4cc3
    let count = bytes.count
    guard count > 0, let start = bytes.baseAddress else { return fold(secret1, secret0) }

    var seed = fold(secret0, secret1)
    let first: UInt64
    let second: UInt64
    if count <= 16 {
        if count >= 4 {
            let step = (count >> 3) << 2
            first = UInt64(word32(start, 0)) << 32 | UInt64(word32(start, step))
            second = UInt64(word32(start, count - 4)) << 32 | UInt64(word32(start, count - 4 - step))
        } else {
            first = UInt64(bytes[0]) << 16 | UInt64(bytes[count >> 1]) << 8 | UInt64(bytes[count - 1])
            second = 0
        }
    } else {
        var offset = 0
        if count > 48 {
            var seed1 = seed
            var seed2 = seed
            while count - offset > 48 {
                seed = fold(word64(start, offset) ^ secret1, word64(start, offset + 8) ^ seed)
                seed1 = fold(word64(start, offset + 16) ^ secret2, word64(start, offset + 24) ^ seed1)
                seed2 = fold(word64(start, offset + 32) ^ secret3, word64(start, offset + 40) ^ seed2)
                offset += 48
            }
            seed ^= seed1 ^ seed2
        }
        while count - offset > 16 {
            seed = fold(word64(start, offset) ^ secret1, word64(start, offset + 8) ^ seed)
            offset += 16
        }
        // The last 16 bytes, which may overlap what was folded in already.
        first = word64(start, count - 16)
        second = word64(start, count - 8)
    }
    let product = (first ^ secret1).multipliedFullWidth(by: second ^ seed)
    return fold(product.low ^ secret0 ^ UInt64(count), product.high ^ secret1)
}

@inline(__always)
private func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
}

@inline(__always)
private func word64(_ start: UnsafeRawPointer, _ offset: Int) -> UInt64 {
    start.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
}

@inline(__always)
private func word32(_ start: UnsafeRawPointer, _ offset: Int) -> UInt32 {
    start.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
}
