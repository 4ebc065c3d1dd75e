import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

/// Replicas execute the same commands, but commit at other places, take other commands back, and restart at other
/// times.
@Suite struct DeterminismTests {
    private static func commands(_ count: Int, seed: UInt64) -> [[UInt8]] {
        var generator = SeededGenerator(seed: seed)
        return (0..<count).map { _ in
            let key = "key \(Int.random(in: 0..<600, using: &generator))"
            let text = String(repeating: "x", count: Int.random(in: 0..<200, using: &generator))
            return switch Int.random(in: 0..<6, using: &generator) {
            case 0, 1: Body.put(key, text)
            case 2: Body.append(key, text)
            case 3: Body.swap(key, expecting: nil, to: text)
            case 4: Body.add("n \(key)", Int64.random(in: -9...9, using: &generator))
            default: Body.delete(key)
            }
        }
    }

    @Test func equalCommandsMakeEqualBytes() throws {
        let commands = Self.commands(6000, seed: 11)
        let strangers = Self.commands(100, seed: 12)
        var digests: [UInt64] = []
        var replies: [[[UInt8]]] = []
        for replica in 0..<3 {
            let store = try TestStore()
            var service = KeyValueService(in: store.transaction)
            var all: [[UInt8]] = []
            for (index, command) in commands.enumerated() {
                if replica > 0 && index % 7 == 0 {
                    store.applyAndRollBack(strangers[index % strangers.count], to: service)
                }
                all.append(try store.apply(command, to: service))
                if index % [1, 50, 333][replica] == 0 { store.transaction.commit() }
                if replica == 2 && index % 999 == 0 {
                    store.transaction.commit()
                    try store.reopen()
                    service = KeyValueService(in: store.transaction)
                }
                if replica == 0 && index % 100 == 0 { _ = store.query(Body.scan("key"), of: service) }
            }
            digests.append(store.digest())
            replies.append(all)
        }
        #expect(digests[1] == digests[0] && digests[2] == digests[0])
        #expect(replies[1] == replies[0] && replies[2] == replies[0])
    }

    @Test func otherCommandsMakeOtherBytes() throws {
        let digests = try (0..<2).map { extra in
            let store = try TestStore()
            let service = KeyValueService(in: store.transaction)
            for command in Self.commands(100, seed: 5) { _ = try store.apply(command, to: service) }
            if extra == 1 { _ = try store.apply(Body.put("one", "more"), to: service) }
            return store.digest()
        }
        #expect(digests[0] != digests[1])
    }
}
