import MPaxosInvariants

/// A command or query of the key-value service (client protocol, "The key-value state machine").
///
/// `body` is what goes into SUBMIT or QUERY. Limits on keys and values are the replica's to check.
public enum KeyValueCommand: Sendable, Equatable {
    case put(key: [UInt8], value: [UInt8])
    /// SUBMIT or QUERY.
    case get(key: [UInt8])
    case delete(key: [UInt8])
    /// Sets `new` when the value is `expected`, or when there is none and `expected` is nil.
    case compareAndSwap(key: [UInt8], expected: [UInt8]?, new: [UInt8])
    case append(key: [UInt8], bytes: [UInt8])
    case add(key: [UInt8], delta: Int64)
    /// QUERY only. `limit` 0 asks for as many as fit.
    case scan(prefix: [UInt8], limit: UInt32)

    public enum Operation: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        case put = 0x50  // P
        case get = 0x47  // G
        case delete = 0x44  // D
        case compareAndSwap = 0x43  // C
        case append = 0x41  // A
        case add = 0x49  // I
        case scan = 0x53  // S
    }

    public var operation: Operation {
        switch self {
        case .put: .put
        case .get: .get
        case .delete: .delete
        case .compareAndSwap: .compareAndSwap
        case .append: .append
        case .add: .add
        case .scan: .scan
        }
    }

    /// True for the commands that belong into a QUERY by themselves; a `get` may also be submitted.
    public var isQuery: Bool {
        switch self {
        case .get, .scan: true
        case .put, .delete, .compareAndSwap, .append, .add: false
        }
    }

    /// The BODY of the request.
    public var body: [UInt8] {
        var writer = BodyWriter(operation)
        switch self {
        case .put(let key, let value):
            writer.counted(key)
            writer.raw(value)
        case .get(let key), .delete(let key):
            writer.counted(key)
        case .compareAndSwap(let key, let expected, let new):
            writer.counted(key)
            writer.bytes.append(expected == nil ? 0 : 1)
            writer.counted(expected ?? [])
            writer.raw(new)
        case .append(let key, let bytes):
            writer.counted(key)
            writer.raw(bytes)
        case .add(let key, let delta):
            writer.counted(key)
            writer.integer(delta)
        case .scan(let prefix, let limit):
            writer.counted(prefix)
            writer.integer(limit)
        }
        return writer.bytes
    }

    private struct BodyWriter {
        var bytes: [UInt8]

        init(_ operation: Operation) {
            bytes = [operation.rawValue]
        }

        mutating func integer<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }

        mutating func counted(_ content: [UInt8]) {
            invariant(content.count <= Int(UInt32.max), "the lengths of keys and values fit 32 bits")
            integer(UInt32(content.count))
            bytes.append(contentsOf: content)
        }

        mutating func raw(_ content: [UInt8]) {
            bytes.append(contentsOf: content)
        }
    }
}

/// The key-value service's answer to a command, out of the BODY of an OK reply.
public enum KeyValueReply: Sendable, Equatable {
    /// put, delete: there was none before; get: there is none.
    case absent
    /// put, delete: the value that was replaced; get: the value.
    case value([UInt8])
    /// compare and swap: done; the new value.
    case swapped([UInt8])
    /// compare and swap: not done; the value found, nil for none.
    case notSwapped(found: [UInt8]?)
    /// append: length of the value after, in bytes.
    case length(UInt64)
    /// add: the sum.
    case sum(Int64)
    /// scan: in no particular order; `more` when entries were left out.
    case entries([KeyValueEntry], more: Bool)
    /// Executed, and refused the same on every replica; nothing changed.
    case refused(String)

    /// Decodes the reply to `operation`. Throws when the bytes are no such reply; no length in them is trusted.
    public init(decoding reply: [UInt8], of operation: KeyValueCommand.Operation) throws(WireError) {
        var reader = BodyReader(reply)
        let tag = try reader.byte()
        switch (tag, operation) {
        case (0, .put), (0, .get), (0, .delete):
            self = .absent
        case (1, .put), (1, .get), (1, .delete):
            self = .value(reader.rest())
        case (1, .compareAndSwap):
            self = .swapped(reader.rest())
        case (0, .compareAndSwap):
            let present = try reader.flag()
            self = .notSwapped(found: present ? reader.rest() : nil)
        case (1, .append):
            self = .length(UInt64(truncatingIfNeeded: try reader.integer(8)))
        case (1, .add):
            self = .sum(Int64(truncatingIfNeeded: try reader.integer(8)))
        case (1, .scan):
            let more = try reader.flag()
            self = .entries(try reader.entries(), more: more)
        case (2, _):
            self = .refused(String(decoding: reader.rest(), as: UTF8.self))
        default:
            throw WireError("a reply with tag \(tag) does not belong to the operation \(operation)")
        }
        guard reader.isAtEnd else { throw WireError("a key-value reply has \(reader.left) bytes too many") }
    }

    private struct BodyReader {
        let bytes: [UInt8]
        var at = 0

        init(_ bytes: [UInt8]) {
            self.bytes = bytes
        }

        var left: Int { bytes.count - at }
        var isAtEnd: Bool { left == 0 }

        mutating func integer(_ size: Int) throws(WireError) -> UInt64 {
            guard left >= size else { throw WireError("a key-value reply ends within a \(size)-byte integer") }
            var value: UInt64 = 0
            for index in 0..<size { value |= UInt64(bytes[at + index]) << UInt64(8 * index) }
            at += size
            return value
        }

        mutating func byte() throws(WireError) -> UInt8 {
            UInt8(truncatingIfNeeded: try integer(1))
        }

        mutating func flag() throws(WireError) -> Bool {
            let value = try byte()
            guard value <= 1 else { throw WireError("a key-value reply has \(value) where 0 or 1 belongs") }
            return value == 1
        }

        mutating func counted() throws(WireError) -> [UInt8] {
            let count = Int(try integer(4))
            guard count <= left else { throw WireError("a key-value reply names \(count) bytes and holds \(left)") }
            defer { at += count }
            return Array(bytes[at..<at + count])
        }

        mutating func entries() throws(WireError) -> [KeyValueEntry] {
            let count = Int(try integer(4))
            // Two lengths an entry at the least: a count beyond that reserves nothing.
            guard count <= left / 8 else { throw WireError("a scan names \(count) entries in \(left) bytes") }
            var entries: [KeyValueEntry] = []
            entries.reserveCapacity(count)
            for _ in 0..<count {
                let key = try counted()
                entries.append(KeyValueEntry(key: key, value: try counted()))
            }
            return entries
        }

        mutating func rest() -> [UInt8] {
            defer { at = bytes.count }
            return Array(bytes[at...])
        }
    }
}

/// A key and its value, as a scan returns them.
public struct KeyValueEntry: Sendable, Hashable {
    public let key: [UInt8]
    public let value: [UInt8]

    public init(key: [UInt8], value: [UInt8]) {
        self.key = key
        self.value = value
    }
}
