import Testing

@testable import MPaxosConsensus

/// Who may form a cluster with whom: the founding, and what is refused after it.
@Suite struct AcquaintancesTests {
    /// A replica as far as the handshake: what it knows, and what of it is durable.
    private final class Member {
        var acquaintances: Acquaintances
        private var durable: [Acquaintances.Record]
        private var founding = Acquaintances.Founding.gathering

        /// - Parameter incarnation: of its pools.
        init(_ index: Int, of count: Int, incarnation: UInt64) {
            durable = Array(repeating: .none, count: count)
            durable[index] = .init(incarnation: incarnation, life: Life(bootCount: 1, nonce: incarnation))
            acquaintances = Acquaintances(index: index, ancestors: [], records: durable, founding: .gathering)
        }

        var isFounded: Bool { acquaintances.isFounded }

        func meet(_ other: Member) -> Acquaintances.Objection? {
            let introduction = other.acquaintances.introduction
            let index = other.acquaintances.index
            if let objection = acquaintances.objection(to: introduction, from: index, keyOf: .nobody) {
                return objection
            }
            _ = acquaintances.meet(introduction, from: index, keyOf: .nobody)
            return nil
        }

        /// The engine has put on record what is known.
        func fence() {
            durable = acquaintances.records
            founding = acquaintances.founding
            for (member, record) in durable.enumerated() { acquaintances.recorded(record.incarnation, of: member) }
            acquaintances.recorded(founding)
        }

        /// Ends, and starts again with what is durable.
        func restart() {
            let index = acquaintances.index
            let nonce = durable[index].life.nonce
            durable[index].life = Life(bootCount: durable[index].life.bootCount + 1, nonce: nonce + 100)
            acquaintances = Acquaintances(
                index: index, ancestors: [nonce], records: durable, founding: founding)
        }
    }

    private func members(_ count: Int) -> [Member] {
        (0..<count).map { Member($0, of: count, incarnation: UInt64($0) + 10) }
    }

    /// Each of some members meets each other one, and puts it on record.
    private func assemble(_ members: [Member], rounds: Int = 3) {
        for _ in 0..<rounds {
            for a in members {
                for b in members where a !== b { #expect(a.meet(b) == nil) }
            }
            for member in members { member.fence() }
        }
    }

    @Test func oneAloneIsFounded() {
        #expect(Member(0, of: 1, incarnation: 10).isFounded)
    }

    @Test(arguments: [2, 3, 5, 9]) func allTogetherFound(count: Int) {
        let all = members(count)
        assemble(all)
        for member in all {
            #expect(member.isFounded)
            #expect(member.acquaintances.awaited == 0)
        }
    }

    @Test func aMajorityAloneDoesNotFound() {
        let all = members(3)
        assemble([all[0], all[1]], rounds: 10)
        for member in all { #expect(!member.isFounded) }
        #expect(all[0].acquaintances.awaited == 0b100)
    }

    @Test func whatIsNotDurableIsNotTold() {
        let all = members(2)
        let told = { all[0].acquaintances.introduction.founding }
        #expect(all[0].meet(all[1]) == nil && all[1].meet(all[0]) == nil)
        #expect(all[0].acquaintances.founding == .gathering, "the other is not on record")
        for member in all { member.fence() }
        #expect(all[0].acquaintances.founding == .whole && told() == .gathering)
        all[1].fence()
        #expect(
            all[1].meet(all[0]) == nil && !all[1].isFounded, "that the record of the other is whole is not on record")
        all[0].fence()
        #expect(told() == .whole)
        #expect(all[1].meet(all[0]) == nil && all[1].isFounded)
    }

    /// The founding takes the word of each that its record is whole; by whom it is founded already, one word is enough.
    @Test func whoWasAwayForTheLastWordIsFoundedByTheNext() {
        let all = members(3)
        assemble(all, rounds: 2)
        for member in all { #expect(!member.isFounded) }
        #expect(all[0].acquaintances.awaited == 0b110)
        #expect(all[0].meet(all[1]) == nil)
        #expect(all[0].meet(all[2]) == nil)
        #expect(all[0].isFounded)
        all[0].fence()
        all[1].restart()
        #expect(!all[1].isFounded)
        #expect(all[1].meet(all[0]) == nil)
        #expect(all[1].isFounded, "2 need not be there")
    }

    /// 0 and 1 were up before 2 was ever started; then 1 is formatted anew, and 2 comes.
    @Test func poolsFormattedAnewAfterTheFoundingAreRefusedByAll() {
        let all = members(3)
        assemble(all)
        let anew = Member(1, of: 3, incarnation: 99)
        #expect(all[0].meet(anew) == .incarnation(known: 11))
        #expect(all[2].meet(anew) == .incarnation(known: 11))
        #expect(anew.meet(all[2]) == .otherRecord(of: 1, theirs: 11, known: 99))
        #expect(!anew.isFounded)
    }

    /// Also by who meets the third member first, after a restart.
    @Test(arguments: [false, true]) func poolsFormattedAnewBeforeTheFoundingAreTakenUp(isLate: Bool) {
        let all = members(3)
        assemble([all[0], all[1]])
        let anew = Member(1, of: 3, incarnation: 99)
        if isLate {
            all[0].restart()
            assemble([all[0], all[2]])
            #expect(all[0].acquaintances.awaited == 0b010)
        }
        assemble([all[0], anew, all[2]])
        for member in [all[0], anew, all[2]] {
            #expect(member.isFounded)
            #expect(member.acquaintances.records[1].incarnation == 99)
        }
        // The ones before are told from them by whoever meets them.
        #expect(all[0].meet(all[1]) == .incarnation(known: 99))
    }

    /// Once somebody is founded each of those pools has the record, whoever met whom in which order; and no pools that
    /// were formatted anew under one of the ids are ever founded.
    @Test func whoeverIsFoundedHasTheRecordOfAll() {
        var foundings = 0
        var (violations, stuck) = (0, 0)
        for seed in 0..<500 {
            var random = SplitMix(seed: UInt64(seed) + 1)
            let count = 3 + seed % 3
            var all = members(count)
            var record: [UInt64]?
            for step in 0..<400 {
                let (a, b) = (random.below(count), random.below(count))
                switch random.below(40) {
                case 0: all[a].restart()
                case 1 where step < 200:
                    // Of a founded cluster one keeps its pools.
                    let others = all.indices.filter { $0 != a }
                    let isOneLeft = record.map { record in
                        others.contains { all[$0].acquaintances.own.incarnation == record[$0] }
                    }
                    if isOneLeft ?? true { all[a] = Member(a, of: count, incarnation: 100 + UInt64(step)) }
                case 2..<15: all[a].fence()
                default: if a != b { _ = all[a].meet(all[b]) }
                }
                guard let founded = all.first(where: \.isFounded) else { continue }
                record = record ?? founded.acquaintances.records.map(\.incarnation)
                for (index, member) in all.enumerated() {
                    let isOfTheFounders = member.acquaintances.own.incarnation == record?[index]
                    let told = member.acquaintances.introduction.records.map(\.incarnation)
                    if isOfTheFounders ? told != record : member.isFounded { violations += 1 }
                }
            }
            if record != nil { foundings += 1 }
            // In calm all meet, and found it: unless somebody who had met all knows pools that are gone.
            for _ in 0..<4 {
                for a in all {
                    for b in all where a !== b { _ = a.meet(b) }
                }
                for member in all { member.fence() }
            }
            let isHopeless = all.contains { one in
                one.acquaintances.founding >= .whole
                    && zip(one.acquaintances.records, all).contains {
                        $0.incarnation != $1.acquaintances.own.incarnation
                    }
            }
            if !isHopeless, !all.allSatisfy(\.isFounded) { stuck += 1 }
        }
        #expect(violations == 0 && stuck == 0)
        #expect(foundings > 100, "many seeds come to a founding")
    }

    private struct SplitMix {
        private var state: UInt64
        init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 }

        mutating func below(_ bound: Int) -> Int {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return Int((z ^ (z >> 31)) % UInt64(bound))
        }
    }

    // MARK: Keys

    /// Whoever has a key may say who he likes to be: nothing but the key is looked at.
    @Test(arguments: [Acquaintances.Holder.member(2), .member(0), .stranger])
    func whatIsSaidOverAConnectionOfAnotherIsNotBelieved(holder: Acquaintances.Holder) {
        let all = members(3)
        assemble(all)
        let word = all[1].acquaintances.introduction
        var later = word
        later.life = Life(bootCount: 9, nonce: 99)
        var other = word
        other.incarnation = 77
        var otherRecord = word
        otherRecord.records[0].incarnation = 77
        var earlier = word
        earlier.life = Life(bootCount: 1, nonce: 12)
        var ownIsEarlier = word
        ownIsEarlier.records[0].life = Life(bootCount: 9, nonce: 99)
        for said in [word, later, other, otherRecord, earlier, ownIsEarlier] {
            #expect(
                all[0].acquaintances.objection(to: said, from: 1, keyOf: holder) == .foreignKey(of: holder),
                "the key comes before what is said")
            let isFine = said == word || said == later
            #expect((all[0].acquaintances.objection(to: said, from: 1, keyOf: .member(1)) == nil) == isFine)
            #expect(
                all[0].acquaintances.objection(to: said, from: 1, keyOf: .nobody)
                    == all[0].acquaintances.objection(to: said, from: 1, keyOf: .member(1)),
                "a key of its own makes nothing of it more true")
        }
    }

    /// Before the founding a member is known by what it says first: that must be itself.
    @Test func aLiarFoundsNothing() {
        let all = members(3)
        for holder in [Acquaintances.Holder.member(1), .stranger] {
            let objection = all[0].acquaintances.objection(
                to: all[2].acquaintances.introduction, from: 2, keyOf: holder)
            #expect(objection == .foreignKey(of: holder))
        }
        #expect(all[0].acquaintances.awaited == 0b110)
    }

    // MARK: Lives

    @Test func aLifeBeforeTheOneThatWasMetIsRefused() {
        let all = members(3)
        assemble(all)
        let introduction = all[1].acquaintances.introduction
        all[1].restart()
        #expect(all[0].meet(all[1]) == nil)
        #expect(
            all[0].acquaintances.objection(to: introduction, from: 1, keyOf: .nobody)
                == .earlierLife(met: Life(bootCount: 2, nonce: 111)))
    }

    /// A word of a process that has ended may come late: it is refused, and is not held against the lives that come
    /// after it.
    @Test func theOwnPastIsNotHeldAgainstAReplica() {
        let all = members(3)
        assemble(all)
        let past = all[1].acquaintances.introduction
        all[1].restart()
        #expect(all[0].meet(all[1]) == nil)
        #expect(all[0].acquaintances.objection(to: past, from: 1, keyOf: .nobody) != nil)
        let isNews = all[0].acquaintances.refuse(past, from: 1)
        #expect(!isNews, "there is nothing to be put on record")
        for _ in 0..<40 {
            all[1].restart()
            #expect(all[0].meet(all[1]) == nil)
        }
    }

    /// Lives of another line, from as many starts or more, are held against those that come after them.
    @Test func whatComesAfterARefusedLifeIsRefused() {
        let all = members(3)
        assemble(all)
        var knows = all[0].acquaintances
        var other = all[1].acquaintances.introduction
        var nonces: [UInt64] = [999]
        for count in 2...60 as ClosedRange<UInt64> {
            other.life = Life(bootCount: count, nonce: 1000 + count)
            other.ancestors = Array(nonces.prefix(Life.mostAncestors))
            nonces.insert(other.life.nonce, at: 0)
            let objection = knows.objection(to: other, from: 1, keyOf: .nobody)
            #expect(objection == .earlierLife(met: Life(bootCount: 1, nonce: 11)))
            let isNews = knows.refuse(other, from: 1)
            #expect(isNews)
        }
    }

    /// A life that was refused, since a copy had been met, and that all take up again in the end, is held against
    /// nobody.
    @Test func whoIsTakenUpAgainStaysSo() {
        let all = members(3)
        assemble(all)
        var knows = all[0].acquaintances
        var copy = all[1].acquaintances.introduction
        copy.life = Life(bootCount: 2, nonce: 222)
        copy.ancestors = [11]
        _ = knows.meet(copy, from: 1, keyOf: .nobody)
        // The newest pools, which know nothing of that start.
        var newest = copy
        newest.life = Life(bootCount: 5, nonce: 55)
        newest.ancestors = [44, 33, 21, 11]
        #expect(knows.objection(to: newest, from: 1, keyOf: .nobody) == .earlierLife(met: copy.life))
        _ = knows.refuse(newest, from: 1)
        var hearsay = all[2].acquaintances.introduction
        hearsay.records[1].life = newest.life
        _ = knows.meet(hearsay, from: 2, keyOf: .nobody)
        for count in 5...80 as ClosedRange<UInt64> {
            #expect(knows.objection(to: newest, from: 1, keyOf: .nobody) == nil, "start \(count)")
            _ = knows.meet(newest, from: 1, keyOf: .nobody)
            newest.ancestors = Array(([newest.life.nonce] + newest.ancestors).prefix(Life.mostAncestors))
            newest.life = Life(bootCount: count + 1, nonce: 1000 + count)
        }
        #expect(knows.refused[1] == .none)
    }

    @Test func whoIsLostBeforeTheRecordIsWholeMayComeWithOtherPools() {
        let all = members(3)
        assemble([all[0], all[1]])
        all[0].acquaintances.lose(1)
        assemble([all[0], all[2]])
        #expect(all[0].acquaintances.awaited == 0b010 && all[0].acquaintances.founding == .gathering)
        let anew = Member(1, of: 3, incarnation: 99)
        assemble([all[0], anew, all[2]], rounds: 4)
        #expect(all[0].isFounded && anew.isFounded && all[2].isFounded)
    }

    @Test func aReplicaLearnsThatItsOwnLifeIsEarlier() {
        let all = members(3)
        assemble(all)
        let earlier = all[1].acquaintances
        all[1].restart()
        #expect(all[0].meet(all[1]) == nil)
        #expect(
            earlier.objection(to: all[0].acquaintances.introduction, from: 0, keyOf: .nobody)
                == .ownLifeIsEarlier(met: Life(bootCount: 2, nonce: 111)))
    }

    @Test func whatAnotherHasMetCounts() {
        let all = members(3)
        assemble(all)
        let earlier = all[1].acquaintances.introduction
        all[1].restart()
        #expect(all[0].meet(all[1]) == nil)
        #expect(all[2].meet(all[0]) == nil)
        #expect(all[2].acquaintances.objection(to: earlier, from: 1, keyOf: .nobody) != nil)
    }
}
