import Glibc
import MPaxosKeyValueFormat
import MPaxosWire
import MPaxosZMTP
import Testing

@testable import MPaxosLoadGenerator

@Suite struct WorkloadTests {
    private static func configuration(_ change: (inout BenchConfiguration) -> Void) -> BenchConfiguration {
        var configuration = BenchConfiguration(endpoints: ["x"])
        change(&configuration)
        return configuration
    }

    @Test func keysAreDrawnUniformly() {
        let configuration = Self.configuration { $0.keys = 10 }
        var workload = Workload(configuration)
        var again = Workload(configuration)
        var counts = [Int](repeating: 0, count: 10)
        for _ in 0..<100_000 {
            let key = workload.nextKey()
            #expect(key == again.nextKey())
            counts[Int(key)] += 1
        }
        #expect(counts.allSatisfy { abs($0 - 10_000) < 600 })
    }

    /// Pearson's test over the exact weights: 199 degrees of freedom, of which 300 is five deviations off.
    @Test(arguments: [0.5, 0.99, 1.0, 1.5]) func zipfFollowsItsLaw(exponent: Double) {
        let keys = 200
        var workload = Workload(
            Self.configuration {
                $0.keys = UInt64(keys)
                $0.keyDistribution = .zipf(exponent: exponent)
            })
        let draws = 400_000
        var counts = [Int](repeating: 0, count: keys)
        for _ in 0..<draws { counts[Int(workload.nextKey())] += 1 }
        let weights = (1...keys).map { pow(Double($0), -exponent) }
        let sum = weights.reduce(0, +)
        var distance = 0.0
        for (count, weight) in zip(counts, weights) {
            let expected = Double(draws) * weight / sum
            distance += (Double(count) - expected) * (Double(count) - expected) / expected
        }
        #expect(distance < 300, "exponent \(exponent)")
    }

    @Test func zipfOverManyKeysAndOverOne() {
        var many = Workload(
            Self.configuration {
                $0.keys = 1_000_000_000
                $0.keyDistribution = .zipf(exponent: 0.99)
            })
        var largest: UInt64 = 0
        var first = 0
        for _ in 0..<100_000 {
            let key = many.nextKey()
            largest = max(largest, key)
            if key == 0 { first += 1 }
        }
        // 1 / (sum of all weights), which is about 23.6 here.
        #expect(abs(first - 4240) < 350, "\(first) of key 0")
        #expect(largest < 1_000_000_000 && largest > 900_000_000)
        var one = Workload(
            Self.configuration {
                $0.keys = 1
                $0.keyDistribution = .zipf(exponent: 2)
            })
        #expect((0..<100).allSatisfy { _ in one.nextKey() == 0 })
    }

    @Test func mixesKeepToTheirShares() {
        var workload = Workload(
            Self.configuration {
                $0.readShare = 0.4
                $0.reads = .local
                $0.deleteShare = 0.3
                $0.createShare = 0.2
            })
        var counts: [Operation: Int] = [:]
        for _ in 0..<100_000 { counts[workload.nextOperation(), default: 0] += 1 }
        for (operation, share) in [
            (Operation.localQuery, 40_000), (.delete, 30_000), (.create, 20_000), (.put, 10_000),
        ] {
            #expect(abs(counts[operation, default: 0] - share) < 1000, "\(operation)")
        }
        #expect(counts.count == 4)
    }

    @Test func wholeShares() {
        var reads = Workload(Self.configuration { $0.readShare = 1 })
        var puts = Workload(Self.configuration { _ in })
        for _ in 0..<10_000 {
            #expect(reads.nextOperation() == .query)
            #expect(puts.nextOperation() == .put)
        }
    }

    @Test func sizesCoverTheirRangeEvenly() {
        var workload = Workload(Self.configuration { $0.valueSizes = 5...14 })
        var counts = [Int](repeating: 0, count: 15)
        for _ in 0..<100_000 { counts[workload.nextValueSize()] += 1 }
        #expect(counts[..<5].allSatisfy { $0 == 0 })
        #expect(counts[5...].allSatisfy { abs($0 - 10_000) < 600 })
    }

    @Test(arguments: [0, 7, 8, 200, 300]) func bytesOfValuesThatVary(size: Int) throws {
        let template = RequestTemplate.create(.noForward, valueSizes: 0...300)
        defer { template.release() }
        let count = template.count(valueSize: size)
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, written in
            template.write(
                into: UnsafeMutableRawPointer(buffer.baseAddress!), session: 3, sequence: 4, key: 12, valueSize: size)
            written = count
        }
        guard case .frame(let frame) = bytes.withUnsafeBytes({ Codec.frame($0, at: 36, limit: 1 << 20) }) else {
            Issue.record("no frame")
            return
        }
        #expect(frame.bodyOffset + frame.bodyCount == count && !frame.hasMore)
        let head = KeyValueCommand.compareAndSwap(key: Array("key-000000000012".utf8), expected: nil, new: []).body
        #expect(Array(bytes[frame.bodyOffset...].prefix(head.count)) == head)
        #expect(frame.bodyCount == head.count + size)
    }

    @Test func answersBelongToTheirOperations() {
        func isAnswered(_ operation: Operation, _ body: [UInt8]) -> Bool {
            body.withUnsafeBytes { operation.isAnswered(by: $0) }
        }
        for operation in [Operation.put, .query, .localQuery, .orderedGet, .delete] {
            #expect(isAnswered(operation, [0]) && isAnswered(operation, [1]) && isAnswered(operation, [1, 5]))
            #expect(!isAnswered(operation, []) && !isAnswered(operation, [0, 1]) && !isAnswered(operation, [2]))
        }
        #expect(isAnswered(.create, [1, 5]) && isAnswered(.create, [0, 0]) && isAnswered(.create, [0, 1, 7]))
        #expect(!isAnswered(.create, []) && !isAnswered(.create, [0]) && !isAnswered(.create, [2, 1]))
    }
}
