/// What is wrong with a topology file, as one line for a person.
///
/// The three forms are `FILE:LINE:COLUMN: what is wrong` for syntax, `FILE: key path: what is wrong, what was expected`
/// for meaning, and `FILE: what is wrong` for a file that cannot be read at all.
public struct TopologyError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The one line. It holds no control characters, whatever the file holds.
    public let description: String

    init(file: String, _ problem: String) {
        description = oneLine("\(file): \(problem)")
    }

    init(file: String, line: Int, column: Int, _ problem: String) {
        description = oneLine("\(file):\(line):\(column): \(problem)")
    }

    init(file: String, keyPath: String, _ problem: String, expected: String) {
        description = oneLine("\(file): \(keyPath): \(problem), expected \(expected)")
    }
}

/// `text` with every control character and line separator written as an escape, so that no file can forge lines of a
/// log.
func oneLine(_ text: String) -> String {
    var line = ""
    line.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator:
            line += scalar.escaped(asASCII: true)
        default:
            line.unicodeScalars.append(scalar)
        }
    }
    return line
}
