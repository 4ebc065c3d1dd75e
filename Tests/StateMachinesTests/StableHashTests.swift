import MPaxosStateMachines
import Testing

@Suite struct StableHashTests {
    private static func hash(_ bytes: [UInt8]) -> UInt64 { withBytes(bytes) { stableHash($0) } }

    /// Buckets are stored: the function must never change. One length from each of its branches.
    @Test(
        arguments: [
            (0, 0x1ff5_c292_3a78_8d2c),
            (1, 0xd5b2_6ee4_85f2_a92d),
            (3, 0xaf4b_147f_7f31_6c0a),
            (4, 0x0bde_e9a9_6d7d_3cb2),
            (8, 0x9ac6_26ab_8891_1893),
            (16, 0x37f6_1220_1427_870e),
            (17, 0x5607_63d8_4ffa_b150),
            (48, 0x45b7_7dc5_e629_6f55),
            (49, 0x249c_35ef_0af8_c974),
            (200, 0x1852_ea06_dbaa_c616),
        ] as [(Int, UInt64)])
    func staysTheSame(_ length: Int, _ expected: UInt64) {
        #expect(Self.hash((0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }) == expected)
    }

    @Test func everyByteAndTheLengthCount() {
        for length in 1...130 {
            let zeros = [UInt8](repeating: 0, count: length)
            var seen: Set<UInt64> = [Self.hash(zeros), Self.hash(zeros + [0]), Self.hash(Array(zeros.dropLast()))]
            #expect(seen.count == 3)
            for index in 0..<length {
                var changed = zeros
                changed[index] = 1
                #expect(seen.insert(Self.hash(changed)).inserted, "byte \(index) of \(length)")
            }
        }
    }

    /// Low bits choose the bucket: keys that count up must spread as chance would have it.
    @Test func countedKeysSpread() {
        for make in [{ UInt64($0).littleEndianBytes }, { Array("user:\($0)".utf8) }] as [(Int) -> [UInt8]] {
            var load = [Int](repeating: 0, count: 1024)
            for index in 0..<10_240 { load[Int(Self.hash(make(index)) & 1023)] += 1 }
            // Chi squared with 1,023 degrees of freedom: 1,023 is expected, the standard deviation is 45.
            let chiSquared = load.reduce(0.0) { $0 + Double(($1 - 10) * ($1 - 10)) / 10 }
            #expect((750...1300).contains(chiSquared))
        }
    }
}
