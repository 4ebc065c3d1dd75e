import Foundation
import Testing

/// How sources are laid out: by `swift format`, which comes with the toolchain, and within columns that fit two files
/// beside each other.
@Suite struct FormatTests {
    static let columns = 120

    /// Runs what a person runs; `swift format -i -p -r Sources Tests Benchmarks Package.swift` mends what it finds.
    @Test func swiftFormatFindsNothing() throws {
        let found = try SourceTree.output(
            of: ["swift", "format", "lint", "--strict", "-p", "-r", "Sources", "Tests", "Benchmarks", "Package.swift"])
        #expect(found.status == 0, "\(found.text)")
    }

    @Test(arguments: ["Sources", "Tests", "Benchmarks", "scripts", ".ci"])
    func linesAreShort(folder: String) throws {
        let files = try SourceTree.files(under: folder, named: [".swift", ".h", ".c", ".py", ".sh", ""])
        #expect(!files.isEmpty)
        var long: [String] = []
        for file in files {
            let lines = try SourceTree.text(of: file).split(separator: "\n", omittingEmptySubsequences: false)
            for (number, line) in zip(1..., lines) where line.count > Self.columns && !isOneLiteral(line) {
                long.append("\(file):\(number) has \(line.count): \(line)")
            }
        }
        #expect(long.isEmpty, "lines of more than \(Self.columns) columns:\n\(long.joined(separator: "\n"))")
    }

    @Test(arguments: [
        (#"    "no more than a sentence","#, true), (#"    ? "one, with \(a.map { "another" }) within""#, true),
        (#"f"of Python's {kind}","#, true), (#"say "in a script""#, true), (#"throw Failure("it is so")"#, false),
        (#""one" + "two""#, false), ("/// A comment.", false), ("let plain = code", false),
        (#"// A comment with "a quotation"."#, false),
    ])
    func tellsALiteralFromALine(line: String, isLiteral: Bool) {
        #expect(isOneLiteral(line[...]) == isLiteral)
    }

    /// What is said to a person stays in one piece, so that it can be searched for: a line may be longer if it consists
    /// of one string literal, punctuation, and at most a word.
    private func isOneLiteral(_ line: Substring) -> Bool {
        guard let start = line.firstIndex(where: { $0 == "\"" || $0 == "'" }) else { return false }
        let end = endOfLiteral(in: line, from: start)
        let rest = line[..<start] + " " + line[end...]
        return !rest.contains { $0 == "\"" || $0 == "'" }
            && rest.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.filter { $0 != "f" }.count <= 1
    }

    /// Behind the literal that begins at `start`: what Swift interpolates may have literals within.
    private func endOfLiteral(in line: Substring, from start: Substring.Index) -> Substring.Index {
        var index = line.index(after: start)
        var depth = 0
        while index < line.endIndex {
            let character = line[index]
            index = line.index(after: index)
            if character == "\\" && index < line.endIndex {
                if line[index] == "(" { depth += 1 }
                index = line.index(after: index)
            } else if depth > 0 && (character == "(" || character == ")") {
                depth += character == "(" ? 1 : -1
            } else if depth == 0 && character == line[start] {
                break
            }
        }
        return index
    }
}
