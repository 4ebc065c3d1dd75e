import Glibc
import MPaxosPersistentMemory
import Testing

/// A new path for a pool, removed again when the test is done with it.
final class TemporaryPool {
    let path: String

    /// - Parameter folder: /dev/shm by default, where a pool's durability is emulated.
    init(in folder: String = "/dev/shm", _ name: String = #function) {
        let plain = name.prefix { $0.isLetter }
        path = "\(folder)/pmtest-\(getpid())-\(plain)-\(UInt32.random(in: 0...UInt32.max))"
    }

    deinit { unlink(path) }

    /// Creates the file and a heap in it.
    func format(
        size: Int = 32 << 20, progressSize: Int = 4096, journalSize: Int? = nil, reserveSize: Int? = nil
    ) throws {
        try Pool.create(path: path, layout: "test-1", size: size)
        let pool = try open()
        try Heap.format(in: pool, progressSize: progressSize, journalSize: journalSize, reserveSize: reserveSize)
        pool.close()
    }

    func open() throws -> Pool { try Pool(opening: path, layout: "test-1") }
}

/// A heap in memory only.
func smallHeap(size: Int = 1 << 20, journalSize: Int? = nil, reserveSize: Int? = nil) throws -> Heap {
    let pool = try CrashRun.emptyPool(size: size)
    try Heap.format(in: pool, progressSize: 4096, journalSize: journalSize, reserveSize: reserveSize)
    return try Heap(opening: pool)
}

extension Transaction {
    func fill(_ offset: UInt64, _ count: Int, with byte: UInt8) {
        memset(mutableBytes(offset, count).baseAddress!, Int32(byte), count)
    }
}
