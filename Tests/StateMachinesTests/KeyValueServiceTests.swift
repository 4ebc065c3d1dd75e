import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

/// Every operation of the client protocol's table, reply by reply, to the byte.
@Suite struct KeyValueServiceTests {
    private let store: TestStore
    private let service: KeyValueService

    init() throws {
        store = try TestStore(maxRequest: 4096)
        service = KeyValueService(in: store.transaction)
    }

    private func apply(_ command: [UInt8]) throws -> [UInt8] {
        let reason = withBytes(command) { KeyValueService.validate($0, as: .submit) }
        #expect(reason == nil)
        return try store.apply(command, to: service)
    }

    private func query(_ query: [UInt8]) -> [UInt8] {
        let reason = withBytes(query) { KeyValueService.validate($0, as: .query) }
        #expect(reason == nil)
        return store.query(query, of: service)
    }

    private func text(_ tag: UInt8, _ text: String) -> [UInt8] { [tag] + Array(text.utf8) }

    @Test func putRepliesWhatItReplaced() throws {
        #expect(try apply(Body.put("k", "one")) == [0])
        #expect(try apply(Body.put("k", "two")) == text(1, "one"))
        #expect(try apply(Body.put("k", "longer than two")) == text(1, "two"))
        #expect(try apply(Body.put("k", "")) == text(1, "longer than two"))
        #expect(try apply(Body.put("k", "x")) == [1])
        #expect(service.count(in: store.transaction) == 1)
    }

    /// Long values are not copied into the reply: a put writes the new value alone, whether its length changes or not.
    @Test(arguments: [256, 1000, 4000])
    func longValuesAreGivenUpForTheReply(size: Int) throws {
        func value(_ byte: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: byte, count: count) }
        _ = try apply(Body.put("a key", value(1, size)))
        store.transaction.commit()
        let used = store.heap.usedBytes
        for (round, next) in [size, size, size - 1, size, size + 30, size].enumerated() {
            let before = query(Body.get("a key"))
            let room = store.transaction.journalRoom
            #expect(try apply(Body.put("a key", value(UInt8(round + 2), next))) == before)
            #expect(store.dirtyLines(since: room) <= next / 64 + 20)
            #expect(query(Body.get("a key")) == [1] + value(UInt8(round + 2), next))
            store.transaction.commit()
            _ = try store.heap.verify()
        }
        #expect(store.heap.usedBytes == used)
        #expect(try apply(Body.delete("a key")) == [1] + value(7, size))
        #expect(query(Body.get("a key")) == [0])
        #expect(store.heap.usedBytes < used - UInt64(size))
        _ = try store.heap.verify()
    }

    @Test func getIsACommandAndAQuery() throws {
        #expect(try apply(Body.get("k")) == [0])
        #expect(query(Body.get("k")) == [0])
        _ = try apply(Body.put("k", "value"))
        #expect(try apply(Body.get("k")) == text(1, "value"))
        #expect(query(Body.get("k")) == text(1, "value"))
        #expect(query(Body.get("K")) == [0])
    }

    @Test func keysAndValuesAreAnyBytes() throws {
        let key: [UInt8] = [0, 255, 0, 10]
        #expect(try apply(Body.put(key, [0, 0])) == [0])
        #expect(query(Body.make("G", key: key)) == [1, 0, 0])
        #expect(query(Body.make("G", key: [0, 255, 0])) == [0])
        let longest = [UInt8](repeating: 7, count: 1024)
        #expect(try apply(Body.put(longest, [1])) == [0])
        #expect(query(Body.make("G", key: longest)) == [1, 1])
    }

    @Test func deleteRepliesWhatItRemoved() throws {
        #expect(try apply(Body.delete("k")) == [0])
        _ = try apply(Body.put("k", "v"))
        #expect(try apply(Body.delete("k")) == text(1, "v"))
        #expect(try apply(Body.delete("k")) == [0])
        #expect(query(Body.get("k")) == [0])
        #expect(service.count(in: store.transaction) == 0)
    }

    @Test func compareAndSwapComparesPresenceAndBytes() throws {
        #expect(try apply(Body.swap("k", expecting: "v", to: "w")) == [0, 0])
        #expect(query(Body.get("k")) == [0])
        #expect(try apply(Body.swap("k", expecting: nil, to: "v")) == text(1, "v"))
        #expect(try apply(Body.swap("k", expecting: nil, to: "w")) == [0, 1] + Array("v".utf8))
        #expect(try apply(Body.swap("k", expecting: "", to: "w")) == [0, 1] + Array("v".utf8))
        #expect(try apply(Body.swap("k", expecting: "v1", to: "w")) == [0, 1] + Array("v".utf8))
        #expect(query(Body.get("k")) == text(1, "v"))
        #expect(try apply(Body.swap("k", expecting: "v", to: "longer")) == text(1, "longer"))
        #expect(try apply(Body.swap("k", expecting: "longer", to: "")) == [1])
        // Present and empty is not absent.
        #expect(try apply(Body.swap("k", expecting: nil, to: "w")) == [0, 1])
        #expect(try apply(Body.swap("k", expecting: "", to: "w")) == text(1, "w"))
        #expect(query(Body.get("k")) == text(1, "w"))
    }

    @Test func appendRepliesTheLengthAfter() throws {
        #expect(try apply(Body.append("k", "ab")) == [1] + UInt64(2).littleEndianBytes)
        #expect(try apply(Body.append("k", "cde")) == [1] + UInt64(5).littleEndianBytes)
        #expect(try apply(Body.append("k", "")) == [1] + UInt64(5).littleEndianBytes)
        #expect(query(Body.get("k")) == text(1, "abcde"))
        #expect(try apply(Body.append("empty", "")) == [1] + UInt64(0).littleEndianBytes)
        #expect(query(Body.get("empty")) == [1])
    }

    @Test func appendStopsAtTheLargestValue() throws {
        let value = [UInt8](repeating: 1, count: 4000)
        _ = try apply(Body.put("k", value))
        #expect(try apply(Body.append("k", [UInt8](repeating: 2, count: 96))) == [1] + UInt64(4096).littleEndianBytes)
        let refused = try apply(Body.append("k", [3]))
        #expect(refused.first == 2 && refused.count > 1)
        #expect(String(validating: refused.dropFirst(), as: UTF8.self) != nil)
        #expect(query(Body.get("k")) == [1] + value + [UInt8](repeating: 2, count: 96))
        #expect(try apply(Body.append("k", [])) == [1] + UInt64(4096).littleEndianBytes)
    }

    @Test func addKeepsAnInt64() throws {
        #expect(try apply(Body.add("n", 5)) == [1] + Int64(5).littleEndianBytes)
        #expect(try apply(Body.add("n", -7)) == [1] + Int64(-2).littleEndianBytes)
        #expect(query(Body.get("n")) == [1] + Int64(-2).littleEndianBytes)
        _ = try apply(Body.put("n", Int64.max.littleEndianBytes))
        #expect(try apply(Body.add("n", 0)) == [1] + Int64.max.littleEndianBytes)
        #expect(try apply(Body.add("m", .min)) == [1] + Int64.min.littleEndianBytes)
    }

    @Test func addRefusesWhatItCannotAdd() throws {
        _ = try apply(Body.put("n", Int64.max.littleEndianBytes))
        _ = try apply(Body.put("seven", "1234567"))
        _ = try apply(Body.put("nine", "123456789"))
        let before = store.digest()
        for refused in [try apply(Body.add("n", 1)), try apply(Body.add("seven", 1)), try apply(Body.add("nine", 1))] {
            #expect(refused.first == 2 && refused.count > 1)
            #expect(String(validating: refused.dropFirst(), as: UTF8.self) != nil)
        }
        #expect(store.digest() == before)
    }

    @Test func scanFindsWhatBeginsWithThePrefix() throws {
        #expect(query(Body.scan("")) == [1, 0, 0, 0, 0, 0])
        for (key, value) in [("a", "1"), ("ab", "2"), ("abc", ""), ("b", "4")] { _ = try apply(Body.put(key, value)) }
        #expect(ScanReply(query(Body.scan("ab"))) == ScanReply(more: false, ["ab": "2", "abc": ""]))
        #expect(
            ScanReply(query(Body.scan("")))
                == ScanReply(more: false, ["a": "1", "ab": "2", "abc": "", "b": "4"]))
        #expect(query(Body.scan("zebra")) == [1, 0, 0, 0, 0, 0])
        #expect(
            query(Body.scan("b"))
                == [1, 0] + UInt32(1).littleEndianBytes + UInt32(1).littleEndianBytes + Array("b".utf8)
                + UInt32(1).littleEndianBytes + Array("4".utf8))
    }

    @Test func scanKeepsItsLimit() throws {
        for index in 0..<10 { _ = try apply(Body.put("key\(index)", "v")) }
        for limit in UInt32(1)...12 {
            let reply = try #require(ScanReply(query(Body.scan("key", limit: limit))))
            #expect(reply.entries.count == min(Int(limit), 10))
            #expect(reply.more == (limit < 10))
        }
    }

    @Test func scanFitsMaxRequest() throws {
        // 4,096 bytes: 6, and an entry each of 8 + 4 + 1,000.
        for index in 0..<6 { _ = try apply(Body.put("big\(index)", [UInt8](repeating: 1, count: 1000))) }
        let reply = query(Body.scan(""))
        #expect(reply.count <= 4096)
        #expect(ScanReply(reply)?.entries.count == 4)
        #expect(ScanReply(reply)?.more == true)
    }

    @Test func scanShowsSmallEntriesBesideOneThatCannotFit() throws {
        _ = try apply(Body.put("huge", [UInt8](repeating: 1, count: 4085)))
        for index in 0..<20 { _ = try apply(Body.put("small\(index)", "v")) }
        let reply = try #require(ScanReply(query(Body.scan(""))))
        #expect(reply.more)
        #expect(reply.entries.count == 20)
    }

    /// Whatever can be stored, under whatever key, comes with a scan, if alone.
    @Test(arguments: [1, 4, 1024], [4096, 4095, 4082, 4081, 4078, 3058, 3057])
    func scanShowsTheLargestEntry(keyCount: Int, valueCount: Int) throws {
        let key = [UInt8](repeating: 0x6B, count: keyCount)
        let value = [UInt8](repeating: 1, count: valueCount)
        // By two commands: a put of it would be above max_request itself.
        _ = try apply(Body.put(key, []))
        _ = try apply(Body.make("A", key: key, value))
        let alone = [UInt8(1), 0] + UInt32(1).littleEndianBytes + UInt32(keyCount).littleEndianBytes + key
        #expect(query(Body.scan("")) == alone + UInt32(valueCount).littleEndianBytes + value)
        #expect(query(Body.make("S", key: key, UInt32(0).littleEndianBytes)) == query(Body.scan("")))
        _ = try apply(Body.put([UInt8](repeating: 0x6C, count: 1024), []))
        _ = try apply(Body.make("A", key: [UInt8](repeating: 0x6C, count: 1024), [UInt8](repeating: 2, count: 4096)))
        #expect(query(Body.make("S", key: key, UInt32(0).littleEndianBytes)) == query(Body.scan("k")))
        let reply = try #require(ScanReply(query(Body.scan(""))))
        #expect(reply.more && reply.entries.count == 1)
    }

    @Test func scanFillsMaxRequestToTheByte() throws {
        _ = try apply(Body.put("full", [UInt8](repeating: 1, count: 4096 - 6 - 8 - 4)))
        #expect(query(Body.scan("")).count == 4096)
        #expect(ScanReply(query(Body.scan("")))?.more == false)
    }

    @Test func aValueOfMaxRequestCanBePutReplacedAndRead() throws {
        let value = [UInt8](repeating: 9, count: 4096)
        _ = try apply(Body.append("k", value))
        #expect(query(Body.get("k")) == [1] + value)
        #expect(try apply(Body.swap("k", expecting: "no", to: "")) == [0, 1] + value)
        #expect(try apply(Body.put("k", "")) == [1] + value)
    }

    @Test func whatNoReplicaValidatesIsRefusedNotTrusted() throws {
        let reply = try store.apply([UInt8(ascii: "P"), 255, 255, 255, 255], to: service)
        #expect(reply.first == 2)
        #expect(store.query([], of: service).first == 2)
    }
}
