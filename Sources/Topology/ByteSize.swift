/// Sizes as topology files spell them: an integer of bytes, or a string with a binary unit, like `"64MiB"`.
enum ByteSize {
    static let kibibyte = 1 << 10
    static let mebibyte = 1 << 20
    static let gibibyte = 1 << 30
    static let tebibyte = 1 << 40
    private static let units: [(suffix: String, bytes: Int)] = [
        ("KiB", kibibyte), ("MiB", mebibyte), ("GiB", gibibyte),
    ]

    /// Bytes that `text` names; nil when it is no size or does not fit an `Int`.
    static func parse(_ text: String) -> Int? {
        for unit in units where text.hasSuffix(unit.suffix) {
            var digits = text.dropLast(unit.suffix.count)
            if digits.last == " " { digits = digits.dropLast() }
            guard let count = parseDigits(digits) else { return nil }
            let (bytes, overflow) = count.multipliedReportingOverflow(by: unit.bytes)
            return overflow ? nil : bytes
        }
        return parseDigits(text[...])
    }

    /// The shortest exact spelling of `bytes`, for messages.
    static func describe(_ bytes: Int) -> String {
        for unit in units.reversed() where bytes >= unit.bytes && bytes % unit.bytes == 0 {
            return "\(bytes / unit.bytes) \(unit.suffix)"
        }
        return bytes == 1 ? "1 byte" : "\(bytes) bytes"
    }

    /// Digits only: `Int` would take a sign as well.
    private static func parseDigits(_ text: Substring) -> Int? {
        guard text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else { return nil }
        return Int(text)
    }
}
