/// A command or query of the key-value service, read from the bytes a client sent: `op:u8, key length:u32, key, rest`,
/// little-endian, as the client protocol has it. Every length is checked against the bytes that are there before it is
/// used.
///
/// The buffers point into the body.
struct KeyValueCommand {
    enum Operation {
        case put(value: UnsafeRawBufferPointer)
        case get
        case delete
        case compareAndSwap(expected: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer)
        case append(suffix: UnsafeRawBufferPointer)
        case add(delta: Int64)
        /// The key is the prefix. A limit of 0 means as many as fit.
        case scan(limit: UInt32)
    }

    let key: UnsafeRawBufferPointer
    let operation: Operation

    static let longestKey = 1024

    /// The letters that the operations begin with.
    enum Code {
        static let put = UInt8(ascii: "P")
        static let get = UInt8(ascii: "G")
        static let delete = UInt8(ascii: "D")
        static let compareAndSwap = UInt8(ascii: "C")
        static let append = UInt8(ascii: "A")
        static let add = UInt8(ascii: "I")
        static let scan = UInt8(ascii: "S")
    }

    /// Why a body is no command: the text of MALFORMED.
    enum Malformed: Error {
        case tooShort, unknownOperation, writesInQuery, scanInSubmit
        case emptyKey, longKey, keyOverruns
        case bytesAfterKey
        case noPresentFlag, badPresentFlag, noExpectedLength, lengthOfAbsent, expectedOverruns
        case deltaSize, limitSize

        var reason: String {
            switch self {
            case .tooShort: "the body is shorter than an operation and a key length, 5 bytes"
            case .unknownOperation: "unknown operation: P, G, D, C, A, I and S are known"
            case .writesInQuery: "an operation that writes must be a SUBMIT, not a QUERY"
            case .scanInSubmit: "a scan must be a QUERY, not a SUBMIT"
            case .emptyKey: "the key is empty"
            case .longKey: "the key is longer than 1024 bytes"
            case .keyOverruns: "the key overruns the body"
            case .bytesAfterKey: "get and delete take a key and nothing after it"
            case .noPresentFlag: "compare and swap: the present flag is missing"
            case .badPresentFlag: "compare and swap: the present flag must be 0 or 1"
            case .noExpectedLength: "compare and swap: the length of the expected value is missing"
            case .lengthOfAbsent: "compare and swap: the expected length must be 0 when not present"
            case .expectedOverruns: "compare and swap: the expected value overruns the body"
            case .deltaSize: "add takes 8 bytes after the key, an i64"
            case .limitSize: "scan takes 4 bytes after the prefix, a u32 limit"
            }
        }
    }

    /// The key of a body that was validated; nil for any other that has none where it says.
    static func key(of body: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        var reader = ByteReader(body)
        guard let _: UInt8 = reader.next(), let length: UInt32 = reader.next() else { return nil }
        return reader.next(bytes: Int(length))
    }

    /// Reads a body that arrived as `kind`. Never reads outside of `body`, whatever it holds.
    init(_ body: UnsafeRawBufferPointer, as kind: CommandKind) throws(Malformed) {
        var reader = ByteReader(body)
        guard let code: UInt8 = reader.next(), let keyLength: UInt32 = reader.next() else { throw .tooShort }
        try Self.check(code, as: kind)
        guard keyLength > 0 || code == Code.scan else { throw .emptyKey }
        guard keyLength <= Self.longestKey else { throw .longKey }
        guard let key = reader.next(bytes: Int(keyLength)) else { throw .keyOverruns }
        self.key = key

        switch code {
        case Code.put:
            operation = .put(value: reader.rest)
        case Code.get, Code.delete:
            guard reader.rest.isEmpty else { throw .bytesAfterKey }
            operation = code == Code.get ? .get : .delete
        case Code.compareAndSwap:
            let expected = try Self.expected(from: &reader)
            operation = .compareAndSwap(expected: expected, value: reader.rest)
        case Code.append:
            operation = .append(suffix: reader.rest)
        case Code.add:
            guard reader.rest.count == 8, let delta: Int64 = reader.next() else { throw .deltaSize }
            operation = .add(delta: delta)
        case Code.scan:
            guard reader.rest.count == 4, let limit: UInt32 = reader.next() else { throw .limitSize }
            operation = .scan(limit: limit)
        default:
            throw .unknownOperation
        }
    }

    /// Whether there is such an operation, and it may come this way.
    private static func check(_ code: UInt8, as kind: CommandKind) throws(Malformed) {
        switch code {
        case Code.get:
            return
        case Code.put, Code.delete, Code.compareAndSwap, Code.append, Code.add:
            if kind == .query { throw .writesInQuery }
        case Code.scan:
            if kind == .submit { throw .scanInSubmit }
        default:
            throw .unknownOperation
        }
    }

    /// Reads `present:u8, length:u32, bytes`; nil when the key is expected to be absent.
    private static func expected(from reader: inout ByteReader) throws(Malformed) -> UnsafeRawBufferPointer? {
        guard let present: UInt8 = reader.next() else { throw .noPresentFlag }
        guard present <= 1 else { throw .badPresentFlag }
        guard let length: UInt32 = reader.next() else { throw .noExpectedLength }
        guard present == 1 || length == 0 else { throw .lengthOfAbsent }
        guard let bytes = reader.next(bytes: Int(length)) else { throw .expectedOverruns }
        return present == 1 ? bytes : nil
    }
}

/// Takes little-endian integers and runs of bytes off the front of a buffer, and nothing that is not there.
struct ByteReader {
    private(set) var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    @inline(__always)
    mutating func next<Integer: FixedWidthInteger & BitwiseCopyable>() -> Integer? {
        guard let bytes = next(bytes: MemoryLayout<Integer>.size) else { return nil }
        return Integer(littleEndian: bytes.loadUnaligned(as: Integer.self))
    }

    @inline(__always)
    mutating func next(bytes count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0 && count <= rest.count else { return nil }
        defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
        return UnsafeRawBufferPointer(rebasing: rest[..<count])
    }
}
