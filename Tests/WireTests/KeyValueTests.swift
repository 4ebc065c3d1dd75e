import MPaxosKeyValueFormat
import Testing

@Suite struct KeyValueTests {
    @Test func bodiesHaveTheBytesOfTheProtocol() {
        let k: [UInt8] = [0x6B, 0x31]
        #expect(KeyValueCommand.put(key: k, value: [7, 8]).body == [0x50, 2, 0, 0, 0, 0x6B, 0x31, 7, 8])
        #expect(KeyValueCommand.get(key: k).body == [0x47, 2, 0, 0, 0, 0x6B, 0x31])
        #expect(KeyValueCommand.delete(key: k).body == [0x44, 2, 0, 0, 0, 0x6B, 0x31])
        #expect(
            KeyValueCommand.compareAndSwap(key: k, expected: [9], new: [5, 6]).body
                == [0x43, 2, 0, 0, 0, 0x6B, 0x31, 1, 1, 0, 0, 0, 9, 5, 6])
        #expect(
            KeyValueCommand.compareAndSwap(key: k, expected: [], new: [5]).body
                == [0x43, 2, 0, 0, 0, 0x6B, 0x31, 1, 0, 0, 0, 0, 5])
        #expect(
            KeyValueCommand.compareAndSwap(key: k, expected: nil, new: [5]).body
                == [0x43, 2, 0, 0, 0, 0x6B, 0x31, 0, 0, 0, 0, 0, 5])
        #expect(KeyValueCommand.append(key: k, bytes: [3]).body == [0x41, 2, 0, 0, 0, 0x6B, 0x31, 3])
        #expect(
            KeyValueCommand.add(key: k, delta: -2).body
                == [0x49, 2, 0, 0, 0, 0x6B, 0x31, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(KeyValueCommand.scan(prefix: [], limit: 258).body == [0x53, 0, 0, 0, 0, 2, 1, 0, 0])
    }

    /// What clients write is what the service reads.
    @Test func requestsSayWhatCommandsSaid() throws {
        let key: [UInt8] = [1, 2, 3]
        let commands: [KeyValueCommand] = [
            .put(key: key, value: [4]), .put(key: key, value: []), .get(key: key), .delete(key: key),
            .compareAndSwap(key: key, expected: nil, new: [5]), .compareAndSwap(key: key, expected: [], new: []),
            .compareAndSwap(key: key, expected: [6, 7], new: [8]), .append(key: key, bytes: [9]),
            .add(key: key, delta: .min), .scan(prefix: key, limit: 10), .scan(prefix: [], limit: 0),
        ]
        for command in commands {
            try command.body.withUnsafeBytes { body in
                let request = try KeyValueRequest(body, isQuery: command.isQuery)
                #expect(said(by: request) == command)
                #expect(KeyValueRequest.key(of: body).map { Array($0) } == Array(request.key))
            }
        }
    }

    private func said(by request: KeyValueRequest) -> KeyValueCommand {
        let key = Array(request.key)
        return switch request.operation {
        case .put(let value): .put(key: key, value: Array(value))
        case .get: .get(key: key)
        case .delete: .delete(key: key)
        case .compareAndSwap(let expected, let value):
            .compareAndSwap(key: key, expected: expected.map { Array($0) }, new: Array(value))
        case .append(let suffix): .append(key: key, bytes: Array(suffix))
        case .add(let delta): .add(key: key, delta: delta)
        case .scan(let limit): .scan(prefix: key, limit: limit)
        }
    }

    static let replies: [(KeyValueCommand.Operation, [UInt8], KeyValueReply)] = [
        (.put, [0], .absent),
        (.put, [1], .value([])),
        (.put, [1, 5, 6], .value([5, 6])),
        (.get, [0], .absent),
        (.get, [1, 5], .value([5])),
        (.delete, [0], .absent),
        (.delete, [1, 5], .value([5])),
        (.compareAndSwap, [1, 5, 6], .swapped([5, 6])),
        (.compareAndSwap, [0, 0], .notSwapped(found: nil)),
        (.compareAndSwap, [0, 1], .notSwapped(found: [])),
        (.compareAndSwap, [0, 1, 9], .notSwapped(found: [9])),
        (.append, [1, 2, 1, 0, 0, 0, 0, 0, 0], .length(258)),
        (.add, [1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], .sum(-2)),
        (.scan, [1, 0, 0, 0, 0, 0], .entries([], more: false)),
        (
            .scan, [1, 1, 2, 0, 0, 0, 1, 0, 0, 0, 7, 2, 0, 0, 0, 8, 9, 1, 0, 0, 0, 6, 0, 0, 0, 0],
            .entries([KeyValueEntry(key: [7], value: [8, 9]), KeyValueEntry(key: [6], value: [])], more: true)
        ),
        (.add, [2, 0x68, 0x69], .refused("hi")),
        (.append, [2], .refused("")),
    ]

    @Test func repliesDecode() throws {
        for (operation, bytes, expected) in Self.replies {
            #expect(try KeyValueReply(decoding: bytes, of: operation) == expected)
        }
    }

    @Test func otherBytesAreNoReplies() {
        let bad: [(KeyValueCommand.Operation, [UInt8])] = [
            (.put, []), (.put, [0, 1]), (.put, [3]), (.get, [0x30]), (.get, [0, 0]),
            (.compareAndSwap, [0]), (.compareAndSwap, [0, 2]), (.compareAndSwap, [0, 0, 1]),
            (.append, [0]), (.append, [1, 1, 2, 3]), (.append, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), (.add, [1]),
            (.scan, [0]), (.scan, [1, 2, 0, 0, 0, 0]), (.scan, [1, 0, 1, 0, 0, 0]),
            (.scan, [1, 0, 0xFF, 0xFF, 0xFF, 0xFF]),
            (.scan, [1, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
            (.scan, [1, 0, 0, 0, 0, 0, 7]),
        ]
        for (operation, bytes) in bad {
            #expect(throws: KeyValueError.self, "\(operation) \(bytes)") {
                try KeyValueReply(decoding: bytes, of: operation)
            }
        }
    }

    @Test func mutatedRepliesNeverTrap() {
        var random = SeededRandom(seed: 31)
        var refused = 0
        for _ in 0..<20_000 {
            let (operation, bytes, _) = Self.replies.randomElement(using: &random)!
            do {
                _ = try KeyValueReply(decoding: mutated(bytes, using: &random), of: operation)
            } catch {
                #expect(!error.description.isEmpty)
                refused += 1
            }
        }
        #expect(refused > 3000)
    }
}
