import Testing

@testable import MPaxosTopology

/// Files that were damaged: read or refused, in one line, and never the end of the process.
@Suite struct TopologyFuzzTests {
    private static let whole =
        TopologyTests.smallest + """

            [storage]
            directory = "/dev/shm/x"
            log_size = "64 MiB"
            [protocol]
            window = 64
            [client]
            socket = "router"
            """

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func damagedFilesAreReadOrRefused(seed: UInt64) {
        var random = Xorshift(state: seed &* 0x9E37_79B9_7F4A_7C15)
        let original = Array(Self.whole.utf8)
        var refused = 0
        for _ in 0..<1_000 {
            var bytes = original
            for _ in 0...random.below(4) { damage(&bytes, original, &random) }
            do throws(TopologyError) {
                let topology = try Topology(parsing: bytes, file: "t.toml")
                #expect(!topology.replicas.isEmpty)
            } catch {
                refused += 1
                let line = error.description
                let isOneLine = line.hasPrefix("t.toml") && !line.contains { $0.isNewline }
                #expect(isOneLine, "\(line), of \(String(decoding: bytes, as: UTF8.self))")
            }
        }
        #expect(refused > 300)
    }

    private func damage(_ bytes: inout [UInt8], _ original: [UInt8], _ random: inout Xorshift) {
        guard !bytes.isEmpty else { return }
        let place = random.below(bytes.count)
        let count = 1 + random.below(12)
        switch random.below(6) {
        case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 1: bytes[place] ^= 1 << UInt8(random.below(8))
        case 2: bytes.removeSubrange(place..<min(bytes.count, place + count))
        case 3: bytes.removeSubrange(place...)
        case 4:
            let from = random.below(original.count)
            bytes.insert(contentsOf: original[from..<min(original.count, from + count)], at: place)
        default:
            let signs = Array("[]\"'=.,#\n\\{}-0e_".utf8)
            bytes.insert(signs[random.below(signs.count)], at: place)
        }
    }

    private struct Xorshift {
        var state: UInt64

        mutating func next() -> UInt64 {
            state ^= state >> 12
            state ^= state << 25
            state ^= state >> 27
            return state &* 0x2545_F491_4F6C_DD1D
        }

        mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    }
}
