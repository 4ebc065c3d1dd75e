import Wire

/// One request as it goes over the connection, delimiter and both frames, of which only session, sequence and key
/// differ from one sending to the next.
struct RequestTemplate {
    static let largestKeyCount: UInt64 = 1_000_000_000_000
    static let keySize = 16

    private let base: UnsafeMutableRawPointer
    let count: Int
    /// Where the 12 digits of the key are; nil for requests without one.
    private let digits: Int?
    /// Where the value's first 8 bytes are, which are made to differ; nil when it is shorter.
    private let salt: Int?

    private static let headerOffset = 4
    private static let keyPrefix = Array("key-".utf8)

    static func open(_ flags: RequestFlags) -> RequestTemplate {
        RequestTemplate(.open, flags, body: [], digits: nil, salt: nil)
    }

    static func close(_ flags: RequestFlags) -> RequestTemplate {
        RequestTemplate(.close, flags, body: [], digits: nil, salt: nil)
    }

    static func status() -> RequestTemplate {
        RequestTemplate(.status, [], body: [], digits: nil, salt: nil)
    }

    static func get(_ flags: RequestFlags) -> RequestTemplate {
        let body = KeyValueCommand.get(key: keyPrefix + [UInt8](repeating: 0, count: 12)).body
        return RequestTemplate(.query, flags, body: body, digits: body.count - 12, salt: nil)
    }

    static func put(_ flags: RequestFlags, valueSize: Int) -> RequestTemplate {
        let value = (0..<valueSize).map { UInt8(ascii: "a") + UInt8($0 % 26) }
        let body = KeyValueCommand.put(key: keyPrefix + [UInt8](repeating: 0, count: 12), value: value).body
        let valueOffset = body.count - valueSize
        return RequestTemplate(
            .submit, flags, body: body, digits: valueOffset - 12, salt: valueSize >= 8 ? valueOffset : nil)
    }

    private init(_ command: CommandCode, _ flags: RequestFlags, body: [UInt8], digits: Int?, salt: Int?) {
        var bytes: [UInt8] = [1, 0, 1, UInt8(clientHeaderSize)] + [UInt8](repeating: 0, count: clientHeaderSize)
        bytes.withUnsafeMutableBytes {
            RequestHeader(command, flags: flags).encode(into: $0.baseAddress! + RequestTemplate.headerOffset)
        }
        if body.count < 256 {
            bytes += [0, UInt8(body.count)]
        } else {
            bytes.append(2)
            withUnsafeBytes(of: UInt64(body.count).bigEndian) { bytes.append(contentsOf: $0) }
        }
        self.digits = digits.map { bytes.count + $0 }
        self.salt = salt.map { bytes.count + $0 }
        bytes += body
        count = bytes.count
        base = .allocate(byteCount: count, alignment: 16)
        bytes.withUnsafeBytes { base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }

    func release() {
        base.deallocate()
    }

    /// Writes the `count` bytes of the request at `place`.
    @inline(__always)
    func write(into place: UnsafeMutableRawPointer, session: UInt64, sequence: UInt64, key: UInt64) {
        place.copyMemory(from: base, byteCount: count)
        place.storeInteger(session, RequestTemplate.headerOffset + 8)
        place.storeInteger(sequence, RequestTemplate.headerOffset + 16)
        if let digits {
            var rest = key
            var at = digits + 11
            while at >= digits {
                let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
                place.storeInteger(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit), at)
                rest = quotient
                at -= 1
            }
        }
        if let salt { place.storeInteger(sequence &* 0x9E37_79B9_7F4A_7C15, salt) }
    }
}
