import Glibc
import PersistentMemory
import Testing

@Suite struct HeapTests {
    @Test func reopensWithWhatWasCommitted() throws {
        let path = "/dev/shm/mpx-test-\(getpid())-first"
        unlink(path)
        defer { unlink(path) }
        try Pool.create(path: path, layout: "test-1", size: 32 << 20)
        var offset: UInt64 = 0
        do {
            let pool = try Pool(opening: path, layout: "test-1")
            try Heap.format(in: pool, progressSize: 4096)
            let heap = try Heap(opening: pool)
            let t = heap.transaction
            t.beginCommand()
            offset = try t.allocate(100)
            t.write(42 as UInt64, to: PersistentPointer(offset: offset))
            t.write(offset, to: PersistentPointer(offset: t.root))
            t.commit()
            t.beginCommand()
            t.write(43 as UInt64, to: PersistentPointer(offset: offset))
            _ = try heap.verify()
            pool.close()
        }
        let pool = try Pool(opening: path, layout: "test-1")
        let heap = try Heap(opening: pool)
        #expect(heap.replayedCommits == 1)
        #expect(heap.transaction.read(PersistentPointer<UInt64>(offset: heap.transaction.root)) == offset)
        #expect(heap.transaction.read(PersistentPointer<UInt64>(offset: offset)) == 42)
        #expect(try heap.verify().allocatedBlocks == 1)
    }
}
