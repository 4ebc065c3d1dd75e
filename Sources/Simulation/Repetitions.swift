import MPaxosConsensus

/// How often the bytes of each proposal, and of each fetched value, leave for each peer: once, and again only when the
/// leader had a reason to begin again; what is fetched, once a request.
struct Repetitions: ~Copyable {
    struct Entry: BitwiseCopyable {
        /// 0: there is none. `decidedView`: a value that was asked for.
        var view: View
        var instance: Instance
        var way: Int
        /// How often the leader had begun again, or values were asked for, when it left last.
        var rounds: UInt32

        static var none: Entry { Entry(view: 0, instance: 0, way: 0, rounds: 0) }
    }

    private var entries = Buffer<Entry>(repeating: .none, count: 1024)
    private var used = 0
    private var rounds: Buffer<UInt32>
    private var requests: Buffer<UInt32>

    /// - Parameter ways: how many ways there are.
    init(ways: Int) {
        rounds = Buffer(repeating: 1, count: ways)
        requests = Buffer(repeating: 1, count: ways)
    }

    /// From now on all proposals may leave once more on this way.
    mutating func beginAgain(way: Int) { rounds[way] += 1 }

    /// Values were asked for, to be sent on this way.
    mutating func request(way: Int) { requests[way] += 1 }

    /// A proposal's first bytes leave, or a value that was asked for is to. Returns whether they may.
    mutating func mayLeave(_ message: Message, way: Int) -> Bool {
        switch message.kind {
        case .accept: note(message.view, message.instance, way, rounds[way])
        case .decided: note(decidedView, message.instance, way, requests[way])
        default: true
        }
    }

    private mutating func note(_ view: View, _ instance: Instance, _ way: Int, _ count: UInt32) -> Bool {
        if 2 * used >= entries.count { grow() }
        let place = place(view, instance, way)
        let isNew = entries[place].view == 0
        if isNew { used += 1 }
        let isFounded = isNew || entries[place].rounds < count
        entries[place] = Entry(view: view, instance: instance, way: way, rounds: count)
        return isFounded
    }

    private func place(_ view: View, _ instance: Instance, _ way: Int) -> Int {
        let mask = entries.count - 1
        let hash =
            (view &* 0x9E37_79B9_7F4A_7C15 ^ instance &* 0xD6E8_FEB8_6659_FD93 ^ UInt64(way)) &* 0xBF58_476D_1CE4_E5B9
        var place = Int(truncatingIfNeeded: hash >> 32) & mask
        while entries[place].view != 0
            && (entries[place].view != view || entries[place].instance != instance || entries[place].way != way)
        {
            place = (place + 1) & mask
        }
        return place
    }

    private mutating func grow() {
        var smaller = Buffer(repeating: Entry.none, count: 2 * entries.count)
        swap(&smaller, &entries)
        for entry in smaller.elements where entry.view != 0 {
            entries[place(entry.view, entry.instance, entry.way)] = entry
        }
    }
}
