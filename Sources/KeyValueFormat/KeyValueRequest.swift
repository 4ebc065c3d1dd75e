/// A command or query of the key-value service as it arrived. Every length is checked against the bytes that are there
/// before it is used.
///
/// The buffers point into the body.
@usableFromInline package struct KeyValueRequest {
    package enum Operation {
        case put(value: UnsafeRawBufferPointer)
        case get
        case delete
        case compareAndSwap(expected: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer)
        case append(suffix: UnsafeRawBufferPointer)
        case add(delta: Int64)
        /// The key is the prefix. A limit of 0 means as many as fit.
        case scan(limit: UInt32)
    }

    package let key: UnsafeRawBufferPointer
    package let operation: Operation

    /// Why a body is no command: the text of MALFORMED.
    package enum Malformed: Error {
        case tooShort, unknownOperation, writesInQuery, scanInSubmit
        case emptyKey, longKey, keyOverruns
        case bytesAfterKey
        case noPresentFlag, badPresentFlag, noExpectedLength, lengthOfAbsent, expectedOverruns
        case deltaSize, limitSize

        package var reason: String {
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
    @inlinable package static func key(of body: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let offset = KeyValueFormat.keyOffset
        guard body.count >= offset else { return nil }
        let length = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
        guard length <= body.count - offset else { return nil }
        return UnsafeRawBufferPointer(rebasing: body[offset..<offset + length])
    }

    /// Reads a body. Never reads outside of it, whatever it holds.
    /// - Parameter isQuery: whether it came as a query, not as a command.
    package init(_ body: UnsafeRawBufferPointer, isQuery: Bool) throws(Malformed) {
        var reader = ByteReader(body)
        guard let code: UInt8 = reader.next(), let keyLength: UInt32 = reader.next() else { throw .tooShort }
        guard let operation = KeyValueCommand.Operation(rawValue: code) else { throw .unknownOperation }
        try Self.check(operation, isQuery: isQuery)
        guard keyLength > 0 || operation == .scan else { throw .emptyKey }
        guard keyLength <= KeyValueFormat.longestKey else { throw .longKey }
        guard let key = reader.next(bytes: Int(keyLength)) else { throw .keyOverruns }
        self.key = key

        switch operation {
        case .put:
            self.operation = .put(value: reader.rest)
        case .get, .delete:
            guard reader.rest.isEmpty else { throw .bytesAfterKey }
            self.operation = operation == .get ? .get : .delete
        case .compareAndSwap:
            let expected = try Self.expected(from: &reader)
            self.operation = .compareAndSwap(expected: expected, value: reader.rest)
        case .append:
            self.operation = .append(suffix: reader.rest)
        case .add:
            guard reader.rest.count == 8, let delta: Int64 = reader.next() else { throw .deltaSize }
            self.operation = .add(delta: delta)
        case .scan:
            guard reader.rest.count == 4, let limit: UInt32 = reader.next() else { throw .limitSize }
            self.operation = .scan(limit: limit)
        }
    }

    /// Whether the operation may come this way.
    private static func check(_ operation: KeyValueCommand.Operation, isQuery: Bool) throws(Malformed) {
        switch operation {
        case .get:
            return
        case .put, .delete, .compareAndSwap, .append, .add:
            if isQuery { throw .writesInQuery }
        case .scan:
            if !isQuery { throw .scanInSubmit }
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
private struct ByteReader {
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
