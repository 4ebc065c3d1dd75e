import Foundation
import Testing

@testable import MPaxosLoadGenerator

@Suite struct ResultTests {
    private static func tally(latency: UInt64, completed: UInt64, replicas: [UInt64?]) -> Tally {
        var tally = Tally(completed: completed, elapsed: 2_000_000_000, own: completed * 1500, replicas: replicas)
        for _ in 0..<completed { tally.latencies.record(latency) }
        tally.counts.errors = 3
        return tally
    }

    @Test func stepsAddUp() {
        var total = Tally(replicas: [0, 0])
        total.add(Self.tally(latency: 1000, completed: 100, replicas: [200_000, 100_000]))
        total.add(Self.tally(latency: 9000, completed: 300, replicas: [600_000, 300_000]))
        let figures = total.figures(7, replicas: [4, 9])
        #expect(figures.completed == 400 && figures.seconds == 4 && figures.rate == 100 && figures.level == 7)
        #expect(figures.counts.errors == 6)
        #expect(figures.p50 > 8.9 && figures.mean > 6.9 && figures.mean < 7.1)
        #expect(figures.replicaProcessorTime == 3)
        #expect(figures.processorTimes.map(\.replica) == [4, 9] && figures.processorTimes.map(\.time) == [2, 1])
        #expect(figures.generatorProcessorTime == 1.5)
    }

    @Test func theProcessorTimeOfADeadReplicaIsUnknown() {
        var total = Tally(replicas: [0, 0])
        total.add(Self.tally(latency: 1000, completed: 100, replicas: [100_000, nil]))
        total.add(Self.tally(latency: 1000, completed: 100, replicas: [100_000, 100_000]))
        let figures = total.figures(1, replicas: [0, 1])
        #expect(figures.replicaProcessorTime == nil)
        #expect(figures.processorTimes.map(\.time) == [1, nil])
    }

    @Test func json() throws {
        var counts = BenchCounts()
        counts.errors = 3
        counts.reconnects = 2
        let figures = BenchFigures(
            level: 12, rate: 1234.5678, p50: 10, p90: 20.5, p99: 30, p999: 40, max: 50, mean: 12, completed: 99,
            seconds: 2, replicaProcessorTime: nil, processorTimes: [(5, 1.5), (6, nil)], generatorProcessorTime: 1.25,
            counts: counts)
        let interval = BenchInterval(
            step: 0, at: 1, seconds: 0.5, completed: 50, p50: 1, p99: 2, max: 3, counts: counts)
        let result = BenchResult(
            total: figures, steps: [figures], series: [interval], distribution: [(50, 10), (100, .infinity)])
        let object = try #require(try JSONSerialization.jsonObject(with: Data(result.json.utf8)) as? [String: Any])
        for key in ["rate", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "errors", "seconds", "generator_cpu_us"]
        {
            #expect(object[key] is NSNumber, "\(key)")
        }
        #expect(object["replica_cpu_us"] is NSNull)
        #expect((object["rate"] as? NSNumber)?.doubleValue == 1234.568)
        #expect((object["errors"] as? NSNumber)?.intValue == 3)
        let replicas = try #require(object["replicas"] as? [[String: Any]])
        #expect(replicas.count == 2 && replicas[0]["id"] as? Int == 5 && replicas[0]["cpu_us"] as? Double == 1.5)
        #expect(replicas[1]["cpu_us"] is NSNull)
        let steps = try #require(object["steps"] as? [[String: Any]])
        #expect(steps.count == 1 && steps[0]["level"] as? Int == 12 && steps[0]["reconnects"] as? Int == 2)
        let series = try #require(object["series"] as? [[String: Any]])
        #expect(series.count == 1 && series[0]["rate"] as? Int == 100 && series[0]["errors"] as? Int == 3)
        let points = try #require(object["percentiles"] as? [[String: Any]])
        #expect(points.count == 2 && points[0]["us"] as? Int == 10 && points[1]["us"] is NSNull)
    }
}
