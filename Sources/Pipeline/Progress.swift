import MPaxosConsensus
import MPaxosInvariants
import Synchronization

/// How far each stage has got: the words beside the rings by which the stages of a replica act. What the metrics show
/// is copied from here, never the other way.
///
/// Every word has one writer, the stage that it is listed under. The loads acquire and the stores release: who sees a
/// word sees what its writer had done before.
///
/// A handle: copying it copies a pointer. Who allocated it deallocates it, after all stages have stopped.
package struct Progress: @unchecked Sendable {
    // Unchecked: all that it points to is atomic.

    private enum Word {
        // Two cache lines for each writer, since processors fetch lines in pairs.
        static let executed = 0
        static let position = 1
        static let served = 2

        static let leader = 16
        static let era = 17
        static let arrived = 18
        static let founding = 19
        static let dispute = 20
        static let recorded = 24

        static let connected = 48
        static let count = 64
    }

    private static let noLeader = UInt64.max
    private let words: UnsafeMutablePointer<Atomic<UInt64>>

    package static func allocate() -> Progress {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: Word.count * 8, alignment: 128)
        let words = memory.bindMemory(to: Atomic<UInt64>.self, capacity: Word.count)
        for word in 0..<Word.count { (words + word).initialize(to: Atomic(0)) }
        words[Word.leader].store(noLeader, ordering: .relaxed)
        return Progress(words: words)
    }

    package func deallocate() {
        words.deinitialize(count: Word.count)
        UnsafeMutableRawPointer(words).deallocate()
    }

    private subscript(_ word: Int) -> UInt64 {
        get { words[word].load(ordering: .acquiring) }
        nonmutating set { words[word].store(newValue, ordering: .releasing) }
    }

    // MARK: Executor

    /// The last instance that is executed and committed: the engine may overwrite batches in the log up to it.
    package var executed: UInt64 {
        get { self[Word.executed] }
        nonmutating set { self[Word.executed] = newValue }
    }

    /// Commands executed since the cluster began.
    package var position: UInt64 {
        get { self[Word.position] }
        nonmutating set { self[Word.position] = newValue }
    }

    /// Queries answered, also those of a batch that is not committed yet.
    package var served: UInt64 {
        get { self[Word.served] }
        nonmutating set { self[Word.served] = newValue }
    }

    // MARK: Engine

    /// The index of the leader of the current view; nil while nobody is known to lead it.
    package var leader: Int? {
        get {
            let word = self[Word.leader]
            return word == Self.noLeader ? nil : Int(word)
        }
        nonmutating set { self[Word.leader] = newValue.map(UInt64.init) ?? Self.noLeader }
    }

    /// Rises when what was handed to the leader may be lost: the view has changed, or the link to the leader.
    package var era: UInt64 {
        get { self[Word.era] }
        nonmutating set { self[Word.era] = newValue }
    }

    /// Rises as bytes are known to have arrived at other replicas, and as instances are decided.
    package var arrived: UInt64 {
        get { self[Word.arrived] }
        nonmutating set { self[Word.arrived] = newValue }
    }

    /// How far the founding of the cluster is on durable record.
    package var founding: Acquaintances.Founding {
        get {
            guard let founding = Acquaintances.Founding(rawValue: UInt8(self[Word.founding])) else {
                broken("a founding is one of the known")
            }
            return founding
        }
        nonmutating set { self[Word.founding] = UInt64(newValue.rawValue) }
    }

    /// Whether the state differs from another one, and it is not settled which is right.
    package var isInDispute: Bool {
        get { self[Word.dispute] != 0 }
        nonmutating set { self[Word.dispute] = newValue ? 1 : 0 }
    }

    /// Whether clients may be answered from this replica's state: not before the founding, and not while it is not
    /// known whether the state is the right one.
    package var mayServe: Bool { founding == .founded && !isInDispute }

    /// The incarnation of a peer that is on durable record since this process began; 0 for none.
    package func recordedIncarnation(of peer: Int) -> UInt64 { self[Self.record(of: peer)] }

    package func record(_ incarnation: UInt64, of peer: Int) { self[Self.record(of: peer)] = incarnation }

    private static func record(of peer: Int) -> Int {
        invariant(peer >= 0 && Word.recorded + peer < Word.connected, "a record has a word for each peer")
        return Word.recorded + peer
    }

    // MARK: Links

    /// Whether the link to a peer stands.
    package func isConnected(_ peer: Int) -> Bool { self[Word.connected] & 1 << UInt64(peer) != 0 }

    package func set(connected isConnected: Bool, _ peer: Int) {
        let others = self[Word.connected] & ~(1 << UInt64(peer))
        self[Word.connected] = isConnected ? others | 1 << UInt64(peer) : others
    }
}
