import Foundation
import Testing

/// A document of `docs` that describes bytes: its tables and its worked examples, to be held against the code.
struct FormatDocument {
    struct Missing: Error, CustomStringConvertible {
        let description: String
    }

    let name: String
    let lines: [String]

    /// - Parameter name: of a file in `docs`.
    init(_ name: String) throws {
        self.name = name
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs").appending(path: name), encoding: .utf8)
        lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    var title: String { lines.first ?? "" }

    /// Numbers of lines, from 1, that are longer than a document's may be.
    var overlongLines: [Int] { lines.indices.filter { lines[$0].count > 160 }.map { $0 + 1 } }

    /// The bytes of the fenced block that begins with "```KIND NAME". Each of its lines is the offset of its first
    /// byte, the bytes in hexadecimal, and what they are, between bars; a line "..." stands for zeros up to the next
    /// offset.
    func example(_ name: String) throws -> [UInt8] { try parsedExample(name).bytes }

    /// Where the lines of an example begin.
    func offsets(ofExample name: String) throws -> [Int] { try parsedExample(name).offsets }

    private func parsedExample(_ name: String) throws -> (bytes: [UInt8], offsets: [Int]) {
        guard let start = lines.firstIndex(where: { $0.hasPrefix("```") && $0.hasSuffix(" \(name)") }) else {
            throw Missing(description: "\(self.name) has no example \(name)")
        }
        var bytes: [UInt8] = []
        var offsets: [Int] = []
        var skips = false
        for line in lines[(start + 1)...] {
            if line.hasPrefix("```") { return (bytes, offsets) }
            if line == "..." {
                skips = true
                continue
            }
            let parts = line.split(separator: "|", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3, let offset = Int(parts[0].trimmingCharacters(in: .whitespaces)) else {
                throw Missing(description: "\(self.name), example \(name): '\(line)' is no line of bytes")
            }
            guard offset == bytes.count || skips && offset > bytes.count else {
                throw Missing(description: "\(self.name), example \(name): \(offset) where \(bytes.count) is next")
            }
            bytes += [UInt8](repeating: 0, count: offset - bytes.count)
            offsets.append(offset)
            skips = false
            for word in parts[1].split(separator: " ") {
                guard word.count == 2, let byte = UInt8(word, radix: 16) else {
                    throw Missing(description: "\(self.name), example \(name): '\(word)' is no byte")
                }
                bytes.append(byte)
            }
        }
        throw Missing(description: "\(self.name): the example \(name) does not end")
    }

    /// The cells of the first table with these columns in the section with this heading, a row each.
    func rows(under heading: String, _ columns: String...) throws -> [[String]] {
        try rows(under: heading, columns: columns)
    }

    /// - Parameter text: of a line of that section behind which the table stands; nil: the first table is meant.
    func rows(under heading: String, columns: [String], after text: String? = nil) throws -> [[String]] {
        guard let start = lines.firstIndex(where: { $0.hasPrefix("#") && $0.hasSuffix("# \(heading)") }) else {
            throw Missing(description: "\(name) has no section '\(heading)'")
        }
        let end = lines[(start + 1)...].firstIndex { $0.hasPrefix("#") } ?? lines.endIndex
        let behind = text.map { text in lines[start..<end].firstIndex { $0.contains(text) } ?? end } ?? start
        guard let head = lines[behind..<end].firstIndex(where: { cells($0) == columns }) else {
            throw Missing(description: "\(name), '\(heading)': no table of \(columns)")
        }
        return lines[(head + 2)..<end].prefix { $0.hasPrefix("|") }.map(cells)
    }

    private func cells(_ line: String) -> [String] {
        guard line.hasPrefix("|"), line.hasSuffix("|"), line.count > 1 else { return [] }
        return line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false)
            .map { $0.trimmingCharacters(in: .whitespaces) }
    }

    /// Numbers as the documents write them: `1,024`, `0x80`.
    static func number(_ text: String) -> UInt64? {
        let plain = text.replacing(",", with: "").replacing("`", with: "")
        return plain.hasPrefix("0x") ? UInt64(plain.dropFirst(2), radix: 16) : UInt64(plain)
    }

    /// What stands first in a cell: up to a comma, a colon or a parenthesis, without the marks of code.
    static func head(_ cell: String) -> String {
        String(cell.prefix { $0 != "," && $0 != ":" && $0 != "(" }).replacing("`", with: "")
            .trimmingCharacters(in: .whitespaces)
    }
}
