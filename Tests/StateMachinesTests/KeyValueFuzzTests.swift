import Glibc
import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

/// Bodies made of valid ones by chance, at the end of a page behind which nothing may be read: a read out of bounds
/// kills the test.
@Suite struct KeyValueFuzzTests {
    private static let seeds = [
        Body.put("key", "value"), Body.get("key"), Body.delete("key"),
        Body.swap("key", expecting: "value", to: "other"),
        Body.swap("key", expecting: nil, to: "other"), Body.append("key", "more"), Body.add("number", 1),
        Body.scan("k", limit: 3), Body.scan(""), Body.put("number", Int64(3).littleEndianBytes),
    ]

    private static func mutate(_ body: [UInt8], with generator: inout SeededGenerator) -> [UInt8] {
        var body = body
        for _ in 0..<Int.random(in: 0...4, using: &generator) {
            switch Int.random(in: 0..<7, using: &generator) {
            case 0 where !body.isEmpty:
                body[Int.random(in: 0..<body.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            case 1 where !body.isEmpty:
                body.removeLast(Int.random(in: 1...body.count, using: &generator))
            case 2:
                body += (0..<Int.random(in: 1...20, using: &generator)).map { _ in
                    UInt8.random(in: 0...3, using: &generator)
                }
            case 3 where body.count >= 5:
                let length = [0, 1, 2, 3, 4, 1023, 1024, 1025, UInt32(body.count), .max, 1 << 31].randomElement(
                    using: &generator)!
                body.replaceSubrange(1..<5, with: length.littleEndianBytes)
            case 4 where !body.isEmpty:
                body[0] = Array("PGDCAIS".utf8).randomElement(using: &generator)!
            case 5 where body.count >= 13:
                body.replaceSubrange(9..<13, with: UInt32.random(in: 0...20, using: &generator).littleEndianBytes)
            case 6 where !body.isEmpty:
                body.remove(at: Int.random(in: 0..<body.count, using: &generator))
            default:
                break
            }
        }
        return body
    }

    @Test func nothingOutsideTheBodyIsRead() throws {
        let page = 4096
        let pages = try #require(
            mmap(nil, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "no memory")
        defer { munmap(pages, 2 * page) }
        try #require(mprotect(pages + page, page, PROT_NONE) == 0)

        let store = try TestStore()
        let service = KeyValueService(in: store.transaction)
        var reply = Reply(maxRequest: 1 << 16)
        var generator = SeededGenerator(seed: 20_260_101)
        var accepted = 0
        var rejected = 0
        for _ in 0..<100_000 {
            let body = Self.mutate(Self.seeds.randomElement(using: &generator)!, with: &generator)
            guard body.count <= page else { continue }
            let start = pages + page - body.count
            UnsafeMutableRawBufferPointer(start: start, count: body.count).copyBytes(from: body)
            let bytes = UnsafeRawBufferPointer(start: start, count: body.count)
            for kind in [CommandKind.submit, .query] {
                let isValid = KeyValueService.validate(bytes, as: kind) == nil
                reply.removeAll()
                if kind == .submit {
                    store.transaction.beginCommand()
                    try service.apply(bytes, in: store.transaction, reply: &reply)
                    if let slice = reply.given { store.transaction.free(slice.block) }
                    store.transaction.commit()
                } else {
                    store.transaction.readOnly = true
                    service.query(bytes, in: store.transaction, reply: &reply)
                    store.transaction.readOnly = false
                }
                // What validation rejects is refused when executed all the same; what it passes has one of the replies.
                let tag = try #require(reply.bytes.first)
                #expect(isValid ? tag <= 2 : tag == 2)
                if isValid { accepted += 1 } else { rejected += 1 }
            }
        }
        #expect(accepted > 10_000 && rejected > 10_000)
        _ = try store.heap.verify()
    }

    /// Whatever another program ordered, a small store refuses or executes it.
    @Test func aSmallStoreTakesAnyBytes() throws {
        let store = try TestStore(megabytes: 4, maxRequest: 1 << 12, reserve: 1 << 18)
        let service = KeyValueService(in: store.transaction)
        var generator = SeededGenerator(seed: 20_260_102)
        var refused = 0
        for _ in 0..<20_000 {
            var body = Self.mutate(Self.seeds.randomElement(using: &generator)!, with: &generator)
            // Keys of their own, and values up to far beyond max_request, until the store is full and after.
            if Bool.random(using: &generator), body.count > 5 {
                body[5] = UInt8.random(in: 0...255, using: &generator)
                body += [UInt8](repeating: 7, count: Int.random(in: 0...20_000, using: &generator))
            }
            do {
                _ = try store.apply(body, to: service)
            } catch {
                refused += 1
            }
            _ = store.query(body, of: service)
        }
        #expect(refused > 100)
        _ = try store.heap.verify()
    }
}
