import MPaxosInvariants

/// Whom a replica has met, and with whom it may form a cluster: the rules of the handshake, without its words and
/// frames.
///
/// A cluster is *founded* once, by all of its members. A replica's record of them is *whole* when it has met each in
/// one life and has all of their incarnations on durable record; from then on it changes none of them. It is founded
/// when its record is whole and it knows that every other member has the same. Before that it takes no part in the
/// protocol. So as soon as anybody may vote, everybody knows by durable record who belongs to the cluster, and pools
/// that are formatted anew under a known id are refused by all others, also by those that were started only once.
package struct Acquaintances: Sendable {
    /// How far a replica is with the founding. Each stage is on durable record before it is told.
    package enum Founding: UInt8, Sendable, BitwiseCopyable, Comparable {
        /// It has not met all members yet.
        case gathering = 0
        /// Its record of all members is whole.
        case whole = 1
        /// The records of all others are whole, too, and are the same.
        case founded = 2

        package static func < (a: Founding, b: Founding) -> Bool { a.rawValue < b.rawValue }
    }

    /// What is known of a member.
    package struct Record: Hashable, Sendable, BitwiseCopyable {
        /// The incarnation of the member's pools; 0 where it was never met.
        package var incarnation: UInt64
        /// The last life in which the member was met.
        package var life: Life

        /// The record of a member that was never met.
        package static let none = Record(incarnation: 0, life: .none)

        package init(incarnation: UInt64, life: Life) {
            self.incarnation = incarnation
            self.life = life
        }
    }

    /// What a replica says when it meets another.
    package struct Introduction: Equatable, Sendable {
        /// The incarnation of the sender.
        package var incarnation: UInt64
        package var life: Life
        /// The nonces of the sender's lives before this one, as `Life.admits` takes them.
        package var ancestors: [UInt64]
        package var founding: Founding
        /// What the sender knows of all members, by index, itself included.
        package var records: [Record]

        package init(
            incarnation: UInt64, life: Life, ancestors: [UInt64], founding: Founding, records: [Record]
        ) {
            self.incarnation = incarnation
            self.life = life
            self.ancestors = ancestors
            self.founding = founding
            self.records = records
        }
    }

    /// To whom the key belongs that a connection was made with. That much a connection proves by itself, whatever is
    /// said over it.
    package enum Holder: Equatable, Sendable {
        /// The cluster has no keys: a connection proves nothing.
        case nobody
        case member(Int)
        /// The key is no member's, or not any more.
        case stranger

        /// Whether what is said in the name of `member` may be from that one.
        package func maySpeak(for member: Int) -> Bool {
            switch self {
            case .nobody: true
            case .member(let holder): holder == member
            case .stranger: false
            }
        }
    }

    /// Why a replica does not take up with another.
    package enum Objection: Equatable, Sendable {
        /// The connection belongs to somebody else than the one that the other says it is: nothing of what it says is
        /// believed, or put on record.
        case foreignKey(of: Holder)
        /// The other has other pools than those on record.
        case incarnation(known: UInt64)
        /// The two know a member, perhaps this replica, by different pools.
        case otherRecord(of: Int, theirs: UInt64, known: UInt64)
        /// The other runs in a life that comes before the one that was met, or beside it.
        case earlierLife(met: Life)
        /// By the other's word it is this replica that runs in an earlier life.
        case ownLifeIsEarlier(met: Life)
    }

    package let index: Int
    private let ancestors: [UInt64]
    /// What is known of all members, by index, this replica included.
    package private(set) var records: [Record]
    /// The last life of each member that was refused though it is not before the one that was met, `Life.none` for
    /// none: it is of another line. Where the life that was met is too long ago to be named, what comes after the
    /// refused one is refused as well: else pools of an earlier time would be admitted as soon as they were started
    /// often enough.
    package private(set) var refused: [Life]
    /// How far the founding is; it is to be put on durable record.
    package private(set) var founding: Founding
    /// How far it is on durable record.
    private var durable: Founding
    /// Bit i: replica i was met in this replica's present life.
    private var met: UInt16
    /// Bit i: replica i was met so, and its incarnation is on durable record.
    private var gathered: UInt16
    /// Bit i: the record of replica i is whole, and the same as this replica's.
    private var confirmed: UInt16

    private let all: UInt16

    /// - Parameters:
    ///   - ancestors: nonces of this replica's lives before this one, the latest first.
    ///   - records: what is on durable record, by index; this replica's own with its present life.
    ///   - refused: likewise; none when it is empty.
    ///   - founding: what is on durable record.
    package init(index: Int, ancestors: [UInt64], records: [Record], refused: [Life] = [], founding: Founding) {
        invariant(records.indices.contains(index), "a replica is a member")
        invariant(records[index].incarnation != 0, "a replica knows its own incarnation")
        self.index = index
        self.ancestors = ancestors
        self.records = records
        self.refused = refused.isEmpty ? Array(repeating: .none, count: records.count) : refused
        all = UInt16(truncatingIfNeeded: 1 << records.count - 1)
        met = 1 << UInt16(index)
        gathered = 1 << UInt16(index)
        confirmed = 1 << UInt16(index)
        self.founding = records.count == 1 ? .founded : founding
        durable = self.founding
    }

    package var own: Record { records[index] }

    package var isFounded: Bool { founding == .founded }

    /// Whether this replica tells the others that it is founded: then nothing of the founding is left to be done.
    package var tellsFounding: Bool { durable == .founded }

    /// Whom the founding waits for, bit i for replica i: those that were not met, or else those that have not met all
    /// the others.
    package var awaited: UInt16 {
        switch founding {
        case .gathering: all & ~gathered
        case .whole: all & ~confirmed
        case .founded: 0
        }
    }

    /// What this replica says to those that it meets.
    package var introduction: Introduction {
        Introduction(
            incarnation: own.incarnation, life: own.life, ancestors: ancestors, founding: durable, records: records)
    }

    // MARK: Meetings

    /// - Parameters:
    ///   - member: whom the introduction names.
    ///   - holder: of the key of the connection that it came over.
    package func objection(
        to introduction: Introduction, from member: Int, keyOf holder: Holder
    ) -> Objection? {
        guard holder.maySpeak(for: member) else { return .foreignKey(of: holder) }
        let known = records[member]
        if founding >= .whole, known.incarnation != introduction.incarnation {
            return .incarnation(known: known.incarnation)
        }
        // A record that is not whole is held against nobody: whom it names may have been formatted again, and be met
        // yet.
        if introduction.founding >= .whole {
            for (other, theirs) in introduction.records.enumerated() where other != member {
                let own = records[other].incarnation
                if own != theirs.incarnation, other == index || founding >= .whole {
                    return .otherRecord(of: other, theirs: theirs.incarnation, known: own)
                }
            }
        }
        // Lives are compared of one incarnation: pools that were formatted anew begin to count again.
        if known.incarnation == introduction.incarnation, known.life != introduction.life {
            let (life, ancestors) = (introduction.life, introduction.ancestors)
            // A life that has the one that was met among its ancestors comes after it, whatever was thought of those in
            // between.
            let isOfRefused =
                !life.isOrFollows(known.life, ancestors: ancestors)
                && life.isOrFollows(refused[member], ancestors: ancestors)
            if !known.life.admits(life, after: ancestors) || isOfRefused { return .earlierLife(met: known.life) }
        }
        let met = introduction.records[index]
        if met.incarnation == own.incarnation, !met.life.admits(own.life, after: ancestors) {
            return .ownLifeIsEarlier(met: met.life)
        }
        return nil
    }

    /// A replica was refused for its life. One before the life that was met may be the very past of that, told late by
    /// a process that has ended, and is not held against those that come after it.
    /// - Returns: whether there is something new to be put on record.
    package mutating func refuse(_ introduction: Introduction, from member: Int) -> Bool {
        let life = introduction.life
        guard life.bootCount >= records[member].life.bootCount, life != refused[member] else { return false }
        refused[member] = life
        return true
    }

    /// Takes up with a replica that there is no objection to.
    /// - Returns: the members of which there is something new to be put on record, bit i for replica i.
    package mutating func meet(_ introduction: Introduction, from member: Int, keyOf holder: Holder) -> UInt16 {
        invariant(
            objection(to: introduction, from: member, keyOf: holder) == nil,
            "a replica takes up with whom it has no objection to")
        var news: UInt16 = 0
        met |= 1 << UInt16(member)
        let record = Record(incarnation: introduction.incarnation, life: introduction.life)
        if records[member] != record {
            if records[member].incarnation != record.incarnation {
                gathered &= ~(1 << UInt16(member))
                refused[member] = .none
                confirmed = 1 << UInt16(index)
            }
            records[member] = record
            news |= 1 << UInt16(member)
        }
        // The life that was refused was of the right line after all.
        if introduction.life.isOrFollows(refused[member], ancestors: introduction.ancestors) {
            refused[member] = .none
        }
        for (other, theirs) in introduction.records.enumerated() where other != member && other != index {
            guard theirs.incarnation != 0, theirs.incarnation == records[other].incarnation else { continue }
            let life = records[other].life.joined(with: theirs.life)
            if life != records[other].life {
                records[other].life = life
                news |= 1 << UInt16(other)
            }
        }
        let isSame = zip(records, introduction.records).allSatisfy {
            $0.incarnation != 0 && $0.incarnation == $1.incarnation
        }
        if isSame, introduction.founding >= .whole {
            confirmed |= introduction.founding == .founded ? all : 1 << UInt16(member)
        }
        settle()
        return news
    }

    /// A member is not heard any more. Until the record is whole the member may come back with other pools, and is to
    /// be met again.
    package mutating func lose(_ member: Int) {
        guard founding == .gathering, member != index else { return }
        met &= ~(1 << UInt16(member))
        gathered &= met
    }

    /// An incarnation is on durable record. It counts if the member was met with it in this life.
    package mutating func recorded(_ incarnation: UInt64, of member: Int) {
        guard met >> UInt16(member) & 1 != 0, records[member].incarnation == incarnation else { return }
        gathered |= 1 << UInt16(member)
        settle()
    }

    /// The founding is on durable record as far as this.
    package mutating func recorded(_ founding: Founding) {
        durable = max(durable, founding)
        settle()
    }

    private mutating func settle() {
        if founding == .gathering, gathered == all { founding = .whole }
        if founding == .whole, durable == .whole, confirmed == all { founding = .founded }
    }
}
