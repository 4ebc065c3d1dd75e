import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

@Suite struct PersistentDictionaryTests {
    private static func set(
        _ key: [UInt8], _ value: [UInt8], in dictionary: PersistentDictionary, _ transaction: Transaction
    ) throws(Refusal) {
        try withBytes(key) { (key) throws(Refusal) in
            try withBytes(value) { (value) throws(Refusal) in
                try dictionary.setValue(value, for: key, in: transaction)
            }
        }
    }

    private static func get(_ key: [UInt8], in dictionary: PersistentDictionary, _ transaction: Transaction) -> [UInt8]?
    {
        withBytes(key) { key in dictionary.value(for: key, in: transaction).map { Array($0) } }
    }

    /// Grows to 100,000 keys and shrinks to none; no step may write more than a few lines, or resizing would stall
    /// commands.
    @Test func growsAndShrinksInBoundedSteps() throws {
        let store = try TestStore(megabytes: 32)
        let transaction = store.transaction
        let dictionary = PersistentDictionary(at: transaction.rootSlot(0))
        let keys = 100_000
        var mostLines = 0
        transaction.commit()
        let room = transaction.journalRoom
        for index in 0..<keys {
            let key = UInt64(index).littleEndianBytes
            try Self.set(key, key, in: dictionary, transaction)
            mostLines = max(mostLines, store.dirtyLines(since: room))
            transaction.commit()
            if (index & (index + 1)) == 0 || index == keys - 1 {
                for probe in stride(from: 0, through: index, by: max(1, index / 500)) {
                    let key = UInt64(probe).littleEndianBytes
                    #expect(Self.get(key, in: dictionary, transaction) == key)
                }
                #expect(Self.get(UInt64(index + 1).littleEndianBytes, in: dictionary, transaction) == nil)
                #expect(dictionary.count(in: transaction) == index + 1)
            }
        }
        var seen = Set<[UInt8]>()
        dictionary.forEach(in: transaction) { key, value in
            seen.insert(Array(key)).inserted && key.elementsEqual(value)
        }
        #expect(seen.count == keys)
        for index in 0..<keys {
            let removed = withBytes(UInt64(index).littleEndianBytes) {
                dictionary.removeValue(for: $0, in: transaction)
            }
            #expect(removed)
            mostLines = max(mostLines, store.dirtyLines(since: room))
            transaction.commit()
        }
        #expect(dictionary.count(in: transaction) == 0)
        #expect(mostLines < 64)
        _ = try store.heap.verify()
    }

    @Test func removeAllFreesEverything() throws {
        let store = try TestStore()
        let before = store.heap.usedBytes
        let dictionary = PersistentDictionary(at: store.transaction.rootSlot(2))
        for _ in 0..<2 {
            for index in 0..<1000 {
                try Self.set(UInt64(index).littleEndianBytes, [1], in: dictionary, store.transaction)
            }
            #expect(dictionary.count(in: store.transaction) == 1000)
            dictionary.removeAll(in: store.transaction)
            #expect(dictionary.count(in: store.transaction) == 0)
            #expect(Self.get(UInt64(0).littleEndianBytes, in: dictionary, store.transaction) == nil)
            #expect(store.heap.usedBytes == before)
        }
        dictionary.removeAll(in: store.transaction)
        #expect(store.heap.usedBytes == before)
    }

    @Test func theEmptyKeyAndTheEmptyValueAreOnesLikeOthers() throws {
        let store = try TestStore()
        let dictionary = PersistentDictionary(at: store.transaction.rootSlot(0))
        #expect(Self.get([], in: dictionary, store.transaction) == nil)
        try Self.set([], [], in: dictionary, store.transaction)
        try Self.set([0], [1], in: dictionary, store.transaction)
        #expect(Self.get([], in: dictionary, store.transaction) == [])
        #expect(Self.get([0], in: dictionary, store.transaction) == [1])
        #expect(Self.get([0, 0], in: dictionary, store.transaction) == nil)
    }

    @Test func appendingByteByByteDoesNotCopyTheValueEachTime() throws {
        let store = try TestStore()
        let transaction = store.transaction
        let dictionary = PersistentDictionary(at: transaction.rootSlot(0))
        let room = transaction.journalRoom
        var lines = 0
        let key: [UInt8] = [1]
        try withBytes(key) { key in
            for index in 0..<10_000 {
                try withBytes([UInt8(truncatingIfNeeded: index)]) { suffix in
                    let place = dictionary.locate(key, in: transaction)
                    try dictionary.append(suffix, for: key, at: place, in: transaction)
                }
                lines += store.dirtyLines(since: room)
                transaction.commit()
            }
        }
        #expect(Self.get(key, in: dictionary, transaction) == (0..<10_000).map { UInt8(truncatingIfNeeded: $0) })
        #expect(lines < 10_000 * 4)
    }

    @Test func aMuchShorterValueGivesMemoryBack() throws {
        let store = try TestStore()
        let dictionary = PersistentDictionary(at: store.transaction.rootSlot(0))
        try Self.set([1], [UInt8](repeating: 7, count: 50_000), in: dictionary, store.transaction)
        let before = store.heap.usedBytes
        try Self.set([1], [8], in: dictionary, store.transaction)
        #expect(Self.get([1], in: dictionary, store.transaction) == [8])
        #expect(store.heap.usedBytes + 49_000 < before)
    }

    @Test func valuesOfTheStoreCanBeStored() throws {
        let store = try TestStore()
        let transaction = store.transaction
        let dictionary = PersistentDictionary(at: transaction.rootSlot(0))
        try Self.set([1], [5, 6, 7], in: dictionary, transaction)
        try withBytes([1]) { one in
            let value = try #require(dictionary.value(for: one, in: transaction))
            try dictionary.setValue(value, for: value, in: transaction)
        }
        #expect(Self.get([5, 6, 7], in: dictionary, transaction) == [5, 6, 7])
    }

    /// Keys made to collide: the damage is one bucket's, and no step outgrows a commit.
    @Test func floodingClosesOneBucketOnly() throws {
        let store = try TestStore()
        let transaction = store.transaction
        let dictionary = PersistentDictionary(at: transaction.rootSlot(0))
        let room = transaction.journalRoom
        var mostLines = 0
        var flood: [[UInt8]] = []
        var candidate: UInt64 = 0
        // Equal in the low 12 bits: one bucket, as long as there are no more than 4,096.
        while flood.count < HashTable.longestChain + 10 {
            let key = candidate.littleEndianBytes
            if withBytes(key, { stableHash($0) }) & 0xfff == 0 { flood.append(key) }
            candidate += 1
        }
        var refused = 0
        for key in flood {
            do {
                try Self.set(key, [1], in: dictionary, transaction)
            } catch {
                #expect(error == Refusal.full)
                refused += 1
            }
            mostLines = max(mostLines, store.dirtyLines(since: room))
            transaction.commit()
        }
        #expect(refused == 10)
        var honest = 0
        for index in 0..<3000 {
            let key = Array("honest \(index)".utf8)
            do {
                try Self.set(key, [2], in: dictionary, transaction)
                honest += 1
            } catch {
                // Only what falls into the flooded bucket, of the 1,024 that there are at least.
                #expect(withBytes(key) { stableHash($0) } & 1023 == 0)
            }
            mostLines = max(mostLines, store.dirtyLines(since: room))
            transaction.commit()
        }
        #expect(honest > 2950)
        #expect(mostLines < 3 * HashTable.longestChain)
        for key in flood.prefix(HashTable.longestChain) {
            #expect(Self.get(key, in: dictionary, transaction) == [1])
            withBytes(key) { #expect(dictionary.removeValue(for: $0, in: transaction)) }
        }
        #expect(dictionary.count(in: transaction) == honest)
        _ = try store.heap.verify()
    }
}
