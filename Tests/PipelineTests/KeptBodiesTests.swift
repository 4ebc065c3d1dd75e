import Testing

@testable import MPaxosPipeline

/// Bodies in a circle: each is there as it was put, or not at all.
@Suite struct KeptBodiesTests {
    private func keep(_ bytes: [UInt8], in kept: inout KeptBodies) -> KeptBodies.Place {
        bytes.withUnsafeBytes { kept.keep($0) }
    }

    private func found(_ place: KeptBodies.Place, _ count: Int, in kept: borrowing KeptBodies) -> [UInt8]? {
        kept.body(at: place, count: count).map(Array.init)
    }

    /// Over several turns of the circle, with sizes that do not divide it.
    @Test func theLastOnesAreThereAndTheOthersAreNot() {
        var kept = KeptBodies(capacity: 160)
        var places: [(KeptBodies.Place, [UInt8])] = []
        for number in 0..<200 {
            let body = [UInt8](repeating: UInt8(number), count: 1 + number % 10)
            places.append((keep(body, in: &kept), body))
            for (age, (place, body)) in places.reversed().enumerated() {
                let there = found(place, body.count, in: kept)
                #expect(there == nil || there == body)
                // The last ten fill a third of the circle at most.
                if age < 10 { #expect(there == body, "number \(number), \(age) later") }
            }
            #expect(places.count < 60 || found(places[places.count - 60].0, 1, in: kept) == nil)
        }
    }

    @Test func emptyOnesAndLargeOnes() {
        var kept = KeptBodies(capacity: 160)
        let empty = keep([], in: &kept)
        #expect(found(empty, 0, in: kept) == [])
        let large = keep([UInt8](repeating: 1, count: 11), in: &kept)
        #expect(found(large, 11, in: kept) == nil, "one alone must not take the place of many")
        #expect(found(.none, 3, in: kept) == nil)
    }
}
