import Testing

@testable import MPaxosPipeline

@Suite struct PendingTableTests {
    /// A table, and what it should hold in the order of the deadlines.
    private final class Model {
        private var table = PendingTable(capacity: 32, epoch: 7)
        var expected: [(tag: UInt64, deadline: UInt64)] = []
        private let envelope = Envelope()

        func admit(deadline: UInt64) {
            let tag = table.admit(
                command: 2, flags: 0, session: 1, sequence: 1, deadline: deadline, era: 1, now: 0, bodyCount: 10,
                envelope: envelope)
            expected.append((tag, deadline))
        }

        func postpone(_ place: Int, to deadline: UInt64) {
            let tag = expected.remove(at: place).tag
            table.postpone(table.find(tag)!, to: deadline)
            expected.append((tag, deadline))
        }

        func remove(_ place: Int) { table.remove(table.find(expected.remove(at: place).tag)!) }

        var isEmpty: Bool { table.count == 0 && table.bodyBytes == 0 }

        /// Whether the first is the first, and its deadline the next.
        var agrees: Bool {
            guard let first = expected.first else {
                return table.nextDeadline == .max && table.expired(at: .max) == nil
            }
            return table.count == expected.count && table.nextDeadline == first.deadline
                && table.expired(at: first.deadline - 1) == nil
                && table.expired(at: first.deadline) == table.find(first.tag)
        }
    }

    /// A request that may wait longer goes behind all others, whichever it is.
    @Test(arguments: 0..<4) func postponed(place: Int) {
        let model = Model()
        for deadline in [10, 20, 30, 40] as [UInt64] { model.admit(deadline: deadline) }
        model.postpone(place, to: 50)
        #expect(model.agrees)
        model.admit(deadline: 60)
        while !model.expected.isEmpty {
            #expect(model.agrees)
            model.remove(0)
        }
        #expect(model.agrees && model.isEmpty)
    }

    @Test func theOnlyOne() {
        let model = Model()
        model.admit(deadline: 10)
        for deadline in [20, 30, 30] as [UInt64] {
            model.postpone(0, to: deadline)
            #expect(model.agrees)
        }
        model.remove(0)
        #expect(model.agrees)
    }

    /// Whatever happens to them in whichever order.
    @Test(arguments: 1...20 as ClosedRange<UInt64>) func manySteps(seed: UInt64) {
        let model = Model()
        var state = seed
        func below(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var deadline: UInt64 = 1
        for step in 0..<500 {
            deadline += UInt64(below(3))
            let count = model.expected.count
            switch below(3) {
            case 0 where count < 32: model.admit(deadline: deadline)
            case 1 where count > 0: model.postpone(below(count), to: deadline)
            case 2 where count > 0: model.remove(below(count))
            default: break
            }
            #expect(model.agrees, "step \(step)")
        }
    }
}
