import Testing

@testable import MPaxosConsensus

/// Whose state is right, by what replicas tell of theirs.
@Suite struct DigestComparisonTests {
    /// - Parameter told: of each replica the last instance executed and the digest; replica 0 judges, and tells last.
    private func verdict(_ told: [(UInt64, UInt64)?]) -> DigestComparison.Verdict {
        var comparison = DigestComparison(index: 0, count: told.count)
        var verdict = DigestComparison.Verdict.agreement
        for (replica, standing) in told.enumerated().reversed() {
            guard let standing else { continue }
            verdict = comparison.take(.init(executed: standing.0, value: standing.1), from: replica, now: 1)
        }
        return verdict
    }

    @Test func nothingToCompare() {
        #expect(verdict([nil, nil, nil]) == .agreement)
        #expect(verdict([nil, (5, 1), (5, 2)]) == .agreement, "this replica has not told")
        #expect(verdict([(5, 1), nil, nil]) == .agreement)
        #expect(verdict([(5, 1), (6, 2), (4, 3)]) == .agreement, "other instances")
        #expect(verdict([(5, 1)]) == .agreement)
    }

    @Test func aMajorityTells() {
        #expect(verdict([(5, 1), (5, 1), (5, 1)]) == .agreement)
        #expect(verdict([(5, 1), (5, 1), (5, 2)]) == .theyDiffer(0b100))
        #expect(verdict([(5, 1), (5, 2), (5, 2)]) == .thisDiffers(majority: 0b110))
        #expect(verdict([(5, 1), (5, 2), (5, 2), (5, 2), nil]) == .thisDiffers(majority: 0b01110))
        #expect(verdict([(5, 1), (5, 1), (5, 2), (5, 3), (5, 1)]) == .theyDiffer(0b01100))
    }

    @Test func withoutAMajorityNobodyKnows() {
        #expect(verdict([(5, 1), (5, 2), nil]) == .undecided(0b010))
        #expect(verdict([(5, 1), (5, 2), (6, 2)]) == .undecided(0b010), "of another instance")
        #expect(verdict([(5, 1), (5, 2), (5, 3)]) == .undecided(0b110))
        #expect(verdict([(5, 1), (5, 2)]) == .undecided(0b10))
        #expect(verdict([(5, 1), (5, 2), (5, 2), nil, nil]) == .undecided(0b00110), "two of five are none")
    }

    /// The third replica told nothing of the instance in dispute, and the one that differs is gone: what the third
    /// tells of a later instance settles it.
    @Test func aMajorityTellsLater() {
        var comparison = DigestComparison(index: 0, count: 3)
        _ = comparison.take(.init(executed: 23, value: 1), from: 0, now: 1)
        #expect(comparison.take(.init(executed: 23, value: 2), from: 1, now: 1) == .undecided(0b010))
        _ = comparison.take(.init(executed: 22, value: 5), from: 2, now: 2)
        #expect(comparison.take(.init(executed: 22, value: 5), from: 0, now: 2) == .agreement)
        #expect(comparison.isInDoubt, "of an earlier instance")
        _ = comparison.take(.init(executed: 1024, value: 6), from: 2, now: 3)
        #expect(comparison.isInDoubt)
        #expect(comparison.take(.init(executed: 1024, value: 6), from: 0, now: 3) == .agreement)
        #expect(!comparison.isInDoubt && comparison.condemned == 0b010)
    }

    @Test func whoIsRefutedIsInDoubt() {
        var comparison = DigestComparison(index: 0, count: 3)
        for peer in [1, 2] { _ = comparison.take(.init(executed: 5, value: 2), from: peer, now: 1) }
        #expect(!comparison.isInDoubt)
        _ = comparison.take(.init(executed: 5, value: 1), from: 0, now: 2)
        #expect(comparison.isRefuted && comparison.isInDoubt && comparison.disputed == 0)
    }

    /// - Parameter told: by replicas 1 on: their statements. Replica 0 is to take a state of replica 1.
    private func opinion(
        _ told: [[(UInt64, UInt64)]], of value: UInt64 = 7
    ) -> DigestComparison.Opinion {
        var comparison = DigestComparison(index: 0, count: told.count + 1)
        for (replica, statements) in zip(1..., told) {
            for one in statements {
                _ = comparison.take(.init(executed: one.0, value: one.1), from: replica, now: 1)
            }
        }
        return comparison.opinion(of: .init(executed: 2048, value: value), from: 1)
    }

    @Test func whatAThirdSaysOfAnSnapshot() {
        #expect(opinion([[], []]) == .unknown)
        #expect(opinion([[(2048, 7)], []]) == .unknown, "the giver's own word")
        #expect(opinion([[], [(2048, 7)]]) == .confirmed)
        #expect(opinion([[], [(2048, 8)]]) == .contradicted(by: 2))
        #expect(opinion([[(1024, 3)], [(1024, 4)]]) == .contradicted(by: 2), "they differed before")
        #expect(opinion([[(1024, 3)], [(1024, 3)]]) == .unknown)
        #expect(opinion([[], [(1024, 4)]]) == .unknown, "of another instance")
    }

    /// One that is wrong does not keep a state from those that need one.
    @Test func aMajorityOverrulesAThird() {
        #expect(opinion([[], [(2048, 8)], [(2048, 7)], [(2048, 7)]]) == .confirmed)
        #expect(opinion([[], [(2048, 8)], [(2048, 7)], []]) == .contradicted(by: 2))
        #expect(opinion([[], [(2048, 8)], [(2048, 8)], [(2048, 8)]]) == .contradicted(by: 2))
    }

    /// A difference that was found stays one while the states move on under load, until it is settled.
    @Test func aDisputeLastsUntilItIsSettled() {
        var comparison = DigestComparison(index: 0, count: 3)
        _ = comparison.take(.init(executed: 5, value: 1), from: 0, now: 90)
        #expect(comparison.take(.init(executed: 5, value: 2), from: 1, now: 100) == .undecided(0b010))
        #expect(comparison.take(.init(executed: 9, value: 3), from: 1, now: 200) == .agreement, "nothing to compare")
        #expect(comparison.disputed == 0b010 && comparison.disputedSince == 100)
        #expect(comparison.take(.init(executed: 9, value: 4), from: 0, now: 300) == .undecided(0b010))
        #expect(comparison.disputedSince == 100 && !comparison.isHopeless)
        #expect(comparison.take(.init(executed: 9, value: 4), from: 2, now: 400) == .theyDiffer(0b010))
        #expect(comparison.disputed == 0 && comparison.disputedSince == .max && comparison.condemned == 0b010)
    }

    @Test func aDisputeEndsWhenTheStatesAreEqual() {
        var comparison = DigestComparison(index: 0, count: 3)
        _ = comparison.take(.init(executed: 5, value: 1), from: 0, now: 90)
        _ = comparison.take(.init(executed: 5, value: 2), from: 1, now: 100)
        // It has taken another state.
        #expect(comparison.take(.init(executed: 5, value: 1), from: 1, now: 200) == .agreement)
        #expect(comparison.disputed == 0 && comparison.disputedSince == .max)
    }

    /// That they were equal at an earlier instance, which comes late, settles nothing.
    @Test func aDisputeDoesNotEndWithAnOldWord() {
        var comparison = DigestComparison(index: 0, count: 3, interval: 10)
        for (executed, value) in [(10, 1), (20, 2)] as [(UInt64, UInt64)] {
            _ = comparison.take(.init(executed: executed, value: value), from: 0, now: 90)
        }
        #expect(comparison.take(.init(executed: 20, value: 3), from: 1, now: 100) == .undecided(0b010))
        #expect(comparison.take(.init(executed: 10, value: 1), from: 1, now: 110) == .agreement)
        #expect(comparison.disputed == 0b010)
        // The majority's word on any of the instances does.
        #expect(comparison.take(.init(executed: 20, value: 2), from: 2, now: 120) == .theyDiffer(0b010))
        #expect(comparison.disputed == 0)
    }

    /// Where all have told, waiting is of no use.
    @Test func aDisputeOfAllIsHopeless() {
        var two = DigestComparison(index: 1, count: 2)
        _ = two.take(.init(executed: 7, value: 1), from: 0, now: 1)
        #expect(!two.isHopeless)
        #expect(two.take(.init(executed: 7, value: 2), from: 1, now: 2) == .undecided(0b01))
        #expect(two.isHopeless)
        #expect(two.take(.init(executed: 7, value: 1), from: 1, now: 3) == .agreement)
        #expect(!two.isHopeless, "it is over when they are equal after all")
    }

    /// One that was found to be wrong opens no dispute at the next instance, before the others have told of that.
    @Test func whoIsKnownToDifferOpensNoDispute() {
        var comparison = DigestComparison(index: 0, count: 3, interval: 10)
        for replica in 0..<3 {
            _ = comparison.take(.init(executed: 10, value: replica == 1 ? 9 : 1), from: replica, now: 1)
        }
        #expect(comparison.condemned == 0b010)
        _ = comparison.take(.init(executed: 20, value: 2), from: 0, now: 2)
        #expect(comparison.take(.init(executed: 20, value: 8), from: 1, now: 3) == .theyDiffer(0b010))
        #expect(comparison.disputed == 0)
        // With another state it is one like the others.
        #expect(comparison.take(.init(executed: 20, value: 2), from: 1, now: 4) == .agreement)
        #expect(comparison.condemned == 0)
    }

    /// Who lags behind is compared at the instances that the others told of before, sixteen of them; statements of
    /// quiet times between do not crowd them out.
    @Test(arguments: [1, 15, 16, 17]) func whoLagsIsCompared(lag: UInt64) {
        var comparison = DigestComparison(index: 2, count: 3, interval: 10)
        let reached: UInt64 = 400
        for executed in 1...reached {
            for replica in 0..<2 {
                _ = comparison.take(.init(executed: executed, value: executed), from: replica, now: executed)
            }
        }
        let behind = reached - lag * 10
        let verdict = comparison.take(.init(executed: behind, value: 0), from: 2, now: 500)
        #expect(verdict == (lag < 16 ? .thisDiffers(majority: 0b011) : .agreement))
        #expect(comparison.value(of: 0, at: behind) == (lag < 16 ? behind : nil))
    }

    @Test func whatIsKeptIsTold() {
        var comparison = DigestComparison(index: 0, count: 2, interval: 10)
        for executed in 1...25 as ClosedRange<UInt64> {
            _ = comparison.take(.init(executed: executed, value: executed), from: 0, now: 1)
        }
        #expect(comparison.statements(of: 0).map(\.executed).sorted() == [10, 20, 25])
        #expect(comparison.statements(of: 1).isEmpty)
    }
}
