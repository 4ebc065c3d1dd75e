import MPaxosConsensus
import Testing

@testable import MPaxosSimulation

/// What a simulated replica keeps of lives and members: it must forget what it may, and nothing else.
@Suite struct MemberRecordsTests {
    private let met = Acquaintances.Record(incarnation: 12, life: Life(bootCount: 3, nonce: 5))

    @Test func whatIsFencedSurvives() {
        var random = SimulationRandom(seed: 1)
        var records = MemberRecords(index: 0, of: 2, incarnation: 11)
        records.write(met, of: 1)
        records.write(.founded)
        records.fence(through: records.written)
        records.crash(random: &random)
        #expect(records.records[1] == met && records.isFounded && !records.hasUnfenced)
    }

    @Test func ofWhatIsNotAnyPartSurvives() {
        var random = SimulationRandom(seed: 1)
        var seen: Set<[Bool]> = []
        for _ in 0..<100 {
            var records = MemberRecords(index: 0, of: 3, incarnation: 11)
            records.write(met, of: 1)
            records.fence(through: records.written)
            records.write(met, of: 2)
            records.write(.founded)
            records.crash(random: &random)
            #expect(records.records[1] == met)
            seen.insert([records.records[2] == met, records.isFounded])
            // What was lost is written again.
            records.write(.founded)
            records.fence(through: records.written)
            #expect(records.isFounded)
        }
        #expect(seen.count == 4)
    }

    /// A start that is cut short leaves pools that belong together; those of different starts never do.
    @Test func poolsOfDifferentStartsDoNotBelongTogether() {
        var records = MemberRecords(index: 0, founders: [1, 2, 3])
        for count in 1...40 as ClosedRange<UInt64> {
            records.begin()
            #expect(records.belongs(toStateStarted: count - 1) && records.belongs(toStateStarted: count))
            records.record(Life(bootCount: count, nonce: 100 + count))
            #expect(records.belongs(toStateStarted: count))
            #expect(!records.belongs(toStateStarted: count - 1) && !records.belongs(toStateStarted: count + 1))
        }
        #expect(records.ancestors == (109...139).reversed())
    }
}
