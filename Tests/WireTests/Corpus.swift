import Foundation

/// What a decoder did though it must not, in a sentence.
struct Violation: Error, CustomStringConvertible {
    let description: String
}

func hold(_ condition: Bool, _ what: @autoclosure () -> String) throws(Violation) {
    if !condition { throw Violation(description: what()) }
}

/// The inputs of one decoder that are kept in `Tests/Corpora`: a valid one of each kind, and every one that ever
/// failed.
struct Corpus {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Corpora")

    let decoder: String
    let inputs: [(name: String, bytes: [UInt8])]

    init(_ decoder: String) throws {
        self.decoder = decoder
        let folder = Self.folder.appending(path: decoder)
        inputs = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map {
            ($0, Array(try Data(contentsOf: folder.appending(path: $0))))
        }
    }

    /// Whether the files are to be written anew: `MPAXOS_REWRITE=1`, as with the scenarios of the core.
    static let isRewriting = ProcessInfo.processInfo.environment["MPAXOS_REWRITE"] == "1"

    /// The names of inputs that are not kept as they are here.
    static func differences(_ decoder: String, from seeds: [String: [UInt8]]) throws -> [String] {
        let folder = Self.folder.appending(path: decoder)
        if isRewriting {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            for (name, bytes) in seeds { try Data(bytes).write(to: folder.appending(path: "\(name).input")) }
        }
        let kept = try Corpus(decoder).inputs
        return seeds.compactMap { seed in
            kept.contains { $0.name == "\(seed.key).input" && $0.bytes == seed.value } ? nil : seed.key
        }.sorted()
    }
}

/// A seeded run of inputs made of a corpus by chance, against a property of their decoder.
///
/// `MPAXOS_SEED=n` makes the inputs of an earlier run again, `MPAXOS_FUZZ_ROUNDS=n` so many, `MPAXOS_FUZZ_TRACE=1`
/// prints each before it is tried: the last one printed is the one that ended the process.
struct Fuzz {
    private static let environment = ProcessInfo.processInfo.environment
    static let seed = environment["MPAXOS_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0..<1 << 48)
    static let traces = environment["MPAXOS_FUZZ_TRACE"] == "1"

    /// How many rounds there are: so many, unless the environment says otherwise.
    static func rounds(_ ordinary: Int) -> Int { environment["MPAXOS_FUZZ_ROUNDS"].flatMap(Int.init) ?? ordinary }

    var accepted = 0
    var refused = 0

    /// - Parameter property: whether the input was accepted; throws when it was not treated as it should be.
    init(_ corpus: Corpus, rounds: Int, _ property: (UnsafeRawBufferPointer) throws -> Bool) throws {
        print("\(corpus.decoder): inputs from MPAXOS_SEED=\(Self.seed) on")
        let page = GuardedBytes()
        for (name, bytes) in corpus.inputs { try check(bytes, name, page, property) }
        var mutator = Mutator(seed: Self.seed, inputs: corpus.inputs.map(\.bytes))
        for round in 0..<Self.rounds(rounds) {
            try check(mutator.next(largest: page.size), "round \(round)", page, property)
        }
    }

    private mutating func check(
        _ bytes: [UInt8], _ name: String, _ page: GuardedBytes, _ property: (UnsafeRawBufferPointer) throws -> Bool
    ) throws {
        if Self.traces { print("\(name): \(Self.hexadecimal(bytes))") }
        do {
            if try page.with(bytes, property) { accepted += 1 } else { refused += 1 }
        } catch {
            throw Violation(
                description: "\(error); MPAXOS_SEED=\(Self.seed), \(name), bytes \(Self.hexadecimal(bytes))")
        }
    }

    private static func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// Bytes at the end of memory behind which nothing may be read: a read beyond them ends the process.
final class GuardedBytes {
    let size = 64 << 10
    private let pages: UnsafeMutableRawPointer

    init() {
        guard let mapped = mmap(nil, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            mapped != MAP_FAILED, mprotect(mapped + size, 4096, PROT_NONE) == 0
        else { fatalError("no memory for guarded bytes") }
        pages = mapped
    }

    deinit { munmap(pages, size + 4096) }

    func with<Result>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        let place = UnsafeMutableRawBufferPointer(start: pages + (size - bytes.count), count: bytes.count)
        place.copyBytes(from: bytes)
        return try body(UnsafeRawBufferPointer(place))
    }
}

/// Makes inputs of others: bits, bytes and integers changed, parts cut, doubled, inserted and taken from another.
struct Mutator {
    private var random: FuzzRandom
    private let inputs: [[UInt8]]

    init(seed: UInt64, inputs: [[UInt8]]) {
        precondition(!inputs.isEmpty, "a corpus without inputs")
        random = FuzzRandom(seed: seed)
        self.inputs = inputs
    }

    mutating func next(largest: Int) -> [UInt8] {
        var bytes = inputs[random.below(inputs.count)]
        for _ in 0...random.below(4) { change(&bytes) }
        return bytes.count > largest ? Array(bytes.prefix(largest)) : bytes
    }

    private mutating func change(_ bytes: inout [UInt8]) {
        let place = random.below(bytes.count + 1)
        let part = place..<min(bytes.count, place + 1 + random.below(12))
        switch random.below(8) {
        case 0 where place < bytes.count: bytes[place] ^= 1 << UInt8(random.below(8))
        case 1 where place < bytes.count: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 2: bytes.removeSubrange(part)
        case 3: bytes.insert(contentsOf: bytes[part], at: place)
        case 4: bytes.removeSubrange(place...)
        case 5:
            bytes.insert(
                contentsOf: (0...random.below(16)).map { _ in UInt8(truncatingIfNeeded: random.next()) }, at: place)
        case 6:
            let other = inputs[random.below(inputs.count)]
            let from = random.below(other.count + 1)
            bytes.replaceSubrange(
                place..<min(bytes.count, place + random.below(40)),
                with: other[from..<min(other.count, from + random.below(40))])
        default:
            // A hostile integer in place of whatever is there.
            let width = [1, 2, 4, 8][random.below(4)]
            guard bytes.count >= width else { return }
            let values: [UInt64] = [.max, 1 << 63, 1 << 63 - 1, 1 << 31, 1 << 31 - 1, 0, 1, UInt64(bytes.count)]
            let value = values[random.below(values.count)]
            let at = random.below(bytes.count - width + 1)
            for index in 0..<width { bytes[at + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
        }
    }
}

/// SplitMix64.
struct FuzzRandom {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
