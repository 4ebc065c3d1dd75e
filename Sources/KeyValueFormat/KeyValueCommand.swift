import MPaxosInvariants

/// A command or query of the key-value service, for a client that sends it.
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
