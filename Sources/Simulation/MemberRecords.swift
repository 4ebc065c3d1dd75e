import MPaxosConsensus
import MPaxosInvariants

/// What a replica has on record of its own lives, and of the members that it has met, as the node's log keeps it: what
/// is fenced survives a crash; of what is not, any part may.
struct MemberRecords {
    private enum Entry {
        case member(Int, Acquaintances.Record)
        case founding(Acquaintances.Founding)
    }

    private let index: ReplicaIndex
    /// The last start that is on record.
    private(set) var life = Life.none
    /// The count of the start that was begun last.
    private var begun: UInt64 = 0
    /// Nonces of the lives before `life`, the latest first.
    private(set) var ancestors: [UInt64] = []
    /// By index. Of this replica the incarnation counts; its life is above.
    private(set) var records: [Acquaintances.Record]
    private(set) var founding: Acquaintances.Founding
    /// A peer has met a later life than this one: the pools are not to be used again.
    var isExpelled = false
    private var unfenced: [Entry] = []
    /// Entries that were ever written; `unfenced` are the last of them.
    private(set) var written: UInt64 = 0
    private var foundingWritten: Acquaintances.Founding

    /// Of one of those that have founded a cluster.
    /// - Parameter founders: their incarnations.
    init(index: ReplicaIndex, founders: [UInt64]) {
        self.index = index
        records = founders.map { Acquaintances.Record(incarnation: $0, life: .none) }
        founding = .founded
        foundingWritten = .founded
    }

    /// Of one that has met nobody.
    init(index: ReplicaIndex, of count: Int, incarnation: UInt64) {
        self.index = index
        records = Array(repeating: .none, count: count)
        records[index].incarnation = incarnation
        founding = .gathering
        foundingWritten = .gathering
    }

    var isFounded: Bool { founding == .founded }
    var hasUnfenced: Bool { !unfenced.isEmpty }

    // MARK: Starts

    /// First step of a start.
    mutating func begin() { begun = life.bootCount + 1 }

    func belongs(toStateStarted bootCount: UInt64) -> Bool {
        life.belongs(toStateStarted: bootCount, begun: begun)
    }

    /// Last step of a start.
    mutating func record(_ next: Life) {
        invariant(next.bootCount == begun, "a life is that of the start that was begun")
        if life != .none { ancestors = [life.nonce] + ancestors.prefix(Life.mostAncestors - 1) }
        life = next
    }

    // MARK: Meetings

    mutating func write(_ record: Acquaintances.Record, of member: Int) { append(.member(member, record)) }

    mutating func write(_ founding: Acquaintances.Founding) {
        guard founding > foundingWritten else { return }
        foundingWritten = founding
        append(.founding(founding))
    }

    private mutating func append(_ entry: Entry) {
        unfenced.append(entry)
        written += 1
    }

    mutating func fence(through number: UInt64) {
        let kept = written - number
        while UInt64(unfenced.count) > kept { apply(unfenced.removeFirst()) }
    }

    mutating func crash(random: inout SimulationRandom) {
        for entry in unfenced where random.chance(perMille: 500) { apply(entry) }
        unfenced.removeAll()
        foundingWritten = founding
    }

    private mutating func apply(_ entry: Entry) {
        switch entry {
        case .member(let member, let record): records[member] = record
        case .founding(let stage): founding = max(founding, stage)
        }
    }
}
