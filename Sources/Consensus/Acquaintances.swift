import Invariants

/// Whom a replica has met, and with whom it may form a cluster: the rules of the handshake, without its words and frames.
///
/// A cluster is *founded* once, by all of its members. A replica has a *whole record* when it has met each member and has all of
/// their incarnations on durable record; it never changes one of them again. It is founded when it has a whole record and knows
/// that every other member has the same. Before that it takes no part in the protocol. So as soon as anybody may vote, everybody
/// knows by durable record who belongs to the cluster, and pools that are formatted anew under a known id are refused by
/// all others, also by those that were started only once.
package struct Acquaintances: Sendable {
    /// What is known of a member.
    package struct Record: Equatable, Sendable, BitwiseCopyable {
        /// Of its pools; 0 for a member never met.
        package var incarnation: UInt64
        /// The last life in which it was met.
        package var life: Life

        /// Of a member never met.
        package static let none = Record(incarnation: 0, life: .none)

        package init(incarnation: UInt64, life: Life) {
            self.incarnation = incarnation
            self.life = life
        }
    }

    /// What a replica says when it meets another.
    package struct Introduction: Equatable, Sendable {
        /// The sender's own.
        package var incarnation: UInt64
        package var life: Life
        /// As of `Life.admits`.
        package var ancestors: [UInt64]
        /// Whether the sender is founded.
        package var isFounded: Bool
        /// By index; incarnations are those that the sender has on durable record, its own included.
        package var records: [Record]

        package init(
            incarnation: UInt64, life: Life, ancestors: [UInt64], isFounded: Bool, records: [Record]
        ) {
            self.incarnation = incarnation
            self.life = life
            self.ancestors = ancestors
            self.isFounded = isFounded
            self.records = records
        }

        package var hasWholeRecord: Bool { records.allSatisfy { $0.incarnation != 0 } }
    }

    /// Why a replica does not take up with another.
    package enum Objection: Equatable, Sendable {
        /// The other has other pools than those on record.
        case incarnation(known: UInt64)
        /// The two know a member, perhaps this replica, by different pools.
        case otherRecord(of: Int, theirs: UInt64, known: UInt64)
        /// The other runs in a life that comes before the one that was met, or beside it.
        case earlierLife(met: Life)
        /// This replica does, by the other's word.
        case ownLifeIsEarlier(met: Life)
    }

    package let index: Int
    private let ancestors: [UInt64]
    /// By index, this replica's own included.
    package private(set) var records: [Record]
    /// Bit i: the incarnation of replica i is on durable record.
    private var recorded: UInt16
    /// Bit i: replica i has said that it has all incarnations of `records` on durable record.
    private var confirmed: UInt16
    package private(set) var isFounded: Bool

    private let all: UInt16

    /// - Parameters:
    ///   - ancestors: nonces of this replica's lives before this one, the latest first.
    ///   - records: what is on durable record, by index; this replica's own with its present life.
    ///   - isFounded: whether that is on durable record.
    package init(index: Int, ancestors: [UInt64], records: [Record], isFounded: Bool) {
        invariant(records.indices.contains(index), "a replica is a member")
        invariant(records[index].incarnation != 0, "a replica knows its own incarnation")
        self.index = index
        self.ancestors = ancestors
        self.records = records
        all = UInt16(truncatingIfNeeded: 1 << records.count - 1)
        recorded = 0
        for (member, record) in records.enumerated() where record.incarnation != 0 { recorded |= 1 << UInt16(member) }
        confirmed = 1 << UInt16(index)
        self.isFounded = isFounded || records.count == 1
    }

    package var own: Record { records[index] }

    package var hasWholeRecord: Bool { recorded == all }

    /// Whom the founding waits for, bit i for replica i: those never met, or else those that have not met all the others.
    package var awaited: UInt16 {
        if isFounded { return 0 }
        return all & ~(hasWholeRecord ? confirmed : recorded)
    }

    /// What this replica says to whom it meets.
    package var introduction: Introduction {
        var known = records
        for member in known.indices where recorded >> UInt16(member) & 1 == 0 { known[member] = .none }
        return Introduction(
            incarnation: own.incarnation, life: own.life, ancestors: ancestors, isFounded: isFounded, records: known)
    }

    // MARK: Meetings

    package func objection(to introduction: Introduction, from member: Int) -> Objection? {
        let known = records[member]
        // Until the record is whole a member may still be formatted again.
        if hasWholeRecord, known.incarnation != introduction.incarnation {
            return .incarnation(known: known.incarnation)
        }
        if hasWholeRecord || introduction.hasWholeRecord {
            for (other, theirs) in introduction.records.enumerated() where other != member && theirs.incarnation != 0 {
                let own = records[other].incarnation
                if own != 0, own != theirs.incarnation {
                    return .otherRecord(of: other, theirs: theirs.incarnation, known: own)
                }
            }
        }
        // Lives are compared of one incarnation: pools that were formatted anew begin to count again.
        if known.incarnation == introduction.incarnation,
            !known.life.admits(introduction.life, after: introduction.ancestors)
        {
            return .earlierLife(met: known.life)
        }
        let met = introduction.records[index]
        if met.incarnation == own.incarnation, !met.life.admits(own.life, after: ancestors) {
            return .ownLifeIsEarlier(met: met.life)
        }
        return nil
    }

    /// Takes up with a replica that there is no objection to.
    /// - Returns: the members of which there is something new to be put on record, bit i for replica i.
    package mutating func meet(_ introduction: Introduction, from member: Int) -> UInt16 {
        invariant(
            objection(to: introduction, from: member) == nil, "a replica takes up with whom it has no objection to")
        var news: UInt16 = 0
        let met = Record(incarnation: introduction.incarnation, life: introduction.life)
        if records[member] != met {
            if records[member].incarnation != met.incarnation {
                recorded &= ~(1 << UInt16(member))
                confirmed = 1 << UInt16(index)
            }
            records[member] = met
            news |= 1 << UInt16(member)
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
        if isSame { confirmed |= introduction.isFounded ? all : 1 << UInt16(member) }
        found()
        return news
    }

    /// An incarnation is on durable record now.
    package mutating func recorded(_ incarnation: UInt64, of member: Int) {
        guard incarnation != 0, records[member].incarnation == incarnation else { return }
        recorded |= 1 << UInt16(member)
        found()
    }

    private mutating func found() {
        isFounded = isFounded || hasWholeRecord && confirmed == all
    }
}
