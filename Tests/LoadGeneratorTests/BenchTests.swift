import Foundation
import MPaxosKeyValueFormat
import MPaxosWire
import Testing

@testable import MPaxosLoadGenerator

// Serialized: every test blocks its thread, and others need some too.
@Suite(.serialized) struct BenchTests {
    private static func configuration(_ replicas: FakeReplica...) -> BenchConfiguration {
        var configuration = BenchConfiguration(endpoints: replicas.map(\.endpoint))
        configuration.sessions = 12
        configuration.connections = 3
        configuration.seconds = 0.2
        configuration.warmup = 0.05
        configuration.keys = 50
        // Longer than any stall of a busy machine: what the tests count must not come from that.
        configuration.requestTimeout = 20
        return configuration
    }

    private static func leader() -> FakeReplica.Script {
        var script = FakeReplica.Script()
        script.leader = 0
        return script
    }

    /// What holds after every run that went well: nothing forbidden was sent, and every session was closed again
    /// (but for those that a retried OPEN may have left behind).
    private static func expectOrder(
        _ record: FakeReplica.Record, openIsRetried: Bool = false, location: SourceLocation = #_sourceLocation
    ) {
        #expect(record.violations.prefix(3) == [], sourceLocation: location)
        #expect(openIsRetried || record.openSessions == 0, sourceLocation: location)
    }

    @Test func closedLoop() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        let result = try Bench(Self.configuration(replica)).run { _ in }
        let record = replica.record
        Self.expectOrder(record)
        #expect(record.requests[.open] == 12)
        #expect(record.peers.count == 3)
        #expect(record.requests[.close] == 12)
        #expect(record.requests[.query] == nil)
        #expect(record.sawNoForward)
        #expect(record.retries == 0)
        #expect(result.total.completed > 12)
        #expect(record.executed >= Int(result.total.completed))
        #expect(result.total.counts == BenchCounts())
        #expect(result.total.rate > 0 && result.total.seconds >= 0.2)
        #expect(
            0 < result.total.p50 && result.total.p50 <= result.total.p90 && result.total.p90 <= result.total.p99
                && result.total.p99 <= result.total.p999)
        #expect(result.total.p999 <= result.total.max)
        // The fake runs in this process: its CPU and ours are the same number.
        #expect(result.total.generatorProcessorTime > 0)
        #expect(try #require(result.total.replicaProcessorTime) > 0)
        #expect(record.keys.count <= 50 && record.keys.allSatisfy { $0 < "key-000000000050" })
    }

    @Test func readsAndWritesMix() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.readShare = 0.5
        _ = try Bench(configuration).run { _ in }
        let record = replica.record
        Self.expectOrder(record)
        let reads = record.requests[.query] ?? 0
        let writes = record.requests[.submit] ?? 0
        #expect(reads + writes > 100)
        #expect(abs(reads - writes) < (reads + writes) / 2)
    }

    @Test func onlyReads() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.readShare = 1
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 0)
        #expect(replica.record.requests[.submit] == nil)
    }

    @Test func openLoopKeepsToItsSchedule() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.load = .open(rate: 300)
        configuration.seconds = 0.5
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 0)
        #expect(Double(result.total.completed) <= 300 * (result.total.seconds + configuration.warmup) + 12)
        #expect(result.total.counts == BenchCounts())
    }

    /// One session, a replica that stops for half a second: the requests that should have started meanwhile count as
    /// late, though none of them was sent.
    @Test func openLoopCountsFromTheIntendedStart() throws {
        // The request that met the stall is sent again when it is over.
        let (result, record) = try Self.openLoop(seconds: 1.2, stall: 500, requestTimeout: 0.2)
        Self.expectOrder(record, openIsRetried: true)
        #expect(result.total.max >= 400_000)
        #expect(result.total.p90 >= 200_000)
    }

    /// A replica that stops, and does not come back before the end: what is owed then counts as late as it is.
    @Test func openLoopCountsWhatIsNotAnsweredAtTheEnd() throws {
        let (result, _) = try Self.openLoop(seconds: 0.8, stall: 1500, requestTimeout: 5)
        #expect(result.total.completed < 200)
        #expect(result.total.max >= 400_000)
        #expect(result.total.p90 >= 200_000)
    }

    /// 500 requests a second of one session, and a replica that stops at the 50th for `stall` milliseconds.
    private static func openLoop(
        seconds: Double, stall: Int, requestTimeout: Double
    ) throws -> (BenchResult, FakeReplica.Record) {
        var script = leader()
        script.stallAt = 50
        script.stallMilliseconds = stall
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = configuration(replica)
        configuration.sessions = 1
        configuration.connections = 1
        configuration.warmup = 0
        configuration.seconds = seconds
        configuration.load = .open(rate: 500)
        configuration.requestTimeout = requestTimeout
        return (try Bench(configuration).run { _ in }, replica.record)
    }

    @Test func busyIsWaitedOut() throws {
        var script = Self.leader()
        script.busyEvery = 3
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        let result = try Bench(Self.configuration(replica)).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 0)
        #expect(result.total.counts.busy > 0)
        #expect(result.total.counts.errors == 0 && result.total.counts.timeouts == 0)
        #expect(replica.record.retries == 0)
    }

    @Test func lostRepliesAreAskedForAgain() throws {
        var script = Self.leader()
        script.ignoreEvery = 10
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.requestTimeout = 0.02
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record, openIsRetried: true)
        #expect(result.total.completed > 0)
        #expect(result.total.counts.timeouts > 0 && result.total.counts.errors == 0)
        #expect(replica.record.retries > 0)
    }

    @Test func lostConnectionsAreMadeAgain() throws {
        var script = Self.leader()
        script.stopAt = 30
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.seconds = 0.6
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.counts.disconnects == 3)
        #expect(result.total.counts.errors == 0)
        #expect(replica.record.executed > 60)
    }

    @Test func anotherReplicaTakesOver() throws {
        let second = try FakeReplica(id: 1, FakeReplica.Script())
        defer { second.stop() }
        var script = Self.leader()
        script.stopAt = 30
        script.diesAtStop = true
        let first = try FakeReplica(id: 0, script)
        defer { first.stop() }
        var configuration = Self.configuration(first, second)
        configuration.seconds = 0.5
        let result = try Bench(configuration).run { _ in }
        // The second knows none of the sessions: each is opened anew there.
        #expect(second.record.violations.prefix(3) == [])
        #expect(result.total.counts.expired == 12)
        #expect(second.record.executed > 12)
        #expect(second.record.openSessions == 0)
    }

    @Test func aReplicaWithoutLeaderIsLeft() throws {
        let good = try FakeReplica(id: 1, FakeReplica.Script())
        defer { good.stop() }
        var script = Self.leader()
        script.isLeaderless = true
        let cutOff = try FakeReplica(id: 0, script)
        defer { cutOff.stop() }
        let result = try Bench(Self.configuration(cutOff, good)).run { _ in }
        Self.expectOrder(good.record)
        #expect(cutOff.record.executed == 0)
        #expect(result.total.completed > 0 && result.total.counts.noLeader >= 12 && result.total.counts.errors == 0)
    }

    @Test func redirectsAreFollowed() throws {
        let leader = try FakeReplica(id: 1, FakeReplica.Script())
        defer { leader.stop() }
        var script = Self.leader()
        script.redirect = leader.endpoint
        let follower = try FakeReplica(id: 0, script)
        defer { follower.stop() }
        let result = try Bench(Self.configuration(follower, leader)).run { _ in }
        Self.expectOrder(leader.record)
        #expect(follower.record.executed == 0)
        #expect(result.total.completed > 0 && result.total.counts.errors == 0)
        #expect(result.total.counts.redirects >= 3)
    }

    @Test func aRedirectMayLeadOutOfTheList() throws {
        let leader = try FakeReplica(id: 1, FakeReplica.Script())
        defer { leader.stop() }
        var script = Self.leader()
        script.redirect = leader.endpoint
        let follower = try FakeReplica(id: 0, script)
        defer { follower.stop() }
        let result = try Bench(Self.configuration(follower)).run { _ in }
        Self.expectOrder(leader.record)
        #expect(result.total.completed > 0)
    }

    @Test func theLeaderIsFoundByStatus() throws {
        let leader = try FakeReplica(id: 7, FakeReplica.Script())
        defer { leader.stop() }
        var script = FakeReplica.Script()
        script.leader = 7
        let follower = try FakeReplica(id: 0, script)
        defer { follower.stop() }
        let result = try Bench(Self.configuration(follower, leader)).run { _ in }
        Self.expectOrder(leader.record)
        #expect(follower.record.requests == [.status: 1])
        #expect(result.total.completed > 0 && result.total.counts.redirects == 0)
    }

    @Test func allReplicasShareTheLoad() throws {
        let first = try FakeReplica(id: 0, FakeReplica.Script())
        defer { first.stop() }
        let second = try FakeReplica(id: 1, FakeReplica.Script())
        defer { second.stop() }
        var configuration = Self.configuration(first, second)
        configuration.target = .all
        let result = try Bench(configuration).run { _ in }
        #expect(result.total.completed > 0)
        for replica in [first, second] {
            Self.expectOrder(replica.record)
            #expect(replica.record.executed > 0)
            #expect(!replica.record.sawNoForward)
        }
        #expect(first.record.peers.count == 2 && second.record.peers.count == 1)
    }

    @Test func anExpiredSessionIsOpenedAgain() throws {
        var script = Self.leader()
        script.expireAt = 100
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.warmup = 0
        configuration.seconds = 0.5
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.counts.expired == 1 && result.total.counts.errors == 1)
        #expect(replica.record.requests[.open] == 13)
    }

    @Test func largeValuesSpanManyReads() throws {
        var script = Self.leader()
        script.reply = { body in [1] + body.dropFirst(21) }
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.valueSizes = 300_000...300_000
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 0 && result.total.counts.errors == 0)
    }

    @Test func wrongRepliesAreErrors() throws {
        var script = Self.leader()
        script.reply = { _ in [2, 0x6E, 0x6F] }
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        let result = try Bench(Self.configuration(replica)).run { _ in }
        #expect(result.total.completed == 0 && result.total.rate == 0 && result.total.p50 == 0)
        #expect(result.total.counts.errors > 0)
    }

    @Test func progressComesWithThePhases() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.seconds = 1.2
        var seen: [BenchProgress] = []
        let result = try Bench(configuration).run { seen.append($0) }
        let measuring = seen.filter { $0.phase == .measuring }
        #expect(measuring.count >= 1)
        #expect(measuring.allSatisfy { $0.rate > 0 && $0.p50 > 0 && $0.p99 >= $0.p50 && $0.sessions == 12 })
        #expect(result.total.p50 > 0)
    }

    @Test func stopEndsTheRunWithWhatThereIs() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.warmup = 0
        configuration.seconds = 100
        let bench = Bench(configuration)
        let result = try bench.run { _ in bench.stop() }
        #expect(result.total.completed > 0 && result.total.seconds < 50)
        Self.expectOrder(replica.record)
    }

    // MARK: Steps, mixes, turns

    @Test func aRampOfClientsRises() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.ramp = [1, 4, 12]
        configuration.interval = 0.1
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(replica.record.sessionsUsed == 12)
        #expect(result.steps.map(\.level) == [1, 4, 12])
        #expect(result.steps.allSatisfy { $0.completed > 0 && $0.seconds >= 0.2 && $0.p50 > 0 })
        #expect(result.total.completed == result.steps.reduce(0) { $0 + $1.completed })
        #expect(Set(result.series.map(\.step)) == [0, 1, 2])
        #expect(zip(result.series, result.series.dropFirst()).allSatisfy { $0.at < $1.at && $0.step <= $1.step })
        #expect(result.distribution.last?.percentile == 100)
    }

    @Test func aLowerLevelUsesNoMoreSessionsThanItsOwn() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.ramp = [3]
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(replica.record.sessionsUsed == 3 && result.total.completed > 3)
    }

    @Test func aRampOfRatesKeepsToEach() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.load = .open(rate: 50)
        configuration.ramp = [50, 200]
        configuration.seconds = 0.5
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.steps.count == 2)
        for step in result.steps {
            #expect(step.completed > 0)
            #expect(Double(step.completed) <= step.level * (step.seconds + configuration.warmup) + 12)
        }
    }

    @Test func sessionsTakeTurns() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.outstanding = 2
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 24 && result.total.counts == BenchCounts())
        // First in, first out: all sessions have sent as often, but for one.
        let counts = replica.record.submitsOfSession.values
        #expect(counts.count == 12 && counts.max()! - counts.min()! <= 2)
    }

    @Test func allOperationsMix() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.readShare = 0.25
        configuration.reads = .local
        configuration.deleteShare = 0.25
        configuration.createShare = 0.25
        configuration.valueSizes = 0...400
        var script = Self.leader()
        script.reply = { body in body[0] == KeyValueCommand.Operation.compareAndSwap.rawValue ? [0, 0] : [0] }
        let fixed = script
        replica.change { $0 = fixed }
        let result = try Bench(configuration).run { _ in }
        let record = replica.record
        Self.expectOrder(record)
        #expect(result.total.counts == BenchCounts() && result.total.completed > 100)
        #expect(Set(record.operations.keys) == [.put, .get, .delete, .compareAndSwap])
        #expect(record.operations.values.allSatisfy { $0 > 10 })
        #expect(record.sawLocal)
        #expect(record.valueSizes.count > 20 && record.valueSizes.allSatisfy { 0...400 ~= $0 })
    }

    @Test func orderedReadsAreSubmitted() throws {
        let replica = try FakeReplica(Self.leader())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.readShare = 1
        configuration.reads = .ordered
        let result = try Bench(configuration).run { _ in }
        Self.expectOrder(replica.record)
        #expect(result.total.completed > 0)
        #expect(Set(replica.record.operations.keys) == [.get] && replica.record.requests[.query] == nil)
    }

    /// A replica that is gone for a while shows as a gap in the series, and the series adds up to the whole.
    @Test func theSeriesShowsAGap() throws {
        var script = Self.leader()
        script.stallAt = 200
        script.stallMilliseconds = 400
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.warmup = 0
        configuration.seconds = 1.5
        configuration.interval = 0.1
        configuration.requestTimeout = 0.2
        let result = try Bench(configuration).run { _ in }
        let gap = try #require(result.series.firstIndex { $0.completed == 0 })
        #expect(gap > 0 && result.series[gap...].contains { $0.completed > 0 })
        #expect(result.series.reduce(0) { $0 + $1.counts.timeouts } > 0)
        let sum = result.series.reduce(0) { $0 + $1.completed }
        #expect(sum <= result.total.completed && sum * 10 >= result.total.completed * 9)
    }

    // MARK: Failures

    @Test func nobodyAnswers() throws {
        let replica = try FakeReplica(Self.leader())
        var configuration = Self.configuration(replica)
        replica.stop()
        configuration.timeout = 0.2
        let error = #expect(throws: BenchError.self) { try Bench(configuration).run { _ in } }
        #expect(error?.kind == .noAnswer)
        #expect(error?.description == "no replica answers at \(replica.endpoint)")
    }

    @Test func nobodyLeads() throws {
        let replica = try FakeReplica(FakeReplica.Script())
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.timeout = 0.2
        let error = #expect(throws: BenchError.self) { try Bench(configuration).run { _ in } }
        #expect(error?.kind == .noAnswer)
        #expect(error?.description.contains("knows a leader") == true)
    }

    @Test func valuesThatAreTooLarge() throws {
        var script = Self.leader()
        script.maxRequest = 1000
        let replica = try FakeReplica(script)
        defer { replica.stop() }
        var configuration = Self.configuration(replica)
        configuration.valueSizes = 1001...1001
        let error = #expect(throws: BenchError.self) { try Bench(configuration).run { _ in } }
        #expect(error?.kind == .usage)
        #expect(error?.description.contains("1000 bytes") == true)
    }

    @Test func configurationsOutOfRange() {
        let good = BenchConfiguration(endpoints: ["tcp://127.0.0.1:1"])
        #expect(good.problem == nil)
        let changes: [(inout BenchConfiguration) -> Void] = [
            { $0.endpoints = [] }, { $0.sessions = 0 }, { $0.sessions = 1 << 21 }, { $0.connections = 0 },
            { $0.connections = 101 }, { $0.load = .open(rate: 0) }, { $0.load = .open(rate: .nan) },
            { $0.valueSizes = -1...5 }, { $0.valueSizes = 5...(17 << 20) }, { $0.keys = 0 }, { $0.keys = .max },
            { $0.readShare = 1.1 }, { $0.readShare = -0.1 }, { $0.seconds = 0 }, { $0.warmup = -1 }, { $0.timeout = 0 },
            { $0.requestTimeout = 0 }, { $0.seconds = .infinity }, { $0.interval = 0 }, { $0.ramp = [0] },
            { $0.ramp = [1, 101] }, { $0.ramp = [1.5] }, { $0.outstanding = 0 }, { $0.outstanding = 101 },
            {
                $0.outstanding = 1
                $0.ramp = [1, 2]
            }, { $0.deleteShare = 2 }, { $0.createShare = .nan },
            {
                $0.readShare = 0.6
                $0.deleteShare = 0.6
            }, { $0.keyDistribution = .zipf(exponent: 0) },
        ]
        for change in changes {
            var configuration = good
            change(&configuration)
            #expect(configuration.problem != nil)
            let error = #expect(throws: BenchError.self) { try Bench(configuration).run { _ in } }
            #expect(error?.kind == .usage)
        }
    }
}
