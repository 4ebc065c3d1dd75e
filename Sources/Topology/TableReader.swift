import TOMLKit

/// One table of the file, with its key path, so that every complaint names the key it is about.
///
/// TOMLKit's own decoding into structs forgets where in the file a value stood; hence this walk.
struct TableReader {
    let file: String
    /// Key path of the table itself; empty for the top level.
    let path: String
    private let table: TOMLTable

    init(file: String, path: String, table: TOMLTable) {
        self.file = file
        self.path = path
        self.table = table
    }

    func path(of key: String) -> String {
        let isBare =
            !key.isEmpty
            && key.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    return true
                default:
                    return false
                }
            }
        let name = isBare ? key : "\"\(key)\""
        return path.isEmpty ? name : "\(path).\(name)"
    }

    func error(_ key: String, _ problem: String, expected: String) -> TopologyError {
        TopologyError(file: file, keyPath: path(of: key), problem, expected: expected)
    }

    /// Refuses keys that are not in `known`: a misspelt key must not silently mean its default.
    func allowOnly(_ known: [String]) throws(TopologyError) {
        for key in table.keys.sorted() where !known.contains(key) {
            throw error(key, "unknown key", expected: "one of \(known.joined(separator: ", "))")
        }
    }

    // MARK: - Values: nil when the key is absent, an error when it is of another type or out of range

    func string(_ key: String) throws(TopologyError) -> String? {
        guard let value = table[key] else { return nil }
        guard let text = value.string else { throw wrongType(key, value, expected: "a string") }
        return text
    }

    func integer(_ key: String, in range: ClosedRange<Int>) throws(TopologyError) -> Int? {
        let expected = "an integer from \(range.lowerBound) to \(range.upperBound)"
        guard let value = table[key] else { return nil }
        guard let number = value.int else { throw wrongType(key, value, expected: expected) }
        guard range.contains(number) else { throw error(key, "\(number) is out of range", expected: expected) }
        return number
    }

    /// A size in bytes: an integer, or a string with or without a unit.
    func size(_ key: String, in range: ClosedRange<Int>) throws(TopologyError) -> Int? {
        guard let value = table[key] else { return nil }
        let form = "a size like \"64MiB\" (KiB, MiB, GiB) or a number of bytes"
        let bytes: Int
        let spelling: String
        if let number = value.int {
            (bytes, spelling) = (number, String(number))
        } else if let text = value.string {
            guard let parsed = ByteSize.parse(text) else {
                throw error(key, "\"\(text)\" is not a size", expected: form)
            }
            (bytes, spelling) = (parsed, "\"\(text)\"")
        } else {
            throw wrongType(key, value, expected: form)
        }
        guard range.contains(bytes) else {
            let bounds = "\(ByteSize.describe(range.lowerBound)) to \(ByteSize.describe(range.upperBound))"
            throw error(key, "\(spelling) is out of range", expected: "a size from \(bounds)")
        }
        return bytes
    }

    func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, _ type: Choice.Type
    ) throws(TopologyError) -> Choice? where Choice.RawValue == String {
        let expected = Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")
        guard let value = table[key] else { return nil }
        guard let text = value.string else { throw wrongType(key, value, expected: expected) }
        guard let choice = Choice(rawValue: text) else {
            throw error(key, "\"\(text)\" is unknown", expected: expected)
        }
        return choice
    }

    func endpoint(_ key: String) throws(TopologyError) -> Endpoint? {
        guard let text = try string(key) else { return nil }
        guard let endpoint = Endpoint(text) else {
            throw error(key, "\"\(text)\" is not an endpoint", expected: Endpoint.expected)
        }
        return endpoint
    }

    /// The strings of `key`, which has one or an array of them; none when it is absent.
    func strings(_ key: String, count: ClosedRange<Int>) throws(TopologyError) -> [String] {
        guard let value = table[key] else { return [] }
        if let text = value.string { return [text] }
        let expected = "a string, or \(count.lowerBound) to \(count.upperBound) of them in brackets"
        guard let array = value.array else { throw wrongType(key, value, expected: expected) }
        guard count.contains(array.count) else { throw error(key, "has \(array.count)", expected: expected) }
        var texts: [String] = []
        for index in 0..<array.count {
            let element: TOMLValueConvertible = array[index]
            guard let text = element.string else { throw wrongType("\(key)[\(index)]", element, expected: "a string") }
            texts.append(text)
        }
        return texts
    }

    /// A table below this one; an empty one when it is absent.
    func table(_ key: String) throws(TopologyError) -> TableReader {
        guard let value = table[key] else {
            return TableReader(file: file, path: path(of: key), table: TOMLTable())
        }
        guard let inner = value.table else { throw wrongType(key, value, expected: "a table, [\(key)]") }
        return TableReader(file: file, path: path(of: key), table: inner)
    }

    /// The tables of `[[key]]`, in the order of the file.
    func tables(
        _ key: String, count: ClosedRange<Int>, isRequired: Bool = true
    ) throws(TopologyError) -> [TableReader] {
        let expected = "\(count.lowerBound) to \(count.upperBound) tables, [[\(key)]]"
        guard let value = table[key] else {
            if !isRequired { return [] }
            throw missing(key, expected: expected)
        }
        guard let array = value.array else { throw wrongType(key, value, expected: expected) }
        guard count.contains(array.count) else {
            throw error(key, "there are \(array.count)", expected: expected)
        }
        var readers: [TableReader] = []
        for index in 0..<array.count {
            let element: TOMLValueConvertible = array[index]
            let name = "\(key)[\(index)]"
            let elementPath = path.isEmpty ? name : "\(path).\(name)"
            guard let inner = element.table else {
                throw TopologyError(
                    file: file, keyPath: elementPath, "is \(article(element.type))", expected: "a table, [[\(key)]]")
            }
            readers.append(TableReader(file: file, path: elementPath, table: inner))
        }
        return readers
    }

    func missing(_ key: String, expected: String) -> TopologyError {
        error(key, "missing", expected: expected)
    }

    private func wrongType(_ key: String, _ value: TOMLValueConvertible, expected: String) -> TopologyError {
        error(key, "is \(article(value.type))", expected: expected)
    }

    private func article(_ type: TOMLType) -> String {
        switch type {
        case .array, .int: return "an \(type)"
        default: return "a \(type)"
        }
    }
}

/// `value`, or `error` when there is none.
func require<Value>(_ value: Value?, or error: @autoclosure () -> TopologyError) throws(TopologyError) -> Value {
    guard let value else { throw error() }
    return value
}
