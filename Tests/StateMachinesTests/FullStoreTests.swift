import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

@Suite struct FullStoreTests {
    /// A store of 16 MiB, filled with values of one size until it refuses.
    private static func filled(valueSize: Int) throws -> (TestStore, KeyValueService, keys: Int) {
        let store = try TestStore(maxRequest: 1 << 17)
        let service = KeyValueService(in: store.transaction)
        var keys = 0
        let value = [UInt8](repeating: 1, count: valueSize)
        while true {
            do {
                _ = try store.apply(Body.put("key \(keys)", value), to: service)
                keys += 1
            } catch {
                #expect(error == Refusal.full)
                break
            }
            if keys % 100 == 0 { store.transaction.commit() }
            try #require(keys < 1_000_000)
        }
        store.transaction.commit()
        return (store, service, keys)
    }

    @Test(arguments: [100, 5000, 60_000])
    func readsOverwritesAndDeletesGoOn(valueSize: Int) throws {
        let (store, service, keys) = try Self.filled(valueSize: valueSize)
        let one = [UInt8](repeating: 1, count: valueSize)
        let two = [UInt8](repeating: 2, count: valueSize)
        #expect(keys * valueSize > 7 << 20)

        // Refused, with nothing changed, as often as it is tried.
        let digest = store.digest()
        for _ in 0..<3 {
            #expect(throws: Refusal.full) { try store.apply(Body.put("new", one), to: service) }
            #expect(throws: Refusal.full) { try store.apply(Body.append("new", one), to: service) }
            #expect(throws: Refusal.full) {
                try store.apply(Body.swap(Array("new".utf8), expecting: nil, to: one), to: service)
            }
            #expect(throws: Refusal.full) { try store.apply(Body.append("key 0", one), to: service) }
        }
        #expect(store.digest() == digest)
        #expect(store.query(Body.get("new"), of: service) == [0])
        #expect(store.query(Body.get("key 0"), of: service) == [1] + one)

        // Overwrites of the same size, and of less.
        for key in stride(from: 0, to: keys, by: max(1, keys / 100)) {
            #expect(try store.apply(Body.put("key \(key)", two), to: service) == [1] + one)
            let less = Array(two.dropLast())
            #expect(try store.apply(Body.put("key \(key)", less), to: service) == [1] + two)
            #expect(try store.apply(Body.put("key \(key)", two), to: service) == [1] + less)
            store.transaction.commit()
        }

        // What deletes free can be used again.
        for round in 0..<3 {
            for key in 0..<20 {
                #expect(try store.apply(Body.delete("key \(key)"), to: service).count == 1 + valueSize)
                store.transaction.commit()
            }
            for key in 0..<20 {
                #expect(try store.apply(Body.put("key \(key)", one), to: service) == [0], "round \(round)")
                store.transaction.commit()
            }
        }
        #expect(service.count(in: store.transaction) == keys)
        _ = try store.heap.verify()
    }

    @Test func everythingCanBeDeletedAndUsedForOtherSizes() throws {
        let (store, service, keys) = try Self.filled(valueSize: 300)
        for key in 0..<keys {
            #expect(try store.apply(Body.delete("key \(key)"), to: service).first == 1)
            if key % 100 == 0 { store.transaction.commit() }
        }
        #expect(service.count(in: store.transaction) == 0)
        let value = [UInt8](repeating: 3, count: 60_000)
        var large = 0
        while large < 150 {
            #expect(try store.apply(Body.put("large \(large)", value), to: service) == [0])
            store.transaction.commit()
            large += 1
        }
        _ = try store.heap.verify()
    }

    @Test(arguments: [100, 1000, 5000])
    func holesOfOneSizeCanBeUsedForThatSize(valueSize: Int) throws {
        let (store, service, keys) = try Self.filled(valueSize: valueSize)
        for key in stride(from: 0, to: keys, by: 2) {
            _ = try store.apply(Body.delete("key \(key)"), to: service)
            store.transaction.commit()
        }
        // Larger values, for which no hole will do, take what else there is.
        let larger = [UInt8](repeating: 2, count: valueSize * 3 / 2)
        var count = 0
        while (try? store.apply(Body.put("larger \(count)", larger), to: service)) != nil {
            store.transaction.commit()
            count += 1
        }
        let value = [UInt8](repeating: 3, count: valueSize)
        for key in stride(from: 0, to: keys / 2, by: 2) {
            #expect(try store.apply(Body.put("key \(key)", value), to: service) == [0])
            store.transaction.commit()
        }
    }

    @Test func aRefusedFirstKeyLeavesNothingBehind() throws {
        let store = try TestStore()
        let dictionary = PersistentDictionary(at: store.transaction.rootSlot(0))
        let eater = PersistentDictionary(at: store.transaction.rootSlot(1))
        // Leave room for neither an entry nor buckets, in steps that get ever smaller.
        for size in [60_000, 5000, 400, 60, 8] {
            var index = 0
            while true {
                let key = Array("\(size) \(index)".utf8)
                store.transaction.beginCommand()
                do throws(Refusal) {
                    try withBytes(key) { (key) throws(Refusal) in
                        try withBytes([UInt8](repeating: 0, count: size)) { (value) throws(Refusal) in
                            try eater.setValue(value, for: key, in: store.transaction)
                        }
                    }
                } catch { break }
                store.transaction.commit()
                index += 1
            }
            store.transaction.rollbackCommand()
        }
        // Not rolled back: the dictionary itself must leave everything as it was.
        let before = store.heap.usedBytes
        #expect(throws: Refusal.full) {
            try withBytes([1]) { key in try dictionary.setValue(key, for: key, in: store.transaction) }
        }
        #expect(store.heap.usedBytes == before)
        #expect(dictionary.count(in: store.transaction) == 0)
        store.transaction.commit()
        _ = try store.heap.verify()
    }
}
