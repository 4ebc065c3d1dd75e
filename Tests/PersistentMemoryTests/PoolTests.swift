import Glibc
import MPaxosPersistentMemory
import Testing

@Suite struct PoolTests {
    private func kind(of body: () throws -> Void) -> PoolError.Kind? {
        do {
            try body()
            return nil
        } catch {
            return (error as? PoolError)?.kind
        }
    }

    @Test func theFileIsReallyAllocated() throws {
        let file = TemporaryPool()
        try Pool.create(path: file.path, layout: "test-1", size: 64 << 20)
        var status = stat()
        #expect(stat(file.path, &status) == 0)
        #expect(status.st_size == 64 << 20)
        #expect(status.st_blocks * 512 >= 64 << 20)
    }

    @Test func theRegionIsPageAlignedZeroAndMostOfTheFile() throws {
        let file = TemporaryPool()
        try Pool.create(path: file.path, layout: "test-1", size: 32 << 20)
        let pool = try file.open()
        #expect(UInt(bitPattern: pool.region.baseAddress!) % 4096 == 0)
        #expect(pool.region.count > 27 << 20)
        #expect(pool.region.count % 4096 == 0)
        #expect(pool.durability == .emulated)
        let words = UnsafeRawBufferPointer(pool.region).bindMemory(to: UInt64.self)
        #expect(words.allSatisfy { $0 == 0 })

        // The file offset must be that of the mapping: a second mapping is made by it.
        pool.region.storeBytes(of: 0x1234_5678, toByteOffset: 8192, as: UInt64.self)
        var word: UInt64 = 0
        #expect(pread(pool.fileDescriptor, &word, 8, off_t(pool.fileOffsetOfRegion + 8192)) == 8)
        #expect(word == 0x1234_5678)
    }

    @Test func whatIsNotAWholePoolIsRefused() throws {
        let file = TemporaryPool()
        #expect(kind { _ = try file.open() } == .missing)
        try Pool.create(path: file.path, layout: "test-1", size: 16 << 20)
        #expect(kind { try Pool.create(path: file.path, layout: "test-1", size: 16 << 20) } == .exists)
        #expect(kind { _ = try Pool(opening: file.path, layout: "other-1") } == .foreign)
        #expect(kind { _ = try Pool(opening: file.path, layout: "test") } == .foreign)
        for length in [(16 << 20) - 4096, 8 << 20, 5000, 4096, 100, 1, 0] {
            truncate(file.path, off_t(length))
            #expect(kind { _ = try file.open() } == .damaged, "\(length) bytes")
        }
        truncate(file.path, 16 << 20)
        #expect(kind { _ = try file.open() } == .foreign, "a hole in place of the content")
        #expect(kind { _ = try Pool(opening: "/dev/shm", layout: "test-1") } != nil)
        #expect(kind { _ = try Pool(opening: "/dev/null", layout: "test-1") } == .foreign)
    }

    @Test func aDamagedHeaderIsRefused() throws {
        let file = TemporaryPool()
        try Pool.create(path: file.path, layout: "test-1", size: 16 << 20)
        let descriptor = open(file.path, O_RDWR)
        var byte: UInt8 = 0xff
        pwrite(descriptor, &byte, 1, 40)
        close(descriptor)
        #expect(kind { _ = try file.open() } == .damaged)
    }

    @Test func aPoolInUseIsRefused() throws {
        let file = TemporaryPool()
        try Pool.create(path: file.path, layout: "test-1", size: 16 << 20)
        let first = try file.open()
        #expect(kind { _ = try file.open() } == .inUse)
        first.close()
        #expect(kind { _ = try file.open() } == nil)
    }

    @Test func impossibleSizesAreRefused() {
        for size in [0, 4096, (16 << 20) + 1, 16 << 30] {
            let file = TemporaryPool()
            #expect(kind { try Pool.create(path: file.path, layout: "test-1", size: size) } == .noSpace, "\(size)")
            #expect(access(file.path, F_OK) != 0)
        }
        #expect(
            kind { try Pool.create(path: "/dev/shm/no-such-folder/x", layout: "test-1", size: 16 << 20) } == .missing)
    }

    @Test func aPoolWithoutAHeapIsRefused() throws {
        let file = TemporaryPool()
        try Pool.create(path: file.path, layout: "test-1", size: 16 << 20)
        #expect(kind { _ = try Heap(opening: file.open()) } == .damaged)
    }

    @Test func aDamagedHeapHeaderIsRefused() throws {
        let file = TemporaryPool()
        try file.format(size: 16 << 20)
        for offset in [0, 8, 16, 24, 32, 40, 48, 56, 64] {
            let pool = try file.open()
            let old = pool.region.load(fromByteOffset: offset, as: UInt8.self)
            pool.region.storeBytes(of: old ^ 0x40, toByteOffset: offset, as: UInt8.self)
            #expect(kind { _ = try Heap(opening: pool) } == .damaged, "byte \(offset)")
            pool.region.storeBytes(of: old, toByteOffset: offset, as: UInt8.self)
        }
        #expect(kind { _ = try Heap(opening: file.open()) } == nil)
        #expect(kind { try Heap.format(in: file.open(), progressSize: 0) } == .exists)
    }

    @Test func messagesNameTheFile() {
        let file = TemporaryPool()
        do {
            _ = try file.open()
            Issue.record("opened a missing pool")
        } catch {
            #expect("\(error)".contains(file.path))
        }
    }

    /// On a disk: the same heap, made durable by msync.
    @Test func worksByMsyncOnADisk() throws {
        let file = TemporaryPool(in: FileManagerLess.folderOnDisk)
        try file.format(size: 16 << 20)
        var offset: UInt64 = 0
        do {
            let pool = try file.open()
            defer { pool.close() }
            if FileManagerLess.isOnDisk { #expect(pool.durability == .msync) }
            let heap = try Heap(opening: pool)
            offset = try heap.transaction.allocate(100_000)
            for round in 1...40 as ClosedRange<UInt8> {
                heap.transaction.fill(offset, 100_000, with: round)
                heap.transaction.commit()
            }
        }
        let pool = try file.open()
        defer { pool.close() }
        let heap = try Heap(opening: pool)
        #expect(heap.replayedCommits > 0)
        #expect(heap.transaction.bytes(offset, 100_000).allSatisfy { $0 == 40 })
        _ = try heap.verify()
    }
}

/// Where tests may write to a disk.
enum FileManagerLess {
    static let folderOnDisk = "/var/tmp"

    static var isOnDisk: Bool {
        let descriptor = open("/proc/mounts", O_RDONLY)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = read(descriptor, &bytes, bytes.count)
        let mounts = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
        return getenv("PMEM_IS_PMEM_FORCE") == nil && !mounts.contains("tmpfs /var/tmp")
            && !mounts.contains("tmpfs /var ")
            && !mounts.contains("tmpfs / ")
    }
}
