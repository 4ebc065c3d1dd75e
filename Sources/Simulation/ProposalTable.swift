import MPaxosConsensus
import MPaxosInvariants

/// The batch that was proposed first for each view and instance. Open addressing; nothing is ever removed.
struct ProposalTable: ~Copyable {
    struct Entry: BitwiseCopyable {
        /// 0: there is none.
        var view: View
        var instance: Instance
        var batch: UInt32

        static var none: Entry { Entry(view: 0, instance: 0, batch: 0) }
    }

    private var entries = Buffer<Entry>(repeating: .none, count: 1024)
    private var used = 0

    /// Puts it in if there is none yet.
    mutating func first(_ batch: UInt32, view: View, instance: Instance) -> UInt32 {
        invariant(view > 0, "a proposal has a view")
        if 2 * used >= entries.count { grow() }
        let place = place(view, instance)
        if entries[place].view == 0 {
            entries[place] = Entry(view: view, instance: instance, batch: batch)
            used += 1
        }
        return entries[place].batch
    }

    private func place(_ view: View, _ instance: Instance) -> Int {
        let mask = entries.count - 1
        let hash = (view &* 0x9E37_79B9_7F4A_7C15 ^ instance) &* 0xBF58_476D_1CE4_E5B9
        var place = Int(truncatingIfNeeded: hash >> 32) & mask
        while entries[place].view != 0 && (entries[place].view != view || entries[place].instance != instance) {
            place = (place + 1) & mask
        }
        return place
    }

    private mutating func grow() {
        var smaller = Buffer(repeating: Entry.none, count: 2 * entries.count)
        swap(&smaller, &entries)
        for entry in smaller.elements where entry.view != 0 { entries[place(entry.view, entry.instance)] = entry }
    }
}
