import Testing

@testable import Consensus

/// Who may link while a command is skipped.
@Suite struct SkippingTests {
    private func disagreement(_ own: Skipping, _ other: Skipping) -> Skipping.Disagreement? {
        let found = own.disagreement(with: other)
        let reversed = other.disagreement(with: own)
        #expect(found?.position == reversed?.position, "both see it alike")
        #expect(found == nil || found?.isOwn != reversed?.isOwn)
        return found
    }

    @Test func whoDoesNotNameItLinksOnceItHasPassedIt() {
        let skips = Skipping(position: 56, named: [57])
        for position in 0..<57 as Range<UInt64> {
            let found = disagreement(skips, Skipping(position: position, named: [58]))
            #expect(found == .init(position: 57, isOwn: true))
        }
        for position in [57, 58, .max] as [UInt64] {
            #expect(disagreement(skips, Skipping(position: position, named: [])) == nil)
        }
        #expect(disagreement(skips, Skipping(position: 3, named: [56, 57])) == nil)
        #expect(disagreement(skips, Skipping(position: 3, named: [57, 58])) == .init(position: 58, isOwn: false))
        #expect(disagreement(Skipping(position: 56, named: [56, 57]), Skipping(position: 3, named: [57, 56])) == nil)
        #expect(disagreement(Skipping(position: 0, named: []), Skipping(position: 9, named: [])) == nil)
    }

    /// Who has skipped it names it further on, however far it is.
    @Test func whoHasSkippedItDoesNotLinkWithWhoWouldExecuteIt() {
        let done = Skipping(position: 1_000, named: [57])
        #expect(disagreement(Skipping(position: 20, named: []), done) == .init(position: 57, isOwn: false))
        #expect(disagreement(Skipping(position: 20, named: [57]), done) == nil)
    }
}
