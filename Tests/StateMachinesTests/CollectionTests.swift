import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

@Suite struct CollectionTests {
    private struct Pair: BitwiseCopyable, Equatable {
        var first: UInt64
        var second: UInt64
    }

    @Test func arrayIsAnArray() throws {
        let store = try TestStore()
        let before = store.heap.usedBytes
        let array = PersistentArray<Pair>(at: store.transaction.rootSlot(0))
        var model: [Pair] = []
        var generator = SeededGenerator(seed: 3)
        for step in 0..<20_000 {
            // Grows in the first half, shrinks in the second.
            let grows = Int.random(in: 0..<100, using: &generator) < (step < 10_000 ? 60 : 35)
            if grows {
                let pair = Pair(first: UInt64(step), second: generator.next())
                try array.append(pair, in: store.transaction)
                model.append(pair)
            } else {
                #expect(array.removeLast(in: store.transaction) == model.popLast())
            }
            if let index = model.indices.randomElement(using: &generator) {
                #expect(array.get(index, in: store.transaction) == model[index])
                model[index].first = generator.next()
                array.set(index, to: model[index], in: store.transaction)
            }
            #expect(array.count(in: store.transaction) == model.count)
        }
        for index in model.indices { #expect(array.get(index, in: store.transaction) == model[index]) }
        array.removeAll(in: store.transaction)
        #expect(array.count(in: store.transaction) == 0)
        #expect(array.removeLast(in: store.transaction) == nil)
        #expect(store.heap.usedBytes == before)
        store.transaction.commit()
        _ = try store.heap.verify()
    }

    @Test func arrayFreesWhatItShrinksBy() throws {
        let store = try TestStore()
        let array = PersistentArray<UInt64>(at: store.transaction.rootSlot(0))
        for index in 0..<16 { try array.append(UInt64(index), in: store.transaction) }
        let small = store.heap.usedBytes
        for index in 16..<5000 { try array.append(UInt64(index), in: store.transaction) }
        #expect(store.heap.usedBytes > small + 4984 * 8)
        while array.count(in: store.transaction) > 16 { array.removeLast(in: store.transaction) }
        #expect(store.heap.usedBytes == small)
        #expect((0..<16).allSatisfy { array.get($0, in: store.transaction) == UInt64($0) })
    }

    @Test func queueIsAQueue() throws {
        let store = try TestStore()
        let before = store.heap.usedBytes
        let queue = PersistentQueue<Pair>(at: store.transaction.rootSlot(1))
        var model: [Pair] = []
        var generator = SeededGenerator(seed: 4)
        for step in 0..<20_000 {
            if Int.random(in: 0..<100, using: &generator) < (step / 5000 % 2 == 0 ? 60 : 40) {
                let pair = Pair(first: UInt64(step), second: generator.next())
                try queue.enqueue(pair, in: store.transaction)
                model.append(pair)
            } else {
                #expect(queue.dequeue(in: store.transaction) == (model.isEmpty ? nil : model.removeFirst()))
            }
            #expect(queue.first(in: store.transaction) == model.first)
            #expect(queue.count(in: store.transaction) == model.count)
        }
        while let element = queue.dequeue(in: store.transaction) { #expect(element == model.removeFirst()) }
        #expect(model.isEmpty)
        queue.removeAll(in: store.transaction)
        #expect(store.heap.usedBytes == before)
        try queue.enqueue(Pair(first: 1, second: 2), in: store.transaction)
        #expect(queue.dequeue(in: store.transaction) == Pair(first: 1, second: 2))
    }

    @Test func queueOfElementsLargerThanAChunk() throws {
        typealias Large = InlineArray<300, UInt64>
        let store = try TestStore()
        let queue = PersistentQueue<Large>(at: store.transaction.rootSlot(1))
        for index in 0..<5 { try queue.enqueue(Large(repeating: UInt64(index)), in: store.transaction) }
        for index in 0..<5 {
            let element = try #require(queue.dequeue(in: store.transaction))
            #expect(element[0] == UInt64(index) && element[299] == UInt64(index))
        }
        #expect(queue.count(in: store.transaction) == 0)
    }

    @Test func collectionsThrowWhenTheStoreIsFull() throws {
        let store = try TestStore()
        let array = PersistentArray<UInt64>(at: store.transaction.rootSlot(0))
        let queue = PersistentQueue<UInt64>(at: store.transaction.rootSlot(1))
        var hoard: [UInt64] = []
        for size in [1 << 20, 1 << 14, 1 << 10, 256, 16] {
            while let block = try? store.transaction.allocate(size) {
                hoard.append(block)
                store.transaction.commit()
            }
        }
        let full = store.heap.usedBytes
        for _ in 0..<2 {
            #expect(throws: Refusal.full) { try array.append(1, in: store.transaction) }
            #expect(throws: Refusal.full) { try queue.enqueue(1, in: store.transaction) }
        }
        #expect(store.heap.usedBytes == full)
        for block in hoard { store.transaction.free(block) }
        try array.append(1, in: store.transaction)
        try queue.enqueue(2, in: store.transaction)
        #expect(array.get(0, in: store.transaction) == 1)
        #expect(queue.first(in: store.transaction) == 2)
    }

    @Test func counterCounts() throws {
        let store = try TestStore()
        let counter = PersistentCounter(at: store.transaction.rootSlot(3) + 8)
        #expect(counter.value(in: store.transaction) == 0)
        #expect(counter.add(5, in: store.transaction) == 5)
        #expect(counter.addIfRepresentable(-7, in: store.transaction) == -2)
        #expect(counter.addIfRepresentable(.min, in: store.transaction) == nil)
        #expect(counter.value(in: store.transaction) == -2)
        counter.set(.max, in: store.transaction)
        #expect(counter.add(1, in: store.transaction) == .min)
    }

    @Test func handlesCanBeStored() throws {
        let store = try TestStore()
        let transaction = store.transaction
        let outer = PersistentArray<PersistentQueue<UInt64>>(at: transaction.rootSlot(0))
        for index in 0..<3 {
            let place = try transaction.allocate(PersistentQueue<UInt64>.footprint)
            transaction.mutableBytes(place, PersistentQueue<UInt64>.footprint)
                .initializeMemory(as: UInt8.self, repeating: 0)
            let inner = PersistentQueue<UInt64>(at: place)
            try inner.enqueue(UInt64(index), in: transaction)
            try outer.append(inner, in: transaction)
        }
        transaction.commit()
        try store.reopen()
        for index in 0..<3 {
            #expect(outer.get(index, in: store.transaction).first(in: store.transaction) == UInt64(index))
        }
    }
}
