import Testing

@testable import MPaxosConsensus

/// Who may link while a command is skipped.
@Suite struct SkippingTests {
    private func disagreement(_ own: Skipping, _ other: Skipping) -> Skipping.Disagreement? {
        let found = own.disagreement(with: other)
        let reversed = other.disagreement(with: own)
        #expect(found?.positions == reversed?.positions, "both see it alike")
        #expect(found == nil || found?.isOwn != reversed?.isOwn)
        return found
    }

    @Test func whoDoesNotNameItLinksOnceItHasPassedIt() {
        let skips = Skipping(position: 56, named: [57])
        for position in 0..<57 as Range<UInt64> {
            let found = disagreement(skips, Skipping(position: position, named: [58]))
            #expect(found == .init(positions: [57], isOwn: true))
        }
        // Who has passed it, and keeps no such position on record, has executed it; one whose record is full may have
        // skipped it long ago.
        for position in [57, 58, .max] as [UInt64] {
            let executed = Skipping.Disagreement(positions: [57], isOwn: true, isExecuted: true)
            #expect(disagreement(skips, Skipping(position: position, named: [])) == executed)
            #expect(disagreement(skips, Skipping(position: position, named: [1, 2, 3])) == executed)
            #expect(disagreement(skips, Skipping(position: position, named: [1, 2, 3, 4])) == nil)
            #expect(disagreement(skips, Skipping(position: position, named: [1, 2, 3, 57])) == nil)
        }
        #expect(
            disagreement(skips, Skipping(position: 3, named: [56, 57]))
                == .init(positions: [56], isOwn: false, isExecuted: true))
        #expect(disagreement(skips, Skipping(position: 3, named: [57, 58])) == .init(positions: [58], isOwn: false))
        #expect(disagreement(Skipping(position: 56, named: [56, 57]), Skipping(position: 3, named: [57, 56])) == nil)
        #expect(disagreement(Skipping(position: 0, named: []), Skipping(position: 9, named: [])) == nil)
    }

    /// Who has skipped it names it further on, however far it is.
    @Test func whoHasSkippedItDoesNotLinkWithWhoWouldExecuteIt() {
        let done = Skipping(position: 1_000, named: [57])
        #expect(disagreement(Skipping(position: 20, named: []), done) == .init(positions: [57], isOwn: false))
        #expect(disagreement(Skipping(position: 20, named: [57]), done) == nil)
    }

    /// One that was away learns of all that the other has on record; what that one has forgotten it cannot name.
    @Test func whoWasAwayLearnsOfAllAtOnce() {
        let away = Skipping(position: 3, named: [])
        #expect(
            disagreement(away, Skipping(position: 90, named: [57, 20, 40]))
                == .init(positions: [20, 40, 57], isOwn: false))
        #expect(
            disagreement(away, Skipping(position: 90, named: [57, 20, 40, 50]))
                == .init(positions: [20, 40, 50, 57], isOwn: false, isCutShort: true))
    }
}
