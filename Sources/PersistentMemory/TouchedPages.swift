import Glibc
import MPaxosInvariants

/// Which pages of the view have a private copy in DRAM, to give that memory back when they are many.
struct TouchedPages {
    private let bitmap: UnsafeMutablePointer<UInt64>
    private let pages: Int
    private let limit: Int
    private(set) var count = 0

    init(pages: Int, limit: Int) {
        invariant(pages > 0, "a heap has pages")
        invariant(limit > 0, "a view has room for one page at least")
        self.pages = pages
        self.limit = limit
        bitmap = zeroedMemory((pages + 63) / 64)
    }

    func deallocate() { free(bitmap) }

    mutating func touch(page: UInt64) {
        let bit: UInt64 = 1 << (page & 63)
        if bitmap[Int(page >> 6)] & bit == 0 {
            bitmap[Int(page >> 6)] |= bit
            count += 1
        }
    }

    /// Only right after a commit, when view and home are the same everywhere. Addresses into the view stay valid.
    mutating func dropIfMany(of view: UnsafeMutableRawPointer) {
        guard count > limit else { return }
        guard madvise(view, pages * Pool.pageSize, MADV_DONTNEED) == 0 else {
            halt("the kernel does not take back pages of a pool's view (madvise): \(String(cString: strerror(errno)))")
        }
        bitmap.update(repeating: 0, count: (pages + 63) / 64)
        count = 0
    }
}
