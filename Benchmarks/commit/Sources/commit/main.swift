import Baselines
import Glibc
import MPaxosPersistentMemory

// What it costs to update 128 bytes in place, failure-atomically by batches, three ways, in turn.

let keys = 10_000
let batch = 100
let batches = 3_000
let rounds = 5
let folder = CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "/dev/shm"

/// Of this thread: other load on the machine disturbs it less than the clock on the wall, and nothing here waits.
func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

struct Redo {
    let heap: Heap
    let values: [UInt64]

    init(path: String) throws {
        unlink(path)
        try Pool.create(path: path, layout: "commit", size: 64 << 20)
        let pool = try Pool(opening: path, layout: "commit")
        print("\(path): durability \(pool.durability.rawValue)")
        try Heap.format(in: pool, progressSize: 4096)
        let heap = try Heap(opening: pool)
        var values: [UInt64] = []
        // A block of 112 + 16 or 176 + 16 bytes keeps each value on as few lines as the baselines have.
        for _ in 0..<keys { values.append((try heap.transaction.allocate(176) + 63) & ~63) }
        heap.transaction.commit()
        self.heap = heap
        self.values = values
    }

    /// Nanoseconds an update.
    @inline(never)
    func run() -> Double {
        let transaction = heap.transaction
        var s: UInt64 = 88_172_645_463_325_252
        let start = nanoseconds()
        values.withUnsafeBufferPointer { values in
            for _ in 0..<batches {
                for _ in 0..<batch {
                    s ^= s << 13
                    s ^= s >> 7
                    s ^= s << 17
                    transaction.beginCommand()
                    let bytes = transaction.mutableBytes(values[Int(s % UInt64(keys))], 128)
                    memset(bytes.baseAddress!, Int32(truncatingIfNeeded: s & 0xff), 128)
                }
                transaction.commit()
            }
        }
        return Double(nanoseconds() - start) / Double(batches * batch)
    }
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

let baselinePath = "\(folder)/commit-\(getpid())-undo"
let redoPath = "\(folder)/commit-\(getpid())-redo"
defer {
    unlink(baselinePath)
    unlink(redoPath)
}
guard let baseline = baseline_open(baselinePath, keys) else { exit(1) }
let redo = try Redo(path: redoPath)
var (transaction, undo, journal): ([Double], [Double], [Double]) = ([], [], [])
_ = redo.run()
for round in 1...rounds {
    transaction.append(baseline_transaction(baseline, batches, batch))
    undo.append(baseline_undo_log(baseline, batches, batch))
    journal.append(redo.run())
    print(
        "round \(round): transaction \(Int(transaction.last!)), undo log \(Int(undo.last!)), redo \(Int(journal.last!)) ns an update"
    )
}
baseline_close(baseline)
let best = median(journal)
func report(_ name: String, _ values: [Double], beside best: Double) {
    print(
        "\(name): median \(Int(median(values))) ns an update, \(Double(Int(median(values) / best * 10)) / 10) times redo"
    )
}
report("one libpmemobj transaction a batch", transaction, beside: best)
report("undo log, a fence for each update ", undo, beside: best)
report("redo heap, a fence for each batch ", journal, beside: best)
