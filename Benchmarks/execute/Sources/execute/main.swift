import Floor
import Glibc
import Logging
import MPaxosCSupport
import MPaxosConsensus
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosQueues
import MPaxosStateMachines
import MPaxosStateTransfer
import MPaxosStorage
import MPaxosWire

// What the execution of an ordered PUT costs in a turn of the executor, beside a loop that only copies and flushes.

struct Options {
    var keys = 10_000
    var size = 128
    var sessions = 400
    var batch = 100
    var commands = 400_000
    var rounds = 5
    var folder = "/dev/shm"
    var side = "both"

    init() {
        for argument in CommandLine.arguments.dropFirst() {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { Options.usage() }
            switch parts[0] {
            case "keys": keys = Int(parts[1]) ?? 0
            case "size": size = Int(parts[1]) ?? 0
            case "sessions": sessions = Int(parts[1]) ?? 0
            case "batch": batch = Int(parts[1]) ?? 0
            case "commands": commands = Int(parts[1]) ?? 0
            case "rounds": rounds = Int(parts[1]) ?? 0
            case "folder": folder = parts[1]
            case "side": side = parts[1]
            default: Options.usage()
            }
        }
        guard keys > 0, size > 0, sessions > 0, batch > 0, commands > 0, rounds > 0 else { Options.usage() }
        guard ["both", "ours", "floor"].contains(side) else { Options.usage() }
    }

    static func usage() -> Never {
        print(
            """
            Executes batches of PUTs by random key, in turn with a loop that only copies and flushes values; reports
            nanoseconds of processor time a PUT.
            Usage: run [keys=10000] [size=128] [sessions=400] [batch=100] [commands=400000] [rounds=5]
                       [folder=/dev/shm] [side=both|ours|floor]
            """)
        exit(2)
    }
}

/// Of this thread: other load on the machine disturbs it less than the clock on the wall, and nothing here waits.
func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Batches of PUTs, encoded before the clock runs; as many as fit a few MiB, then again from the first.
final class Load {
    static let keySize = 16
    /// Operation and length of the key.
    static let bodyHeader = 5
    let options: Options
    let bytes: UnsafeMutableRawPointer
    let recordSize: Int
    private let batches: Int
    private var nextSession = 0
    private var random: UInt64 = 88_172_645_463_325_252

    init(_ options: Options) {
        self.options = options
        recordSize = CommandRecord.size(bodyCount: Self.bodyHeader + Self.keySize + options.size)
        batches = max(1, min(64, (32 << 20) / (recordSize * options.batch)))
        bytes = .allocate(byteCount: recordSize * options.batch * batches, alignment: 64)
    }

    private func draw() -> UInt64 {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return random
    }

    private func write(_ at: UnsafeMutableRawPointer, key: UInt64, session: UInt64, sequence: UInt64) {
        let body = CommandRecord.writeHeader(
            into: at, kind: .submit, origin: 0, tag: 0, session: session, sequence: sequence,
            bodyCount: Self.bodyHeader + Self.keySize + options.size)
        body.storeBytes(of: UInt8(ascii: "P"), as: UInt8.self)
        body.storeBytes(of: UInt32(Self.keySize), toByteOffset: 1, as: UInt32.self)
        body.storeBytes(of: key, toByteOffset: 5, as: UInt64.self)
        body.storeBytes(of: 0, toByteOffset: 13, as: UInt64.self)
        memset(body + Self.bodyHeader + Self.keySize, Int32(truncatingIfNeeded: draw() & 0xff), options.size)
    }

    /// Calls with the batches that put each key once.
    func fill(sessions: [UInt64], sequences: inout [UInt64], _ execute: (UnsafeRawBufferPointer) -> Void) {
        var key = 0
        while key < options.keys {
            let count = min(options.batch, options.keys - key)
            for index in 0..<count {
                let (session, sequence) = next(sessions, &sequences)
                write(bytes + index * recordSize, key: UInt64(key + index), session: session, sequence: sequence)
            }
            execute(UnsafeRawBufferPointer(start: bytes, count: count * recordSize))
            key += count
        }
    }

    private func next(_ sessions: [UInt64], _ sequences: inout [UInt64]) -> (UInt64, UInt64) {
        guard !sessions.isEmpty else { return (0, 0) }
        let index = nextSession
        nextSession = (nextSession + 1) % sessions.count
        sequences[index] += 1
        return (sessions[index], sequences[index])
    }

    /// Calls with batches of random keys; encoding is not timed.
    /// - Returns: nanoseconds a command.
    func run(sessions: [UInt64], sequences: inout [UInt64], _ execute: (UnsafeRawBufferPointer) -> Void) -> Double {
        var spent: UInt64 = 0
        var left = options.commands / options.batch
        let batchSize = recordSize * options.batch
        while left > 0 {
            let count = min(left, batches)
            for index in 0..<count * options.batch {
                let (session, sequence) = next(sessions, &sequences)
                write(
                    bytes + index * recordSize, key: draw() % UInt64(options.keys), session: session,
                    sequence: sequence)
            }
            let start = nanoseconds()
            for index in 0..<count {
                execute(UnsafeRawBufferPointer(start: bytes + index * batchSize, count: batchSize))
            }
            spent += nanoseconds() - start
            left -= count
        }
        return Double(spent) / Double(options.commands / options.batch * options.batch)
    }
}

/// The executor of a follower, which answers nobody, fed with decided batches as its engine would.
final class Ours {
    let pool: StatePool
    private let executor: Executor<KeyValueService>
    private let rings = Rings(outstanding: 1)
    private let progress = Progress.allocate()
    private let parker: Parker
    private var instance: UInt64 = 1
    private(set) var sessions: [UInt64] = []

    init(path: String, options: Options) throws {
        let size = 256 << 20 + options.keys * (options.size + 512)
        let identity = PoolIdentity(
            cluster: "execute", replica: 1, incarnation: 1,
            charter: Charter(
                members: [0, 1], maxRequest: 1 << 20, sessions: UInt64(max(options.sessions, 1000)),
                stateSize: UInt64(size), machine: KeyValueService.name, machineVersion: Int64(KeyValueService.version)))
        unlink(path)
        try StatePool.format(path: path, identity: identity, size: size, sessions: max(options.sessions, 1000))
        pool = try StatePool(opening: path, expecting: "execute", replica: 1, viewLimit: 4 << 30)
        print("\(path): durability \(pool.durability.rawValue)")
        let machine = KeyValueService(in: pool.heap.transaction)
        pool.commit()
        for _ in 0..<options.sessions {
            guard case .answer(let answer) = pool.begin(kind: .open, session: 0, sequence: 0) else { fatalError() }
            sessions.append(answer.session)
        }
        pool.endInstance(instance)
        pool.commit()
        guard let parker = Parker.allocate() else { fatalError("no file descriptor is left") }
        self.parker = parker
        executor = Executor(
            index: 1, machine: machine, pool: pool, maximumRequest: 1 << 20,
            clock: Clock { _ in csupport_monotonic_us() }, progress: progress, board: StatusBoard(members: [0, 1]),
            rings: rings, parkers: Parkers(gateway: parker, engine: parker, links: parker, executor: parker),
            snapshotOrder: SnapshotOrder(), alarm: Alarm {}, isVerified: true, epoch: 1,
            logger: Logger(label: "execute"))
    }

    /// A turn of the executor's lane with one batch, which ends with its commit.
    @inline(never)
    func execute(_ batch: UnsafeRawBufferPointer) {
        instance += 1
        let isPushed = rings.decided.push(
            DecidedBatch(instance: instance, bytes: batch.baseAddress, count: batch.count))
        rings.decided.publish()
        _ = executor.poll(budget: 1, now: csupport_monotonic_us())
        guard isPushed, progress.executed == instance else { fatalError("a batch is not executed in its turn") }
    }
}

let options = Options()
let load = Load(options)
let path = "\(options.folder)/execute-\(getpid())"
defer {
    unlink("\(path)-ours")
    unlink("\(path)-floor")
}
let ours = options.side == "floor" ? nil : try Ours(path: "\(path)-ours", options: options)
let flat = options.side == "ours" ? nil : floor_open("\(path)-floor", UInt64(options.keys), options.size)
var sequences = [UInt64](repeating: 0, count: options.sessions)
if let ours { load.fill(sessions: ours.sessions, sequences: &sequences, ours.execute) }

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

var (mine, theirs): ([Double], [Double]) = ([], [])
for round in 1...options.rounds {
    if let ours { mine.append(load.run(sessions: ours.sessions, sequences: &sequences, ours.execute)) }
    if let flat {
        var none: [UInt64] = []
        let valueOffset = Load.keySize
        theirs.append(
            load.run(sessions: [], sequences: &none) { batch in
                floor_batch(
                    flat, batch.baseAddress! + CommandRecord.headerSize + Load.bodyHeader, Int32(options.batch),
                    load.recordSize, valueOffset)
            })
    }
    print("round \(round): ours \(mine.last.map { Int($0) } ?? 0), floor \(theirs.last.map { Int($0) } ?? 0) ns a PUT")
}
if !mine.isEmpty { print("ours:  median \(Int(median(mine))) ns a PUT") }
if let ours {
    let bytes = ours.pool.heap.digestedPages * 4096
    let begin = nanoseconds()
    let isRight = ours.pool.heap.recomputedDigest() == ours.pool.heap.digest
    let time = nanoseconds() - begin
    let outcome = isRight ? "the digest is right" : "the digest is WRONG"
    print("a pass over \(bytes >> 20) MiB: \(Double(bytes) / Double(time)) GB/s; \(outcome)")
}
if !theirs.isEmpty { print("floor: median \(Int(median(theirs))) ns a PUT") }
