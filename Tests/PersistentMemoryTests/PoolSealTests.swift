import Glibc
import MPaxosPersistentMemory
import Testing

/// Damage to what libpmemobj keeps in a file is found before libpmemobj sees it: it would crash, or loop for ever.
@Suite struct PoolSealTests {
    /// In the descriptor: where the root is and its size. Logs of lanes: 0x2ce1 and 0x1a1000 ended in SIGSEGV in
    /// `pmemobj_open`.
    @Test(arguments: [6144, 6160, 6200, 0x2ce1, 0x3000, 0x1a1000, 0x300000])
    func damageInFrontOfTheRegion(offset: Int) throws {
        let file = TemporaryPool()
        try file.format()
        change(file.path, at: offset, count: 64)
        #expect { _ = try file.open() } throws: { ($0 as? PoolError)?.kind == .damaged }
    }

    @Test func anywhereInFrontOfTheRegion() throws {
        let file = TemporaryPool()
        try file.format()
        let pool = try file.open()
        let region = pool.fileOffsetOfRegion
        pool.close()
        var random = CrashModel.Seeded(seed: 3)
        for _ in 0..<200 {
            let offset = 8192 + random.below(region - 8192)
            change(file.path, at: offset, count: 1)
            #expect { _ = try file.open() } throws: { ($0 as? PoolError)?.kind == .damaged }
            change(file.path, at: offset, count: 1)
        }
        try file.open().close()
    }

    /// Inverts bytes; twice is not at all.
    private func change(_ path: String, at offset: Int, count: Int) {
        let file = open(path, O_RDWR)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: count)
        precondition(pread(file, &bytes, count, off_t(offset)) == count)
        for index in bytes.indices { bytes[index] ^= 0xFF }
        precondition(pwrite(file, bytes, count, off_t(offset)) == count)
    }
}
