import Testing

@testable import Consensus

/// Whose state is right, by what replicas tell of theirs.
@Suite struct DigestComparisonTests {
    /// - Parameter told: of each replica the last instance executed and the digest; replica 0 judges.
    private func verdict(_ told: [(UInt64, UInt64)?]) -> DigestComparison.Verdict {
        var comparison = DigestComparison(index: 0, count: told.count)
        for (replica, standing) in told.enumerated() {
            comparison[replica] = standing.map { .init(executed: $0.0, value: $0.1) }
        }
        return comparison.verdict
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

    /// A difference that was found stays one while the states move on under load, until it is settled.
    @Test func aDisputeLastsUntilItIsSettled() {
        var comparison = DigestComparison(index: 0, count: 3)
        comparison[0] = .init(executed: 5, value: 1)
        comparison[1] = .init(executed: 5, value: 2)
        #expect(comparison.judge(now: 100) == .undecided(0b010))
        comparison[1] = .init(executed: 9, value: 3)
        #expect(comparison.judge(now: 200) == .agreement, "nothing to compare")
        #expect(comparison.disputed == 0b010 && comparison.disputedSince == 100)
        comparison[0] = .init(executed: 9, value: 4)
        #expect(comparison.judge(now: 300) == .undecided(0b010))
        #expect(comparison.disputedSince == 100)
        comparison[2] = .init(executed: 9, value: 4)
        #expect(comparison.judge(now: 400) == .theyDiffer(0b010))
        #expect(comparison.disputed == 0 && comparison.disputedSince == .max)
    }

    @Test func aDisputeEndsWhenTheStatesAreEqual() {
        var comparison = DigestComparison(index: 0, count: 3)
        comparison[0] = .init(executed: 5, value: 1)
        comparison[1] = .init(executed: 5, value: 2)
        _ = comparison.judge(now: 100)
        // It has taken another state.
        comparison[1] = .init(executed: 5, value: 1)
        #expect(comparison.judge(now: 200) == .agreement && comparison.disputed == 0)
        #expect(comparison.disputedSince == .max)
    }

    @Test func withoutAMajorityNobodyKnows() {
        #expect(verdict([(5, 1), (5, 2), nil]) == .undecided(0b010))
        #expect(verdict([(5, 1), (5, 2), (6, 2)]) == .undecided(0b010), "of another instance")
        #expect(verdict([(5, 1), (5, 2), (5, 3)]) == .undecided(0b110))
        #expect(verdict([(5, 1), (5, 2)]) == .undecided(0b10))
        #expect(verdict([(5, 1), (5, 2), (5, 2), nil, nil]) == .undecided(0b00110), "two of five are none")
    }
}
