import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

/// What the key-value service has to do, said once more in ordinary Swift.
private struct Model: Equatable {
    var values: [[UInt8]: [UInt8]] = [:]
    let maxRequest: Int

    enum Operation {
        case put([UInt8])
        case get, delete
        case swap([UInt8]?, [UInt8])
        case append([UInt8])
        case add(Int64)
    }

    /// The reply; nil where it is any refusal.
    mutating func apply(_ operation: Operation, to key: [UInt8]) -> [UInt8]? {
        let old = values[key]
        let found = old.map { [1] + $0 } ?? [0]
        switch operation {
        case .put(let value):
            values[key] = value
            return found
        case .get:
            return found
        case .delete:
            values[key] = nil
            return found
        case .swap(let expected, let value):
            guard expected == old else { return [0] + (old == nil ? [0] : found) }
            values[key] = value
            return [1] + value
        case .append(let suffix):
            let value = (old ?? []) + suffix
            guard value.count <= maxRequest else { return nil }
            values[key] = value
            return [1] + UInt64(value.count).littleEndianBytes
        case .add(let delta):
            let bytes = old ?? Int64(0).littleEndianBytes
            guard bytes.count == 8 else { return nil }
            let number = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let (sum, overflow) = Int64(bitPattern: number).addingReportingOverflow(delta)
            guard !overflow else { return nil }
            values[key] = sum.littleEndianBytes
            return [1] + sum.littleEndianBytes
        }
    }

    static func body(_ operation: Operation, key: [UInt8]) -> [UInt8] {
        switch operation {
        case .put(let value): Body.put(key, value)
        case .get: Body.make("G", key: key)
        case .delete: Body.make("D", key: key)
        case .swap(let expected, let value): Body.swap(key, expecting: expected, to: value)
        case .append(let suffix): Body.make("A", key: key, suffix)
        case .add(let delta): Body.make("I", key: key, delta.littleEndianBytes)
        }
    }
}

@Suite struct KeyValueModelTests {
    private static func bytes(below limit: Int, using generator: inout SeededGenerator) -> [UInt8] {
        // Mostly short, sometimes long: both sides of every size class.
        let length =
            Int.random(in: 0..<20, using: &generator) == 0
            ? Int.random(in: 0..<limit, using: &generator) : Int.random(in: 0..<40, using: &generator)
        return (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    private static func operation(on old: [UInt8]?, using generator: inout SeededGenerator) -> Model.Operation {
        switch Int.random(in: 0..<12, using: &generator) {
        case 0...2: return .put(bytes(below: 2000, using: &generator))
        case 3: return .put([UInt8](repeating: 1, count: old?.count ?? 8))
        case 4: return .get
        case 5...6: return .delete
        case 7: return .swap(old, bytes(below: 300, using: &generator))
        case 8: return .swap([1, 2, 3], bytes(below: 300, using: &generator))
        case 9: return .append(bytes(below: 300, using: &generator))
        case 10: return .add(Int64.random(in: .min ... .max, using: &generator))
        default: return .add(1)
        }
    }

    @Test(arguments: [UInt64(1), 2, 3, 4])
    func randomCommandsWithRollbacksCommitsAndReopenings(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let maxRequest = 1500
        let keys = seed % 2 == 0 ? 5 : 400
        let store = try TestStore(maxRequest: maxRequest + 1000)
        let limited = try TestStore(maxRequest: maxRequest)
        for store in [store, limited] {
            var service = KeyValueService(in: store.transaction)
            var model = Model(maxRequest: store === limited ? maxRequest : maxRequest + 1000)
            var committed = model
            for step in 0..<8_000 {
                let key = [UInt8]("key \(Int.random(in: 0..<keys, using: &generator))".utf8)
                let operation = Self.operation(on: model.values[key], using: &generator)
                let body = Model.body(operation, key: key)
                switch Int.random(in: 0..<100, using: &generator) {
                case 0..<10:
                    store.applyAndRollBack(body, to: service)
                case 10..<13:
                    store.transaction.commit()
                    committed = model
                case 13 where step % 10 == 0:
                    // As after a crash: back to the last commit.
                    try store.reopen()
                    service = KeyValueService(in: store.transaction)
                    model = committed
                default:
                    let reply = try store.apply(body, to: service)
                    if let expected = model.apply(operation, to: key) {
                        try #require(reply == expected, "step \(step): \(operation)")
                    } else {
                        try #require(reply.first == 2, "step \(step): \(operation)")
                    }
                }
                try #require(service.count(in: store.transaction) == model.values.count)
            }
            for key in model.values.keys {
                let expected = model.values[key].map { [1] + $0 }
                #expect(store.query(Body.make("G", key: key), of: service) == expected)
            }
            _ = try store.heap.verify()
        }
    }

    @Test func emptiedStoresReturnTheirMemory() throws {
        let store = try TestStore()
        let service = KeyValueService(in: store.transaction)
        _ = try store.apply(Body.put("first", "v"), to: service)
        _ = try store.apply(Body.delete("first"), to: service)
        let before = store.heap.usedBytes
        for index in 0..<5000 { _ = try store.apply(Body.put("key \(index)", "value \(index)"), to: service) }
        let full = store.heap.usedBytes
        for index in 0..<5000 { _ = try store.apply(Body.delete("key \(index)"), to: service) }
        #expect(full > before + 5000 * 40)
        #expect(store.heap.usedBytes == before)
        _ = try store.heap.verify()
    }
}
