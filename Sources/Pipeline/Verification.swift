import MPaxosConsensus
import MPaxosMetrics
import MPaxosPersistentMemory

/// Reads all bytes of the state again and again, and compares them with the digest that commits have kept: what is
/// written by nobody, and so met by nobody, is met here.
///
/// The opening of the pools reads all, or as much as it takes time for; the rest of that first pass takes all time that
/// is left over. Later ones take ten seconds, or longer where more would be read than 64 MB a second, so that a state
/// of 1 GiB takes 17. Under load, too, slices are read, for about a hundredth of the time.
struct Verification {
    private let heap: Heap
    private let board: StatusBoard
    private var isFirst: Bool
    /// When the next slice is to be read.
    private(set) var nextDeadline: UInt64 = 0

    /// Pages read at a time: under load and in the first pass so few that no request waits for them for more than ten
    /// microseconds or so; else so many that a lane seldom wakes up for them.
    private static var shortSlice: Int { 16 }
    private static var longSlice: Int { 64 }
    /// Microseconds for each page at least, and for a pass.
    private static var pageTime: Double { 62.5 }
    private static var passTime: Double { 10_000_000 }

    /// - Parameter isFirst: the opening did not get through, and the pass goes on from where that ended.
    init(of heap: Heap, board: StatusBoard, isFirst: Bool) {
        self.isFirst = isFirst
        self.heap = heap
        self.board = board
    }

    /// Reads the next slice.
    /// - Returns: what the bytes sum up to, if all were read and it is not the digest.
    mutating func read(isBusy: Bool, now: UInt64) -> UInt64? {
        let pages = min(isBusy || isFirst ? Self.shortSlice : Self.longSlice, heap.digestedPages)
        let found = heap.verifyDigest(pages: pages)
        let isHurried = isFirst && found == nil
        if !isHurried || isBusy {
            let pageTime = isHurried ? 0 : Self.passTime / Double(heap.digestedPages)
            nextDeadline = now + UInt64(Double(pages) * max(pageTime, Self.pageTime))
        }
        guard let found else { return nil }
        isFirst = false
        guard found == heap.digest else { return found }
        board.statePasses.add(1)
        board.statePassedAt.store(now)
        return nil
    }
}
