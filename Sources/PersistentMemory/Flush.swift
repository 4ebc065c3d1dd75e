import Glibc
import MPaxosCPersistentMemory
import MPaxosInvariants

/// Hears of the flushes and fences of one pool, in order. Crash-image tests keep from them what memory may hold after a
/// power failure. Called on the pool's owner thread, after the stores and before the instruction takes effect on the
/// caller.
package protocol CrashRecorder: AnyObject {
    func flushed(_ start: UnsafeRawPointer, _ count: Int)
    func fenced()
    /// Pages were written to disk by an msync, in place of a fence.
    func written(_ start: UnsafeRawPointer, _ count: Int)
}

extension CrashRecorder {
    package func written(_ start: UnsafeRawPointer, _ count: Int) {
        broken("crash images are of flushed cache lines, not of an msync'ed file")
    }
}

/// The one place where stores of a pool are made durable.
///
/// Lives behind a pointer that the pool owns, so that the hot path costs no exclusivity checks. `plain` is the fast
/// path: cache lines are flushed by instruction and nobody listens.
@usableFromInline
struct Flush {
    @usableFromInline let plain: Bool
    @usableFromInline var listened = false
    /// Whether `check` is there.
    @usableFromInline var checks = false
    var recorder: CrashRecorder?
    var check: FlushCheck?

    /// msync: the bytes to be written at the next fence, and those that only `fenceAll` must write. One range each and
    /// not a set: an msync of a range writes only its dirty pages, and every call of its own costs a disk barrier.
    private var soon = DirtyRange()
    private var later = DirtyRange()
    private let region: UnsafeMutableRawBufferPointer

    private struct DirtyRange {
        var low = UInt.max
        var high = UInt.min
        var isEmpty: Bool { low >= high }

        mutating func include(_ start: UnsafeRawPointer, _ count: Int) {
            let first = UInt(bitPattern: start)
            low = min(low, first)
            high = max(high, first + UInt(count))
        }

        mutating func include(_ other: DirtyRange) {
            low = min(low, other.low)
            high = max(high, other.high)
        }
    }

    @usableFromInline static let streaming = UInt32(PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NONTEMPORAL)

    static func make(region: UnsafeMutableRawBufferPointer, durability: Durability) -> UnsafeMutablePointer<Flush> {
        let flush = UnsafeMutablePointer<Flush>.allocate(capacity: 1)
        flush.initialize(to: Flush(region: region, durability: durability))
        return flush
    }

    static func destroy(_ flush: UnsafeMutablePointer<Flush>) {
        flush.deinitialize(count: 1)
        flush.deallocate()
    }

    private init(region: UnsafeMutableRawBufferPointer, durability: Durability) {
        self.region = region
        plain = durability != .msync
    }

    mutating func record(with recorder: CrashRecorder?) {
        self.recorder = recorder
        listened = recorder != nil
    }

    @inlinable mutating func flush(_ start: UnsafeRawPointer, _ count: Int) {
        if plain { pmem_flush(start, count) }
        if !plain || listened { note(start, count, needed: true) }
    }

    /// What only `fenceAll` must write to a disk.
    @inlinable mutating func flushLater(_ start: UnsafeRawPointer, _ count: Int) {
        if plain { pmem_flush(start, count) }
        if !plain || listened { note(start, count, needed: false) }
    }

    @inlinable mutating func copyAndFlush(
        to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int
    ) {
        if plain { pmem_memcpy_nodrain(target, source, count) } else { memcpy(target, source, count) }
        if !plain || listened { note(target, count, needed: true) }
    }

    @inlinable mutating func stream(to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int) {
        if plain { pmem_memcpy(target, source, count, Flush.streaming) } else { memcpy(target, source, count) }
        if !plain || listened { note(target, count, needed: true) }
    }

    @inlinable mutating func streamLater(
        to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int
    ) {
        if plain { pmem_memcpy(target, source, count, Flush.streaming) } else { memcpy(target, source, count) }
        if !plain || listened { note(target, count, needed: false) }
    }

    @inlinable mutating func fence() {
        if plain { pmem_drain() }
        if !plain || listened { settle(all: false) }
    }

    @inlinable mutating func fenceAll() {
        if plain { pmem_drain() }
        if !plain || listened { settle(all: true) }
    }

    @usableFromInline @inline(never)
    mutating func note(_ start: UnsafeRawPointer, _ count: Int, needed: Bool) {
        invariant(count >= 0, "a flush has no negative length")
        invariant(
            UnsafeRawPointer(region.baseAddress!) <= start
                && start + count <= UnsafeRawPointer(region.baseAddress!) + region.count,
            "a flush lies within the pool's region")
        guard count > 0 else { return }
        recorder?.flushed(start, count)
        if plain { return }
        if needed {
            soon.include(start, count)
        } else {
            later.include(start, count)
        }
    }

    @usableFromInline @inline(never)
    mutating func settle(all: Bool) {
        if plain {
            recorder?.fenced()
            return
        }
        // Two ranges, two barriers: together they may span the whole pool, but a write of pages that need not be
        // written yet costs less than a barrier only when both are asked for.
        if all, !later.isEmpty {
            soon.include(later)
            later = DirtyRange()
        }
        guard !soon.isEmpty else { return }
        let page = UInt(Pool.pageSize)
        let low = soon.low & ~(page - 1)
        let high = (soon.high + page - 1) & ~(page - 1)
        // A failed write-back may have dropped the pages: to go on would be to promise what is not there.
        guard Glibc.msync(UnsafeMutableRawPointer(bitPattern: low), Int(high - low), MS_SYNC) == 0 else {
            let reason = String(cString: strerror(errno))
            halt(
                "msync of a pool failed: \(reason); its disk cannot be trusted: keep this replica down, replace the disk"
            )
        }
        // The region begins on a page and ends with one.
        recorder?.written(UnsafeRawPointer(bitPattern: low)!, Int(high - low))
        soon = DirtyRange()
    }
}
