import MPaxosConsensus
import Testing

@testable import MPaxosSimulation

/// What nobody ever was is found in anybody's record.
@Suite struct ChronicleTests {
    private typealias Record = Acquaintances.Record

    private let chronicle: Chronicle

    init() {
        var chronicle = Chronicle(count: 2)
        chronicle.isFormatted(0, incarnation: 10)
        chronicle.isFormatted(1, incarnation: 20)
        chronicle.begins(Record(incarnation: 20, life: Life(bootCount: 1, nonce: 5)), of: 1)
        chronicle.begins(Record(incarnation: 20, life: Life(bootCount: 2, nonce: 6)), of: 1)
        // On a copy.
        chronicle.begins(Record(incarnation: 20, life: Life(bootCount: 2, nonce: 7)), of: 1)
        self.chronicle = chronicle
    }

    @Test(arguments: [
        Record.none, Record(incarnation: 20, life: .none), Record(incarnation: 20, life: Life(bootCount: 1, nonce: 5)),
        Record(incarnation: 20, life: Life(bootCount: 2, nonce: 6)),
        Record(incarnation: 20, life: Life(bootCount: 2, nonce: 7)),
        Record(incarnation: 20, life: Life(bootCount: 2, nonce: 0)),
    ])
    func whatWasIsFound(record: Acquaintances.Record) {
        #expect(chronicle.contradiction(to: [.none, record], of: 0) == nil)
    }

    @Test(arguments: [
        Record(incarnation: 10, life: .none), Record(incarnation: 20, life: Life(bootCount: 1, nonce: 6)),
        Record(incarnation: 20, life: Life(bootCount: 3, nonce: 8)),
        Record(incarnation: 20, life: Life(bootCount: 1, nonce: 0)),
    ])
    func whatNeverWasIsFound(record: Acquaintances.Record) {
        #expect(chronicle.contradiction(to: [.none, record], of: 0) != nil)
    }
}
