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
    public init(decoding reply: [UInt8], of operation: KeyValueCommand.Operation) throws(KeyValueError) {
        typealias Tag = KeyValueFormat.Tag
        var reader = BodyReader(reply)
        let tag = try reader.byte()
        switch (tag, operation) {
        case (Tag.none, .put), (Tag.none, .get), (Tag.none, .delete):
            self = .absent
        case (Tag.some, .put), (Tag.some, .get), (Tag.some, .delete):
            self = .value(reader.rest())
        case (Tag.some, .compareAndSwap):
            self = .swapped(reader.rest())
        case (Tag.none, .compareAndSwap):
            let present = try reader.flag()
            self = .notSwapped(found: present ? reader.rest() : nil)
        case (Tag.some, .append):
            self = .length(UInt64(truncatingIfNeeded: try reader.integer(8)))
        case (Tag.some, .add):
            self = .sum(Int64(truncatingIfNeeded: try reader.integer(8)))
        case (Tag.some, .scan):
            let more = try reader.flag()
            self = .entries(try reader.entries(), more: more)
        case (Tag.refused, _):
            self = .refused(String(decoding: reader.rest(), as: UTF8.self))
        default:
            throw KeyValueError("a reply with tag \(tag) does not belong to the operation \(operation)")
        }
        guard reader.isAtEnd else { throw KeyValueError("a key-value reply has \(reader.left) bytes too many") }
    }

    private struct BodyReader {
        let bytes: [UInt8]
        var at = 0

        init(_ bytes: [UInt8]) {
            self.bytes = bytes
        }

        var left: Int { bytes.count - at }
        var isAtEnd: Bool { left == 0 }

        mutating func integer(_ size: Int) throws(KeyValueError) -> UInt64 {
            guard left >= size else { throw KeyValueError("a key-value reply ends within a \(size)-byte integer") }
            var value: UInt64 = 0
            for index in 0..<size { value |= UInt64(bytes[at + index]) << UInt64(8 * index) }
            at += size
            return value
        }

        mutating func byte() throws(KeyValueError) -> UInt8 {
            UInt8(truncatingIfNeeded: try integer(1))
        }

        mutating func flag() throws(KeyValueError) -> Bool {
            let value = try byte()
            guard value <= 1 else { throw KeyValueError("a key-value reply has \(value) where 0 or 1 belongs") }
            return value == 1
        }

        mutating func counted() throws(KeyValueError) -> [UInt8] {
            let count = Int(try integer(4))
            guard count <= left else { throw KeyValueError("a key-value reply names \(count) bytes and holds \(left)") }
            defer { at += count }
            return Array(bytes[at..<at + count])
        }

        mutating func entries() throws(KeyValueError) -> [KeyValueEntry] {
            let count = Int(try integer(4))
            // A count beyond what there is reserves nothing.
            guard count <= left / KeyValueFormat.ScanReply.entryOverhead else {
                throw KeyValueError("a scan names \(count) entries in \(left) bytes")
            }
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
