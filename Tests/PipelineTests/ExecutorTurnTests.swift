import Dispatch
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosQueues
import MPaxosStateMachines
import MPaxosStorage
import MPaxosWire
import Testing

@testable import MPaxosMetrics
@testable import MPaxosPipeline
@testable import MPaxosStateTransfer

/// Counts. A command or query that is not the one byte `validate` asks for stops the process; a query takes 2 ms.
private struct Strict: StateMachine {
    init(in transaction: Transaction) {}

    static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? {
        body.count == 1 && body[0] == 1 ? nil : "not a one"
    }

    func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        precondition(Self.validate(command, as: .submit) == nil)
        let count = PersistentPointer<UInt64>(offset: transaction.root)
        transaction.write(transaction.read(count) + 1, to: count)
        reply.append(littleEndian: transaction.read(count))
    }

    func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        precondition(Self.validate(query, as: .query) == nil)
        let end = csupport_monotonic_us() + 2_000
        while csupport_monotonic_us() < end {}
        reply.append(littleEndian: transaction.read(PersistentPointer<UInt64>(offset: transaction.root)))
    }
}

/// What an executor does with commands that should not have been ordered, and how long its turns are.
@Suite struct ExecutorTurnTests {
    private final class Rig {
        let pool: StatePool
        let rings = Rings(outstanding: 4096)
        let progress = Progress.allocate()
        let board = StatusBoard(members: [0, 1, 2])
        let executor: Executor<Strict>
        private let folder: TestFolder
        private let parker = Parker.allocate()!
        private var instance: UInt64 = 0
        private var batches: [UnsafeMutableRawBufferPointer] = []

        init() throws {
            folder = try TestFolder()
            let path = "\(folder.path)/state.pool"
            let identity = PoolIdentity(cluster: "c", replica: 0, incarnation: 1, charter: charter)
            try StatePool.format(path: path, identity: identity, size: 20 << 20, sessions: 100)
            pool = try whenFree { () throws(PoolError) in try StatePool(openingAny: path) }
            executor = Executor(
                index: 0, machine: Strict(in: pool.heap.transaction), pool: pool, maximumRequest: 1_000,
                clock: Clock { _ in csupport_monotonic_us() },
                progress: progress, board: board,
                rings: rings, parkers: Parkers(gateway: parker, engine: parker, links: parker, executor: parker),
                snapshotOrder: SnapshotOrder(), alarm: Alarm {}, isVerified: true,
                epoch: 0,
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        }

        deinit {
            executor.close()
            rings.deallocate()
            progress.deallocate()
            parker.deallocate()
            for batch in batches { batch.deallocate() }
        }

        typealias Command = (
            kind: CommandRecord.Kind, origin: UInt16, session: UInt64, sequence: UInt64, body: [UInt8]
        )

        /// Each with its place as the tag.
        func decide(_ commands: [Command]) {
            let size = commands.reduce(0) { $0 + CommandRecord.size(bodyCount: $1.body.count) }
            let batch = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
            batches.append(batch)
            var at = 0
            for (tag, command) in commands.enumerated() {
                command.body.withUnsafeBytes {
                    at += CommandRecord.write(
                        into: batch.baseAddress! + at, kind: command.kind, origin: command.origin, tag: UInt64(tag),
                        session: command.session, sequence: command.sequence, body: $0)
                }
            }
            instance += 1
            let pushed = rings.decided.push(
                DecidedBatch(instance: instance, bytes: UnsafeRawPointer(batch.baseAddress!), count: size))
            precondition(pushed, "more batches than the ring has room for")
            rings.decided.publish()
        }

        func ask(_ count: Int) {
            for tag in 0..<count {
                let body = [UInt8(1)].withUnsafeBytes { Body(copying: $0, into: rings.queryBodies) }
                let pushed = rings.localQueries.push(LocalQuery(tag: UInt64(tag), position: 0, body: body))
                precondition(pushed, "more queries than the ring has room for")
            }
            rings.localQueries.publish()
        }

        /// In the order of their tags.
        var answers: [(status: StatusCode, position: UInt64, body: [UInt8])] {
            while let answer = rings.completions.pop() {
                taken[answer.tag] = (
                    StatusCode(rawValue: answer.status)!, answer.position, Array(answer.body.bytes)
                )
                answer.body.release(to: rings.replyBodies)
            }
            return taken.sorted { $0.key < $1.key }.map(\.value)
        }
        private var taken: [UInt64: (status: StatusCode, position: UInt64, body: [UInt8])] = [:]

        /// Queries that one turn answers.
        func turn() -> UInt64 {
            let before = board.queriesServed.load()
            _ = executor.poll(budget: 256, now: csupport_monotonic_us())
            return board.queriesServed.load() - before
        }

        func run() {
            while executor.poll(budget: 256, now: csupport_monotonic_us()) {}
        }
    }

    /// Each is refused as on every other replica, and the next command is executed.
    @Test func whatShouldNotHaveBeenOrderedIsRefused() throws {
        let rig = try Rig()
        rig.decide([
            (.open, 0, 77, 5, [9]), (.submit, 0, 0, 0, [2]), (.submit, 0, 0, 0, []),
            (.submit, 0, 0, 0, [UInt8](repeating: 1, count: 2_000)), (.submit, 0, 5, 0, [1]),
            (.close, 0, 0, 0, []), (.close, 0, .max, .max, [1]), (.query, 0, 3, 4, [2]),
            (.query, 0, 0, 0, [UInt8](repeating: 1, count: 2_000)), (.query, 1, 0, 0, [2]), (.submit, 1, 0, 0, [3]),
            (.submit, 0, 0, 0, [1]),
        ])
        rig.run()
        let answers = rig.answers
        #expect(
            answers.map(\.status) == [
                .ok, .full, .full, .full, .expired, .expired, .expired, .malformed, .malformed, .ok,
            ])
        #expect(answers[1].body == Array("no command of this service".utf8))
        #expect(answers.last?.body == [1, 0, 0, 0, 0, 0, 0, 0] && rig.pool.position == 9)
        #expect(rig.pool.executed == 1 && rig.pool.executedCommands == 0)
    }

    /// A refusal is the session's kept reply, and a sequence of 0 is stale.
    @Test func refusalsAreKept() throws {
        let rig = try Rig()
        rig.decide([(.open, 0, 77, 0, [])])
        rig.run()
        let session = SessionRules.id(opening: 1, slot: 0, seed: 77)
        rig.decide([(.submit, 0, session, 1, [2]), (.submit, 0, session, 1, [1]), (.submit, 0, session, 0, [1])])
        rig.run()
        #expect(rig.answers.map(\.status) == [.full, .full, .stale])
        #expect(rig.answers[1].position == rig.answers[0].position)
    }

    /// The other stages of its lane wait for no more than some milliseconds and a query.
    @Test func aTurnEndsInTheMiddleOfQueries() throws {
        let rig = try Rig()
        rig.ask(50)
        var turns: [UInt64] = []
        while rig.answers.count < 50, turns.count < 1_000 { turns.append(rig.turn()) }
        #expect(rig.answers.count == 50)
        #expect(turns.allSatisfy { (1...3).contains($0) }, "5 ms have room for 2, and the third ends them: \(turns)")
    }

    /// Also in the middle of a batch, whose rest is executed later, once.
    @Test func aTurnEndsInTheMiddleOfABatch() throws {
        let rig = try Rig()
        rig.decide((0..<100).map { ($0 % 2 == 0 ? .query : .submit, 0, 0, 0, [1]) })
        rig.decide([(.query, 1, 0, 0, [1]), (.submit, 1, 0, 0, [1])])
        var turns: [UInt64] = []
        while rig.pool.executed < 2, turns.count < 1_000 {
            turns.append(rig.turn())
            #expect(rig.board.executed.load() == rig.pool.executed)
            if rig.pool.executed == 0 { #expect(rig.rings.digests.isEmpty && rig.answers.count < 100) }
        }
        #expect(turns.allSatisfy { $0 <= 3 }, "\(turns)")
        let answers = rig.answers
        #expect(answers.count == 100 && answers.allSatisfy { $0.status == .ok })
        for (tag, answer) in answers.enumerated() {
            #expect(answer.body.first == UInt8((tag + 1) / 2), "each sees what came before it")
        }
        #expect(rig.pool.position == 51 && rig.pool.executedCommands == 0)
    }
}
