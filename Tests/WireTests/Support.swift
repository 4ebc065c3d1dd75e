@testable import MPaxosWire

/// A small generator of reproducible randomness (xorshift64*).
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed == 0 ? 1 : seed
    }

    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_F491_4F6C_DD1D
    }
}

/// Runs `body` over a heap block of exactly the bytes given, so that a memory checker sees any access beyond them.
func withExactBytes<Result>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { block.deallocate() }
    block.copyBytes(from: bytes)
    return try body(UnsafeRawBufferPointer(block))
}

/// The `count` bytes that `write` writes; fails the test's process when it touches the guard bytes on either side.
func written(_ count: Int, _ write: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
    let guardBytes = 16
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: count + 2 * guardBytes, alignment: 1)
    defer { block.deallocate() }
    for index in block.indices { block[index] = 0xA5 }
    write(block.baseAddress! + guardBytes)
    precondition(block.prefix(guardBytes).allSatisfy { $0 == 0xA5 }, "bytes before the buffer were written")
    precondition(block.suffix(guardBytes).allSatisfy { $0 == 0xA5 }, "bytes after the buffer were written")
    return Array(block[guardBytes..<guardBytes + count])
}

/// Flips, cuts, extends and rewrites bytes: one to four changes of a valid input.
func mutated(_ original: [UInt8], using random: inout SeededRandom) -> [UInt8] {
    var bytes = original
    for _ in 0..<Int.random(in: 1...4, using: &random) {
        switch Int.random(in: 0..<6, using: &random) {
        case 0 where !bytes.isEmpty:
            bytes[Int.random(in: bytes.indices, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1 where !bytes.isEmpty:
            bytes[Int.random(in: bytes.indices, using: &random)] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(
                using: &random)!
        case 2:
            bytes.removeLast(Int.random(in: 0...bytes.count, using: &random))
        case 3:
            for _ in 0..<Int.random(in: 1...40, using: &random) {
                bytes.append(UInt8.random(in: 0...255, using: &random))
            }
        case 4 where bytes.count >= 8:
            // A hostile integer in place of whatever is there.
            let value = [UInt64.max, UInt64(Int64.max), UInt64(UInt32.max), 1 << 31, 0].randomElement(using: &random)!
            let at = Int.random(in: 0...bytes.count - 8, using: &random)
            for index in 0..<8 { bytes[at + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        default:
            bytes.insert(contentsOf: [0, 0xFF], at: Int.random(in: 0...bytes.count, using: &random))
        }
    }
    return bytes
}
