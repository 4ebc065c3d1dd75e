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

/// When an executor states its digest, and that it reads its state; the test plays engine and clock.
@Suite struct ExecutorTests {
    private final class Rig {
        let pool: StatePool
        let rings = Rings(outstanding: 16)
        let progress = Progress.allocate()
        let board = StatusBoard(members: [0, 1, 2])
        let alarm = Alarm {}
        let order = SnapshotOrder()
        let executor: Executor<ReplicatedCounter>
        private let folder: TestFolder
        private let parker = Parker.allocate()!
        private var instance: UInt64 = 0

        init() throws {
            folder = try TestFolder()
            let path = "\(folder.path)/state.pool"
            let identity = PoolIdentity(cluster: "c", replica: 0, incarnation: 1, charter: charter)
            try StatePool.format(path: path, identity: identity, size: 20 << 20, sessions: 100)
            pool = try whenFree { () throws(PoolError) in try StatePool(openingAny: path) }
            let machine = ReplicatedCounter(in: pool.heap.transaction)
            pool.commit()
            executor = Executor(
                index: 0, machine: machine, pool: pool, maximumRequest: 1_000,
                clock: Clock { _ in csupport_monotonic_us() },
                progress: progress, board: board, rings: rings,
                parkers: Parkers(gateway: parker, engine: parker, links: parker, executor: parker),
                snapshotOrder: order, alarm: alarm, isVerified: false, epoch: Self.epoch,
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        }

        static let epoch: UInt64 = 0xAB_CDEF
        /// Of a request of this process.
        static let tag = epoch << 40 | 1

        deinit {
            executor.close()
            rings.deallocate()
            progress.deallocate()
            parker.deallocate()
        }

        /// The engine decides some more instances, each of which is empty.
        func decide(_ count: Int) {
            for _ in 0..<count {
                instance += 1
                let pushed = rings.decided.push(DecidedBatch(instance: instance, bytes: nil, count: 0))
                precondition(pushed, "more batches than the ring has room for")
            }
            rings.decided.publish()
        }

        /// The engine decides a batch of this replica's own records; runs it.
        func execute(_ records: (kind: CommandRecord.Kind, tag: UInt64, body: [UInt8])...) {
            let room = records.map { CommandRecord.size(bodyCount: $0.body.count) }.reduce(0, +)
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 8)
            defer { bytes.deallocate() }
            var at = bytes.baseAddress!
            for record in records {
                at += record.body.withUnsafeBytes {
                    CommandRecord.write(
                        into: at, kind: record.kind, origin: 0, tag: record.tag, session: 0, sequence: 1, body: $0)
                }
            }
            instance += 1
            let pushed = rings.decided.push(
                DecidedBatch(instance: instance, bytes: UnsafeRawPointer(bytes.baseAddress!), count: room))
            precondition(pushed, "more batches than the ring has room for")
            rings.decided.publish()
            run(now: 1_000_000)
        }

        /// What was answered: the tag, and the status.
        var answers: [(tag: UInt64, status: StatusCode?)] {
            var all: [(tag: UInt64, status: StatusCode?)] = []
            while let completion = rings.completions.pop() {
                all.append((completion.tag, StatusCode(rawValue: completion.status)))
                completion.body.release(to: rings.replyBodies)
            }
            return all
        }

        var stated: [UInt64] {
            var all: [UInt64] = []
            while let standing = rings.digests.pop() { all.append(standing.executed) }
            return all
        }

        /// Polls without a pause, at one time.
        func run(now: UInt64) { while executor.poll(budget: 100, now: now) {} }
    }

    private static let one: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]

    /// Named by its position, a command is refused, and those beside it run.
    @Test func aNamedCommandIsRefusedInPlaceOfExecuted() throws {
        let rig = try Rig()
        _ = rig.pool.skip([2])
        let (tag, one) = (Rig.tag, Self.one)
        rig.execute((.submit, tag, one), (.submit, tag + 1, one), (.submit, tag + 2, one))
        let answers = rig.answers
        #expect(answers.map(\.tag) == [tag, tag + 1, tag + 2] && answers.map(\.status) == [.ok, .full, .ok])
        #expect(rig.board.recordsSkipped.load() == 1 && rig.pool.position == 3)
        let root = PersistentPointer<Int64>(offset: rig.pool.heap.transaction.rootSlot(0))
        #expect(rig.pool.heap.transaction.read(root) == 2)
        #expect(rig.pool.breadcrumbs.crumb(at: 0) == nil, "nothing is left of what was committed")
    }

    /// Nobody waits for the answer to a query of the process before: one that has ended that must not end this one.
    @Test func aQueryOfAnEarlierProcessIsNotRun() throws {
        let rig = try Rig()
        rig.execute((.query, 1 << 40 | 1, []), (.query, Rig.tag, []))
        let answers = rig.answers
        #expect(answers.map(\.tag) == [Rig.tag] && rig.board.queriesServed.load() == 1)
        #expect(rig.pool.breadcrumbs.crumb(at: 0) == nil)
    }

    /// Under load just at the multiples, though a turn would execute beyond them; in quiet wherever it stands, once.
    @Test func theDigestIsStatedAtFixedInstancesAndInQuiet() throws {
        let rig = try Rig()
        for _ in 0..<5 {
            rig.decide(500)
            rig.run(now: 1_000_000)
        }
        #expect(rig.stated == [1024, 2048])
        rig.run(now: 1_040_000)
        #expect(rig.stated.isEmpty)
        rig.run(now: 1_060_000)
        rig.run(now: 2_000_000)
        #expect(rig.stated == [2500])
        #expect(rig.board.digest?.executed == 2500)
    }

    /// A snapshot is begun where others tell the digest of just that state: at a multiple, or in quiet.
    @Test func anSnapshotIsBegunWhereOthersTell() throws {
        let rig = try Rig()
        rig.decide(1000)
        rig.run(now: 1_000_000)
        rig.order.place()
        rig.decide(500)
        rig.run(now: 1_001_000)
        #expect(try rig.order.collect()?.get().executed == 1024 && rig.pool.executed == 1500)
        rig.order.place()
        rig.run(now: 1_010_000)
        #expect(rig.order.isPlaced)
        rig.run(now: 1_060_000)
        #expect(try rig.order.collect()?.get().executed == 1500)
    }

    /// Where neither comes for some seconds a snapshot is begun all the same.
    @Test func anSnapshotDoesNotWaitForEver() throws {
        let rig = try Rig()
        rig.decide(1)
        rig.run(now: 1_000_000)
        rig.order.place()
        var now: UInt64 = 1_000_000
        while rig.order.isPlaced, now < 20_000_000 {
            now += 10_000
            rig.decide(1)
            rig.run(now: now)
        }
        #expect(now > 2_900_000 && now < 3_100_000)
        #expect(try rig.order.collect()?.get() != nil)
    }

    /// An executor whose state was not read at the opening reads it as fast as it can, then now and then; a byte that
    /// no commit has changed ends it.
    @Test func theStateIsRead() throws {
        let rig = try Rig()
        rig.run(now: 1_000_000)
        #expect(rig.board.statePasses.load() == 1 && rig.alarm.raised == nil)
        rig.run(now: 1_000_001)
        #expect(rig.board.statePasses.load() == 1, "it takes its time")
        let home = UnsafeMutableRawPointer(mutating: rig.pool.heap.transaction.committed.baseAddress!)
        let place = home + Int(rig.pool.heap.transaction.root) + 100
        place.assumingMemoryBound(to: UInt8.self).pointee ^= 1
        var now: UInt64 = 1_000_000
        while now < 31_000_000, rig.alarm.raised == nil {
            now += 1_000
            rig.decide(1)
            rig.run(now: now)
        }
        #expect(rig.alarm.raised?.text.contains("the digest of the bytes of its state is") == true)
        #expect(now < 23_000_000, "within two passes")
        let executed = rig.pool.executed
        rig.decide(1)
        rig.run(now: now + 1_000)
        #expect(rig.pool.executed == executed, "nothing is executed any more")
    }
}
