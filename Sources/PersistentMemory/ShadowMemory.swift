import Glibc
import MPaxosInvariants

/// What of a pool's region has certainly reached memory, by the flushes and fences that were heard of.
///
/// A flush takes a line as it is at that moment; the next fence makes that durable. A store that was forgotten to be
/// flushed is seen all the same: the region differs from the shadow there.
final class ShadowMemory {
    static let line = 64

    let region: UnsafeMutableRawBufferPointer
    /// What is certainly in memory.
    let durable: UnsafeMutableRawPointer
    /// Lines as they were when last flushed, where `isFlushed`.
    let flushed: UnsafeMutableRawPointer
    private(set) var isFlushed: [Bool]
    private(set) var flushedLines: [Int] = []
    private(set) var flushedInPage: [Int]

    /// What the region holds now is taken as durable.
    init(of region: UnsafeMutableRawBufferPointer) {
        invariant(region.count % Pool.pageSize == 0, "a region is whole pages")
        self.region = region
        durable = Self.map(region.count)
        flushed = Self.map(region.count)
        durable.copyMemory(from: region.baseAddress!, byteCount: region.count)
        isFlushed = Array(repeating: false, count: region.count / Self.line)
        flushedInPage = Array(repeating: 0, count: region.count / Pool.pageSize)
    }

    deinit {
        munmap(durable, region.count)
        munmap(flushed, region.count)
    }

    /// Pages that cost nothing until they are touched.
    private static func map(_ count: Int) -> UnsafeMutableRawPointer {
        guard
            let pages = mmap(
                nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
            pages != MAP_FAILED
        else { halt("no memory for a shadow of \(count) bytes: \(String(cString: strerror(errno)))") }
        return pages
    }

    func offset(of start: UnsafeRawPointer, _ count: Int) -> Int {
        let offset = start - UnsafeRawPointer(region.baseAddress!)
        invariant(offset >= 0 && offset + count <= region.count, "a flush lies within the region")
        return offset
    }

    /// - Parameter bytes: offsets in the region, not empty.
    func flush(_ bytes: Range<Int>) {
        for number in bytes.lowerBound / Self.line...(bytes.upperBound - 1) / Self.line {
            let at = number * Self.line
            (flushed + at).copyMemory(from: region.baseAddress! + at, byteCount: Self.line)
            if !isFlushed[number] {
                isFlushed[number] = true
                flushedLines.append(number)
                flushedInPage[at / Pool.pageSize] += 1
            }
        }
    }

    func fence() {
        for number in flushedLines where isFlushed[number] {
            let at = number * Self.line
            (durable + at).copyMemory(from: flushed + at, byteCount: Self.line)
            forget(number)
        }
        flushedLines.removeAll(keepingCapacity: true)
    }

    /// Whole pages were written to a disk, as they are.
    func write(_ bytes: Range<Int>) {
        (durable + bytes.lowerBound).copyMemory(from: region.baseAddress! + bytes.lowerBound, byteCount: bytes.count)
        flushedLines.removeAll { number in
            guard bytes.contains(number * Self.line) else { return false }
            forget(number)
            return true
        }
    }

    private func forget(_ number: Int) {
        isFlushed[number] = false
        flushedInPage[number * Self.line / Pool.pageSize] -= 1
    }

    /// The first line of a range of offsets whose content has not certainly reached memory.
    /// - Parameter pending: whether a line counts that was flushed as it is, and waits for a fence.
    func firstOpen(in bytes: Range<Int>, pending: Bool = true) -> Int? {
        var at = bytes.lowerBound & ~(Self.line - 1)
        while at < bytes.upperBound {
            // Mostly nothing differs: a page at a time.
            let end = min(bytes.upperBound, (at / Pool.pageSize + 1) * Pool.pageSize)
            if memcmp(region.baseAddress! + at, durable + at, end - at) == 0 {
                at = end
                continue
            }
            while at < end {
                let count = min(Self.line, end - at)
                if memcmp(region.baseAddress! + at, durable + at, count) != 0, pending || !isWaiting(at, count) {
                    return at
                }
                at += Self.line
            }
            at = end
        }
        return nil
    }

    /// Whether the line is flushed as it is now.
    func isWaiting(_ at: Int, _ count: Int) -> Bool {
        isFlushed[at / Self.line] && memcmp(region.baseAddress! + at, flushed + at, count) == 0
    }
}
