import Foundation
import Logging
import MPaxosClient
import MPaxosPersistentMemory
import MPaxosReplica
import MPaxosStateMachines
import MPaxosStorage
import MPaxosTopology
import MPaxosWire
import Testing

/// A command that stops whoever executes it, and the way out: processes that really end, and replicas that skip.
@Suite(.serialized) struct SkipTests {
    /// Replies with the next number of a byte, and adds it up: a 255 has none.
    fileprivate struct Successor: StateMachine {
        private let sum: PersistentCounter

        init(in transaction: Transaction) { sum = PersistentCounter(at: transaction.rootSlot(0)) }

        static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? {
            body.count == 1 ? nil : "a byte is expected"
        }

        func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
            let next = command[0] + 1
            _ = sum.add(Int64(next), in: transaction)
            reply.append(littleEndian: next)
        }

        func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
            reply.append(littleEndian: query[0] + 1)
        }
    }

    /// Runs the one replica of a topology, logging to standard error, and sends it requests from a thread. Ends when
    /// the machine traps; after a minute all the same, and then as if all were well.
    /// - Parameter requests: sequences and bodies of SUBMITs in a session; without a sequence, QUERY.
    private static func run(_ file: String, sending requests: [(sequence: UInt64?, byte: UInt8)]) throws {
        let topology = try Topology(contentsOf: file)
        let node = try ReplicaNode<Successor>(
            topology: topology, id: 0,
            logger: Logger(label: "test", factory: { StreamLogHandler.standardError(label: $0) }))
        let endpoint = topology.replicas[0].client.description
        Thread.detachNewThread {
            guard let connection = try? Connection(to: endpoint),
                let opened = try? connection.request(
                    RequestHeader(.open, sequence: connection.freeSequence()), timeout: .seconds(60))
            else { return }
            for (sequence, byte) in requests {
                let header =
                    sequence.map { RequestHeader(.submit, session: opened.header.session, sequence: $0) }
                    ?? RequestHeader(.query, sequence: connection.freeSequence())
                _ = try? connection.request(header, body: [byte], timeout: .seconds(60))
            }
        }
        Thread.detachNewThread {
            Thread.sleep(forTimeInterval: 60)
            exit(0)
        }
        try node.run { _, _ in }
    }

    private static let place = "at position 3 (instance"
    private static let machine = "of 'Successor' version 1"

    private func report(_ cluster: NodeCluster) throws -> StateReport {
        let report = try PoolInspection.report(path: cluster.topology.replicas[0].statePool, verify: true)
        #expect(report.damage.isEmpty)
        return try #require(report.state)
    }

    @Test func aCommandThatStopsWhoeverExecutesItIsToldAndCanBeSkipped() async throws {
        let cluster = try NodeCluster(replicas: 1)
        try cluster.format(0, for: Successor.self)
        let file = cluster.topology.file
        // OPEN is at position 1.
        let first = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            [file = file as String] in
            try SkipTests.run(file, sending: [(1, 7), (2, 255)])
        }
        let before = String(decoding: try #require(first).standardErrorContent, as: UTF8.self)
        #expect(!before.contains("the last process ended"))
        let left = try report(cluster)
        #expect(left.executing?.position == 3 && left.executing?.isQuery == false && left.lastEnd == nil)
        let session = try #require(left.sessions.first).id

        // Now it is in the log: nobody sends anything, and it ends at its start.
        let second = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            [file = file as String] in
            try SkipTests.run(file, sending: [])
        }
        let told = String(decoding: try #require(second).standardErrorContent, as: UTF8.self)
            .split(separator: "\n").filter { $0.contains("the last process ended while it executed the command") }
        #expect(told.count == 1, "\(told)")
        let line = try #require(told.first)
        #expect(line.contains(" notice ") && line.contains(Self.place) && line.contains(Self.machine), "\(line)")
        #expect(try report(cluster).lastEnd?.times == 1)

        // With the option it is refused, like the client that asks again.
        let log = ErrorLog()
        try cluster.start(0, as: Successor.self, skipping: [3], log: log)
        try ask(cluster, session: session)
        cluster.stop()
        #expect(log.errors.count == 1)
        let error = try #require(log.errors.first)
        for word in [
            Self.place, "2 times in a row", "stops whoever executes it: see --skip-record in docs/operations.md",
        ] {
            #expect(error.contains(word), "\(error)")
        }
        #expect(try report(cluster).skipped == [3])

        // And again without.
        let later = ErrorLog()
        later.logLevel = .notice
        try cluster.start(0, as: Successor.self, log: later)
        try ask(cluster, session: session)
        cluster.stop()
        #expect(later.errors.filter { !$0.hasPrefix("in the clear") } == [])
        let state = try report(cluster)
        #expect(state.executing == nil && state.lastEnd == nil && state.skipped == [3])
    }

    /// The command asked again, and others.
    private func ask(_ cluster: NodeCluster, session: UInt64) throws {
        let connection = try Connection(to: cluster.endpoints[0])
        let reply = try connection.request(
            RequestHeader(.submit, session: session, sequence: 2), body: [255], timeout: .seconds(30))
        #expect(reply.header.status == .full && reply.header.position == 3)
        #expect(String(decoding: reply.body, as: UTF8.self) == "skipped by the operator")
        let other = try connection.request(
            RequestHeader(.submit, sequence: connection.freeSequence()), body: [8], timeout: .seconds(30))
        #expect(other.header.status == .ok && other.body == [9])
    }

    /// A query stops the replica that answers it, once: the next start passes over it, and says what it was.
    @Test func aQueryThatStopsAReplicaStopsItOnce() async throws {
        let cluster = try NodeCluster(replicas: 1)
        try cluster.format(0, for: Successor.self)
        let file = cluster.topology.file
        await #expect(processExitsWith: .failure) { [file = file as String] in
            try SkipTests.run(file, sending: [(nil, 255)])
        }
        #expect(try report(cluster).executing?.isQuery == true)
        let log = ErrorLog()
        log.logLevel = .notice
        try cluster.start(0, as: Successor.self, log: log)
        let connection = try Connection(to: cluster.endpoints[0])
        let reply = try connection.request(
            RequestHeader(.query, sequence: connection.freeSequence()), body: [8], timeout: .seconds(30))
        #expect(reply.header.status == .ok && reply.body == [9])
        cluster.stop()
        let told = log.errors.filter { !$0.hasPrefix("in the clear") }
        #expect(told.count == 1)
        #expect(told.first?.contains("while it answered a query at position 1") == true, "\(log.errors)")
    }

    /// Three of which one is not told: it stays out until it is; then all skip alike.
    @Test func replicasSkipTogetherOrDoNotLink() async throws {
        let cluster = try NodeCluster()
        for id in 0..<3 as Range<UInt16> { try cluster.format(id, for: Successor.self) }
        for id in 0..<3 as Range<UInt16> {
            try cluster.start(id, as: Successor.self, skipping: id < 2 ? [3] : [])
        }
        for id in 0..<3 {
            let told = try cluster.refusals(of: id, count: id == 2 ? 2 : 1)
            #expect(told.keys.sorted() == (id == 2 ? [0, 1] : [2]))
            for (other, sentence) in told {
                let skips = id == 2 ? other : id
                let words =
                    "replica \(skips) skips the command at position 3, replica 2 does not and has not passed it: start replica 2 with --skip-record 3 until it has passed it, or, where no log has named that position, replica \(skips) without"
                #expect(sentence.contains(words), "\(sentence)")
            }
        }
        cluster.stop()

        for id in 0..<3 as Range<UInt16> { try cluster.start(id, as: Successor.self, skipping: [3]) }
        var client = try ClusterClient(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
        let session = try client.open()
        #expect(try client.submit([7], session: session).body == [8])
        #expect(throws: ClientError.full("skipped by the operator")) { try client.submit([255], session: session) }
        #expect(try client.submit([9], session: session).body == [10])
        try expectEqualDigests(cluster, from: 4)
        cluster.stop()

        // All have passed it: the option may be left out, on one or on all.
        for id in 0..<3 as Range<UInt16> {
            try cluster.start(id, as: Successor.self, skipping: id == 1 ? [3] : [])
        }
        defer { cluster.stop() }
        client = try ClusterClient(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
        #expect(try client.submit([11]).body == [12])
        try expectEqualDigests(cluster, from: 5)
    }

    private func expectEqualDigests(_ cluster: NodeCluster, from position: Int) throws {
        let deadline = ContinuousClock.now + .seconds(30)
        var digests: [String] = []
        repeat {
            digests = try (0..<3).compactMap { id in
                guard let digest = try cluster.status(of: id)["digest"] as? [String: Any],
                    digest["position"] as? Int == position
                else { return nil }
                return digest["value"] as? String
            }
        } while digests.count < 3 && ContinuousClock.now < deadline
        #expect(digests.count == 3 && Set(digests).count == 1, "\(digests)")
    }

    @Test func positionsThatCannotBeAreRefused() throws {
        let cluster = try NodeCluster(replicas: 1)
        try cluster.format(0, for: Successor.self)
        for positions in [[0], [1 << 47], Array(1...9)] as [[UInt64]] {
            let error = #expect(throws: ReplicaError.self) {
                try cluster.open(0, as: Successor.self, skipping: positions)
            }
            #expect(error?.kind == .configuration, "\(String(describing: error))")
        }
        try cluster.open(0, as: Successor.self, skipping: Array(1...8) + [8])
    }

    /// What a start says of positions that it has passed.
    @Test func aPositionThatIsPassedIsSaidToDoNothing() throws {
        let cluster = try NodeCluster(replicas: 1)
        try cluster.format(0, for: Successor.self)
        try cluster.start(0, as: Successor.self)
        let client = try ClusterClient(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
        for byte in 1...2 as ClosedRange<UInt8> { #expect(try client.submit([byte]).body == [byte + 1]) }
        cluster.stop()
        let log = ErrorLog()
        log.logLevel = .notice
        try cluster.start(0, as: Successor.self, skipping: [2, 3], log: log)
        cluster.stop()
        #expect(
            log.errors.count(where: { $0.contains("is reached already") }) == 1
                && log.errors.contains { $0.contains("the command at position 2 ") }, "\(log.errors)")
        #expect(log.errors.first?.contains("does nothing here") == true)
    }
}
