import MPaxosKeyValueFormat
import MPaxosWire

/// One request as it goes over the connection, delimiter and both frames, of which only session, sequence, position,
/// key and the length of the value differ from one sending to the next.
struct RequestTemplate {
    static let largestKeyCount: UInt64 = 1_000_000_000_000
    static let keySize = 16

    private let base: UnsafeMutableRawPointer
    /// Bytes with the longest value.
    private let fullCount: Int
    /// Bytes of the longest value.
    private let fullValue: Int
    /// Where the 12 digits of the key are; nil for requests without one.
    private let digits: Int?
    /// Where the value is.
    private let valueOffset: Int
    /// Where the length of the body is, 8 bytes; nil when all values are of one size.
    private let lengthOffset: Int?

    private static let headerOffset = 4
    private static let key = Array("key-000000000000".utf8)

    static func open(_ flags: RequestFlags) -> RequestTemplate { RequestTemplate(.open, flags) }
    static func close(_ flags: RequestFlags) -> RequestTemplate { RequestTemplate(.close, flags) }
    static func status() -> RequestTemplate { RequestTemplate(.status, []) }

    static func get(_ command: CommandCode, _ flags: RequestFlags) -> RequestTemplate {
        RequestTemplate(command, flags, body: KeyValueCommand.get(key: key).body)
    }

    static func delete(_ flags: RequestFlags) -> RequestTemplate {
        RequestTemplate(.submit, flags, body: KeyValueCommand.delete(key: key).body)
    }

    static func put(_ flags: RequestFlags, valueSizes: ClosedRange<Int>) -> RequestTemplate {
        let body = KeyValueCommand.put(key: key, value: value(valueSizes.upperBound)).body
        return RequestTemplate(.submit, flags, body: body, valueSizes: valueSizes)
    }

    static func create(_ flags: RequestFlags, valueSizes: ClosedRange<Int>) -> RequestTemplate {
        let new = value(valueSizes.upperBound)
        let body = KeyValueCommand.compareAndSwap(key: key, expected: nil, new: new).body
        return RequestTemplate(.submit, flags, body: body, valueSizes: valueSizes)
    }

    private static func value(_ size: Int) -> [UInt8] { (0..<size).map { UInt8(ascii: "a") + UInt8($0 % 26) } }

    private init(
        _ command: CommandCode, _ flags: RequestFlags, body: [UInt8] = [], valueSizes: ClosedRange<Int> = 0...0
    ) {
        var bytes: [UInt8] = [1, 0, 1, UInt8(clientHeaderSize)] + [UInt8](repeating: 0, count: clientHeaderSize)
        bytes.withUnsafeMutableBytes {
            RequestHeader(command, flags: flags).encode(into: $0.baseAddress! + RequestTemplate.headerOffset)
        }
        let varies = valueSizes.count > 1
        lengthOffset = varies ? bytes.count + 1 : nil
        // A long frame may hold a short body: no need to tell sizes that vary apart.
        if body.count < 256 && !varies {
            bytes += [0, UInt8(body.count)]
        } else {
            bytes.append(2)
            withUnsafeBytes(of: UInt64(body.count).bigEndian) { bytes.append(contentsOf: $0) }
        }
        digits = body.isEmpty ? nil : bytes.count + KeyValueFormat.keyOffset + RequestTemplate.keySize - 12
        bytes += body
        fullCount = bytes.count
        fullValue = valueSizes.upperBound
        valueOffset = bytes.count - valueSizes.upperBound
        base = .allocate(byteCount: fullCount, alignment: 16)
        bytes.withUnsafeBytes { base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }

    func release() {
        base.deallocate()
    }

    /// Bytes of the request with a value of `valueSize` bytes.
    @inline(__always) func count(valueSize: Int) -> Int {
        lengthOffset == nil ? fullCount : fullCount - fullValue + valueSize
    }

    /// Writes the request at `place`: as many bytes as `count` says.
    @inline(__always)
    func write(
        into place: UnsafeMutableRawPointer, session: UInt64, sequence: UInt64, position: UInt64 = 0, key: UInt64 = 0,
        valueSize: Int = 0
    ) {
        let count = count(valueSize: valueSize)
        place.copyMemory(from: base, byteCount: count)
        place.storeInteger(session, RequestTemplate.headerOffset + 8)
        place.storeInteger(sequence, RequestTemplate.headerOffset + 16)
        place.storeInteger(position, RequestTemplate.headerOffset + 24)
        if let lengthOffset {
            // The body begins right after its length.
            place.storeInteger(UInt64(count - lengthOffset - 8).byteSwapped, lengthOffset)
        }
        if let digits {
            var rest = key
            var at = digits + 11
            // Leading zeros are there already.
            while rest > 0 && at >= digits {
                let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
                place.storeInteger(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit), at)
                rest = quotient
                at -= 1
            }
        }
        // Values are made to differ.
        if count - valueOffset >= 8 { place.storeInteger(sequence &* 0x9E37_79B9_7F4A_7C15, valueOffset) }
    }
}
