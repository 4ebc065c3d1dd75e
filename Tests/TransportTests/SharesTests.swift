import Testing

@testable import MPaxosTransport

/// The count of requests by client, against a dictionary.
@Suite struct SharesTests {
    private static func name(_ number: Int) -> [UInt8] { [0, UInt8(number >> 8), UInt8(number & 255)] }

    @Test(arguments: [1, 2, 3, 16, 200])
    func whatADictionaryCounts(capacity: Int) {
        var shares = Shares(capacity: capacity)
        var expected: [Int: Int] = [:]
        var total = 0
        var generator = SystemRandomNumberGenerator()
        for round in 0..<20_000 {
            // Fills up, and empties, in turns.
            let fills = round / 1000 % 2 == 0
            let number = Int.random(in: 0..<2 * capacity, using: &generator)
            if total < capacity, Int.random(in: 0..<4, using: &generator) < (fills ? 3 : 1) {
                Self.name(number).withUnsafeBytes { shares.add($0) }
                expected[number, default: 0] += 1
                total += 1
            } else if let (number, count) = expected.randomElement(using: &generator) {
                Self.name(number).withUnsafeBytes { shares.remove($0) }
                expected[number] = count == 1 ? nil : count - 1
                total -= 1
            }
            if round % 50 == 0 {
                for number in 0..<2 * capacity {
                    let count = Self.name(number).withUnsafeBytes { shares.count(of: $0) }
                    #expect(count == expected[number] ?? 0, "\(number) after \(round) rounds")
                }
            }
        }
    }
}
