/// Bodies of the key-value service, written from the client protocol's table.
enum Body {
    static func make(_ operation: Character, key: [UInt8], _ rest: [UInt8] = []) -> [UInt8] {
        [operation.asciiValue!] + UInt32(key.count).littleEndianBytes + key + rest
    }

    static func put(_ key: String, _ value: String) -> [UInt8] { put(Array(key.utf8), Array(value.utf8)) }
    static func put(_ key: String, _ value: [UInt8]) -> [UInt8] { put(Array(key.utf8), value) }
    static func put(_ key: [UInt8], _ value: [UInt8]) -> [UInt8] { make("P", key: key, value) }
    static func get(_ key: String) -> [UInt8] { make("G", key: Array(key.utf8)) }
    static func delete(_ key: String) -> [UInt8] { make("D", key: Array(key.utf8)) }
    static func append(_ key: String, _ suffix: String) -> [UInt8] {
        make("A", key: Array(key.utf8), Array(suffix.utf8))
    }
    static func append(_ key: String, _ suffix: [UInt8]) -> [UInt8] { make("A", key: Array(key.utf8), suffix) }
    static func add(_ key: String, _ delta: Int64) -> [UInt8] {
        make("I", key: Array(key.utf8), delta.littleEndianBytes)
    }
    static func swap(_ key: String, expecting: String?, to value: String) -> [UInt8] {
        swap(Array(key.utf8), expecting: expecting.map { Array($0.utf8) }, to: Array(value.utf8))
    }
    static func swap(_ key: [UInt8], expecting: [UInt8]?, to value: [UInt8]) -> [UInt8] {
        let flag: [UInt8] = [expecting == nil ? 0 : 1]
        return make("C", key: key, flag + UInt32(expecting?.count ?? 0).littleEndianBytes + (expecting ?? []) + value)
    }
    static func scan(_ prefix: String, limit: UInt32 = 0) -> [UInt8] {
        make("S", key: Array(prefix.utf8), limit.littleEndianBytes)
    }
}

/// A scan's reply, taken apart.
struct ScanReply: Equatable {
    var more: Bool
    var entries: [[UInt8]: [UInt8]]

    /// Nil where the bytes are not exactly such a reply.
    init?(_ bytes: [UInt8]) {
        var rest = bytes[...]
        func integer(_ size: Int) -> Int? {
            guard rest.count >= size else { return nil }
            defer { rest = rest.dropFirst(size) }
            return rest.prefix(size).reversed().reduce(0) { $0 << 8 | Int($1) }
        }
        func run() -> [UInt8]? {
            guard let length = integer(4), rest.count >= length else { return nil }
            defer { rest = rest.dropFirst(length) }
            return Array(rest.prefix(length))
        }
        guard integer(1) == 1, let more = integer(1), more <= 1, let count = integer(4) else { return nil }
        self.more = more == 1
        entries = [:]
        for _ in 0..<count {
            guard let key = run(), let value = run(), entries.updateValue(value, forKey: key) == nil else { return nil }
        }
        guard rest.isEmpty else { return nil }
    }

    init(more: Bool, _ entries: [String: String]) {
        self.more = more
        self.entries = Dictionary(
            uniqueKeysWithValues: entries.map { (Array($0.key.utf8), Array($0.value.utf8)) })
    }
}
