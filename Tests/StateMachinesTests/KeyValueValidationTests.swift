import MPaxosStateMachines
import Testing

@Suite struct KeyValueValidationTests {
    private static func reason(_ body: [UInt8], as kind: CommandKind) -> String? {
        withBytes(body) { KeyValueService.validate($0, as: kind) }
    }

    private static let key: [UInt8] = [1, 2, 3]

    @Test(arguments: [
        Body.put("k", ""), Body.put("k", "v"), Body.get("k"), Body.delete("k"), Body.append("k", ""),
        Body.add("k", 1), Body.swap("k", expecting: nil, to: ""), Body.swap("k", expecting: "", to: ""),
        Body.swap("k", expecting: "x", to: "y"), Body.make("P", key: [UInt8](repeating: 0, count: 1024)),
    ])
    func commands(_ body: [UInt8]) {
        #expect(Self.reason(body, as: .submit) == nil)
        #expect((Self.reason(body, as: .query) == nil) == (body.first == UInt8(ascii: "G")))
    }

    @Test(arguments: [
        Body.get("k"), Body.scan(""), Body.scan("prefix", limit: .max),
        Body.make("S", key: [UInt8](repeating: 0, count: 1024), [0, 0, 0, 0]),
    ])
    func queries(_ body: [UInt8]) {
        #expect(Self.reason(body, as: .query) == nil)
        #expect((Self.reason(body, as: .submit) == nil) == (body.first == UInt8(ascii: "G")))
    }

    private static let malformedBodies: [(CommandKind, [UInt8])] = [
        (.submit, []), (.query, []),
        (.submit, [UInt8(ascii: "G")]), (.submit, [UInt8(ascii: "G"), 1, 0, 0]),
        // Unknown operations, small letters among them.
        (.submit, Body.make("X", key: key)), (.submit, Body.make("p", key: key)), (.query, Body.make("g", key: key)),
        (.submit, [0] + UInt32(1).littleEndianBytes + [1]),
        // Keys: empty, too long, overrunning.
        (.submit, Body.put([], [1])), (.submit, Body.make("G", key: [])), (.query, Body.make("G", key: [])),
        (.submit, Body.make("D", key: [])), (.submit, Body.swap([], expecting: nil, to: [])),
        (.submit, Body.make("A", key: [])), (.submit, Body.make("I", key: [], Int64(1).littleEndianBytes)),
        (.submit, Body.put([UInt8](repeating: 0, count: 1025), [])),
        (.query, Body.make("S", key: [UInt8](repeating: 0, count: 1025), [0, 0, 0, 0])),
        (.submit, [UInt8(ascii: "P"), 4, 0, 0, 0, 1, 2, 3]),
        (.submit, [UInt8(ascii: "P"), 255, 255, 255, 255, 1, 2, 3]),
        (.submit, [UInt8(ascii: "P"), 0, 0, 0, 128, 1, 2, 3]),
        // Bytes where none belong.
        (.submit, Body.make("G", key: key, [0])), (.query, Body.make("G", key: key, [0])),
        (.submit, Body.make("D", key: key, [0])),
        // Compare and swap.
        (.submit, Body.make("C", key: key)), (.submit, Body.make("C", key: key, [1])),
        (.submit, Body.make("C", key: key, [1, 0, 0, 0])), (.submit, Body.make("C", key: key, [2, 0, 0, 0, 0])),
        (.submit, Body.make("C", key: key, [255, 0, 0, 0, 0])),
        (.submit, Body.make("C", key: key, [0, 1, 0, 0, 0, 1])),
        (.submit, Body.make("C", key: key, [1, 3, 0, 0, 0, 1, 2])),
        (.submit, Body.make("C", key: key, [1, 255, 255, 255, 255, 1, 2])),
        // Add.
        (.submit, Body.make("I", key: key)), (.submit, Body.make("I", key: key, [UInt8](repeating: 0, count: 7))),
        (.submit, Body.make("I", key: key, [UInt8](repeating: 0, count: 9))),
        // Scan.
        (.query, Body.make("S", key: key)), (.query, Body.make("S", key: key, [0, 0, 0])),
        (.query, Body.make("S", key: key, [0, 0, 0, 0, 0])),
        // The other way.
        (.submit, Body.scan("k")), (.query, Body.put("k", "v")), (.query, Body.delete("k")),
        (.query, Body.append("k", "v")), (.query, Body.add("k", 1)),
        (.query, Body.swap("k", expecting: nil, to: "v")),
    ]

    @Test(arguments: malformedBodies)
    func rejected(_ kind: CommandKind, _ body: [UInt8]) throws {
        let reason = try #require(Self.reason(body, as: kind))
        #expect(!reason.isEmpty)
    }
}
