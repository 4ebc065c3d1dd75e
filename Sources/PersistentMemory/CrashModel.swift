import Glibc
import MPaxosInvariants

/// A model of what persistent memory may hold after a power failure, fed by the flushes and fences of a pool. For
/// tests.
///
/// A line that was stored to but not yet flushed and fenced may be in memory or not: it can have been evicted from the
/// cache at any time. So may each of its 8-byte words, which alone are atomic. What was flushed before a fence is in
/// memory as it was when it was flushed. From this the model makes images: memory as a crash at this very event may
/// leave it.
package final class CrashModel: CrashRecorder {
    /// Called at every event, when the stores before it are done and its own effect is not yet.
    package var atEvent: (() -> Void)?
    /// Plants a bug: a flush for which it answers true is forgotten. Offsets in the region.
    package var forgetsFlush: ((Range<Int>) -> Bool)?
    /// Plants a bug: a fence for which it answers true is forgotten. It is given the offsets of the lines that wait for
    /// it.
    package var forgetsFence: (([Int]) -> Bool)?

    package private(set) var flushes = 0
    package private(set) var fences = 0

    private let shadow: ShadowMemory
    private var region: UnsafeMutableRawBufferPointer { shadow.region }

    private static let line = ShadowMemory.line

    /// What the pool's region holds now is taken as durable.
    package init(of pool: Pool) {
        invariant(pool.durability != .msync, "crash images are of flushed cache lines, not of an msync'ed file")
        shadow = ShadowMemory(of: pool.region)
    }

    package func flushed(_ start: UnsafeRawPointer, _ count: Int) {
        let offset = shadow.offset(of: start, count)
        flushes += 1
        // The stores are done; the flush may or may not have had its effect, which a crash shows in the same images.
        if forgetsFlush?(offset..<offset + count) != true { shadow.flush(offset..<offset + count) }
        atEvent?()
    }

    package func fenced() {
        fences += 1
        atEvent?()
        if let forgetsFence, forgetsFence(shadow.flushedLines.map { $0 * CrashModel.line }) { return }
        shadow.fence()
    }

    /// Lines whose content after a crash now would be open.
    package var openLines: [Int] {
        var lines: [Int] = []
        var page = 0
        // While loops: this is most of a test's time in a debug build.
        while page < region.count {
            if shadow.flushedInPage[page / Pool.pageSize] > 0
                || memcmp(region.baseAddress! + page, shadow.durable + page, Pool.pageSize) != 0
            {
                var at = page
                while at < page + Pool.pageSize {
                    if shadow.isFlushed[at / CrashModel.line]
                        || memcmp(region.baseAddress! + at, shadow.durable + at, CrashModel.line) != 0
                    {
                        lines.append(at / CrashModel.line)
                    }
                    at += CrashModel.line
                }
            }
            page += Pool.pageSize
        }
        return lines
    }

    /// Fills `image` with memory as a crash now may leave it.
    /// - Parameter open: `openLines`, which is slow to find and the same for all images of one event.
    /// - Returns: a fingerprint of the image, among those of this model.
    @discardableResult
    package func makeImage(
        _ kind: ImageKind, open: [Int], into image: UnsafeMutableRawBufferPointer, random: inout Seeded
    ) -> UInt64 {
        invariant(image.count == region.count, "an image has the size of its region")
        image.baseAddress!.copyMemory(from: shadow.durable, byteCount: image.count)
        var hash = UInt64(fences)
        guard kind != .nothing else { return hash }
        // Few, half or most of the lines: rare combinations are more than coin tosses would give.
        let odds = [16, 128, 240][random.below(3)]
        for number in open {
            let at = number * CrashModel.line
            let unit = kind == .words ? 8 : CrashModel.line
            var word = at
            while word < at + CrashModel.line {
                defer { word += unit }
                guard kind == .everything || random.below(256) < odds else { continue }
                let source =
                    kind == .everything ? UnsafeRawPointer(region.baseAddress!) : version(of: number, random: &random)
                (image.baseAddress! + word).copyMemory(from: source + word, byteCount: unit)
            }
            word = at
            while word < at + CrashModel.line {
                defer { word += 8 }
                hash =
                    (hash ^ UInt64(word) ^ image.load(fromByteOffset: word, as: UInt64.self)) &* 0x9E37_79B9_7F4A_7C15
                hash ^= hash >> 29
            }
        }
        return hash
    }

    /// The region as it is, or as it was flushed.
    private func version(of number: Int, random: inout Seeded) -> UnsafeRawPointer {
        shadow.isFlushed[number] && random.below(2) == 0
            ? UnsafeRawPointer(shadow.flushed) : UnsafeRawPointer(region.baseAddress!)
    }

    package enum ImageKind: Equatable {
        /// No open line reached memory.
        case nothing
        /// All did.
        case everything
        /// Any subset did.
        case lines
        /// Any subset of their 8-byte words did.
        case words
    }

    /// SplitMix64: small, seeded, the same everywhere.
    package struct Seeded: RandomNumberGenerator {
        private var state: UInt64

        package init(seed: UInt64) { state = seed }

        package mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }

        package mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    }
}
