import Foundation
import Testing

/// Each decision says in its first lines which one it is, whether it still holds, and since when.
@Suite struct DecisionsTests {
    private static let folder = "docs/decisions"

    @Test func eachHasNumberTitleStatusAndDate() throws {
        let files = try SourceTree.files(under: Self.folder, named: [".md"])
        #expect(!files.isEmpty)
        for (index, file) in files.enumerated() {
            let number = index + 1
            let name = file.dropFirst(Self.folder.count + 1)
            #expect(
                name.hasPrefix(String(format: "%04d-", number)), "\(file): the decisions are numbered from 1 on")
            let text = try SourceTree.text(of: file)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines[0].wholeMatch(of: try Regex("# \(number)\\. \\S.+")) != nil, "\(file) begins: \(lines[0])")
            try #require(lines.count > 4, "\(file) says nothing")
            #expect(isStatus(lines[2]), "\(file) has no status with a date in its third line: \(lines[2])")
            #expect(lines[1].isEmpty && lines[3].isEmpty)
            for part in ["**Context.**", "**Decision.**"] { #expect(text.contains("\n\(part) "), "\(file): \(part)") }
        }
    }

    @Test(arguments: [
        ("Status: accepted, 2026-11-24.", true), ("Status: rejected, 2026-11-24.", true),
        ("Status: superseded by [decision 15](0015-digest-within-the-commit.md), 2026-11-28.", true),
        ("Status: superseded in part by [decision 15](0015-digest-within-the-commit.md), 2026-11-28.", true),
        ("Status: superseded by [decision 15](0015-nowhere.md), 2026-11-28.", false),
        ("Status: accepted.", false), ("Status: accepted, 2026-13-24.", false), ("Status: , 2026-11-24.", false),
        ("", false),
    ])
    func readsStatus(line: String, isOne: Bool) {
        #expect(isStatus(Substring(line)) == isOne)
    }

    private func isStatus(_ line: Substring) -> Bool {
        let pattern =
            /Status: (?:accepted|rejected|superseded(?: in part)? by \[decision \d+\]\(([\w.-]+)\)), (\d+-\d\d-\d\d)\./
        guard let match = line.wholeMatch(of: pattern) else { return false }
        if let other = match.output.1 {
            let path = SourceTree.root.appending(path: "\(Self.folder)/\(other)").path
            guard FileManager.default.fileExists(atPath: path) else { return false }
        }
        return (try? Date(String(match.output.2), strategy: .iso8601.year().month().day())) != nil
    }
}
