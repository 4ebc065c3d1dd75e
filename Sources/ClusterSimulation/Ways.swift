import MPaxosConsensus
import MPaxosSimulation

/// The ways between each two hosts: which are open, and what was sent over them.
struct Ways {
    private let count: Int
    /// How many faults block the way from a to b, at a * count + b.
    private var blocks: [Int]
    /// How often the link of two was cut, at the place of the lower one: what was under way then is lost.
    private var cuts: [UInt64]
    private var standing: [Bool]
    /// When the last frame from a to b arrives.
    private var lastArrival: [Microseconds]

    init(count: Int) {
        self.count = count
        blocks = Array(repeating: 0, count: count * count)
        cuts = Array(repeating: 0, count: count * count)
        standing = Array(repeating: false, count: count * count)
        lastArrival = Array(repeating: 0, count: count * count)
    }

    private func place(_ one: Int, _ other: Int) -> Int { min(one, other) * count + max(one, other) }

    func cut(_ one: Int, _ other: Int) -> UInt64 { cuts[place(one, other)] }

    /// Whether a link could come about.
    func isOpen(_ one: Int, _ other: Int) -> Bool {
        blocks[one * count + other] == 0 && blocks[other * count + one] == 0
    }

    func isOpen(from one: Int, to other: Int) -> Bool { blocks[one * count + other] == 0 }

    func stands(_ one: Int, _ other: Int) -> Bool { standing[place(one, other)] }

    mutating func stand(_ one: Int, _ other: Int) { standing[place(one, other)] = true }

    /// What is under way between two is lost, and their link ends.
    /// - Returns: whether they had one.
    mutating func sever(_ one: Int, _ other: Int) -> Bool {
        let place = place(one, other)
        cuts[place] += 1
        defer { standing[place] = false }
        return standing[place]
    }

    mutating func block(from one: Int, to other: Int, _ isBlocked: Bool) {
        blocks[one * count + other] += isBlocked ? 1 : -1
    }

    mutating func unblockAll() { blocks = Array(repeating: 0, count: count * count) }

    /// When a frame that is sent at `time` arrives: not before those that were sent before it.
    mutating func arrival(from one: Int, to other: Int, at time: Microseconds) -> Microseconds {
        let place = one * count + other
        lastArrival[place] = max(lastArrival[place] + 1, time)
        return lastArrival[place]
    }
}
