import MPaxosConsensus

/// The ways between each two hosts: which are open, and when what was sent over them arrives.
struct Ways {
    private let count: Int
    /// How many faults block the way from a to b, at a * count + b.
    private var blocks: [Int]
    /// When the last frame from a to b arrives.
    private var lastArrival: [Microseconds]

    init(count: Int) {
        self.count = count
        blocks = Array(repeating: 0, count: count * count)
        lastArrival = Array(repeating: 0, count: count * count)
    }

    func isOpen(from one: Int, to other: Int) -> Bool { blocks[one * count + other] == 0 }

    /// Whether a connection could come about.
    func isOpen(_ one: Int, _ other: Int) -> Bool { isOpen(from: one, to: other) && isOpen(from: other, to: one) }

    mutating func block(from one: Int, to other: Int, _ isBlocked: Bool) {
        blocks[one * count + other] += isBlocked ? 1 : -1
    }

    mutating func unblockAll() { blocks = Array(repeating: 0, count: count * count) }

    /// When a frame that would arrive at `time` does: not before those that were sent before it.
    mutating func arrival(from one: Int, to other: Int, at time: Microseconds) -> Microseconds {
        let place = one * count + other
        lastArrival[place] = max(lastArrival[place] + 1, time)
        return lastArrival[place]
    }
}
