import Foundation
import MPaxosConsensus
import Testing

/// `docs/consensus.md`, held against the core that it describes.
@Suite struct ProtocolDocumentTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static let folder = root.appending(path: "Sources/Consensus")

    private let document: String
    /// By name, with its extension.
    private let sources: [String: String]

    init() throws {
        document = try String(contentsOf: Self.root.appending(path: "docs/consensus.md"), encoding: .utf8)
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        sources = try names.filter { $0.hasSuffix(".swift") }.reduce(into: [:]) {
            $0[$1] = try String(contentsOf: Self.folder.appending(path: $1), encoding: .utf8)
        }
    }

    @Test func everyFileHasItsPlace() throws {
        let table = try section("## The files")
        let named = Set(table.matches(of: /`(\w+\.swift)`/).map { String($0.output.1) })
        #expect(named == Set(sources.keys))
    }

    @Test func everyKindOfMessageHasItsSection() throws {
        let headings = document.matches(of: /(?m)^### `(\w+)`$/).map { String($0.output.1) }
        #expect(headings == Message.Kind.allCases.map { "\($0)" })
        for kind in headings {
            let text = try section("### `\(kind)`")
            for part in ["Says.", "Durable first.", "The receiver may conclude", "Lost, repeated, late."] {
                #expect(text.contains("- **\(part)"), "\(kind) does not say: \(part)")
            }
        }
    }

    @Test func watermarksArePropertiesOfTheCore() throws {
        let named = try watermarks()
        #expect(named.count > 30)
        for name in named {
            // The executor's: the core hears of it when it is made.
            if name == "executed" { continue }
            let (type, property) = split(name)
            let body = try body(of: type)
            let declares = try Regex(#"(?m)^    (?:[a-z]+(?:\(set\))? )*(?:var|let) \#(property)\b"#)
            #expect(body.contains(declares), "\(type) has no property \(property)")
        }
    }

    /// Each number by which the core remembers a place in the log, a view or a record.
    @Test(arguments: ["Core", "Peer", "LogIndex", "EstablishedView"])
    func propertiesOfTheCoreAreWatermarks(type: String) throws {
        let named = Set(try watermarks().map { split($0) }.filter { $0.type == type }.map(\.property))
        let stored = /(?m)^    (?:[a-z]+(?:\(set\))? )*var (\w+): (?:Instance|View|LogSequenceNumber)(?: = 0)?$/
        let properties = try body(of: type).matches(of: stored).map { String($0.output.1) }
        #expect(!properties.isEmpty)
        for property in properties {
            #expect(named.contains(property), "docs/consensus.md does not say what \(type).\(property) is")
        }
    }

    @Test func rulesAreAsserted() throws {
        let rules = try rows().flatMap { $0.matches(of: /\*([^*]+)\*/).map { String($0.output.1) } }
        #expect(rules.count > 20)
        let asserted = sources.filter { $0.key != "Invariants.swift" }.values.joined()
        let checked = try #require(sources["Invariants.swift"])
        for rule in rules {
            let isAsserted = asserted.contains("\"\(rule)\")")
            #expect(isAsserted || checked.contains("return \"\(rule)\""), "no invariant says: \(rule)")
        }
    }

    // MARK: Reading

    /// What stands below a heading, up to the next one of its level or a higher one.
    private func section(_ heading: String) throws -> Substring {
        let start = try #require(document.range(of: "\(heading)\n"), "there is no section \(heading)")
        let level = heading.prefix { $0 == "#" }.count
        let rest = document[start.upperBound...]
        let end = try rest.firstRange(of: Regex("(?m)^#{1,\(level)} "))
        return rest[..<(end?.lowerBound ?? rest.endIndex)]
    }

    private func rows() throws -> [Substring] {
        try section("## The watermarks").split(separator: "\n").filter { $0.hasPrefix("| `") }
    }

    /// The first column.
    private func watermarks() throws -> [String] {
        try rows().flatMap { row in
            row.split(separator: "|")[0].matches(of: /`([\w.]+)`/).map { String($0.output.1) }
        }
    }

    private func split(_ name: String) -> (type: String, property: String) {
        let parts = name.split(separator: ".").map(String.init)
        guard parts.count == 2 else { return ("Core", name) }
        let types = ["peer": "Peer", "log": "LogIndex", "established": "EstablishedView"]
        return (types[parts[0]] ?? parts[0], parts[1])
    }

    private func body(of type: String) throws -> Substring {
        let declaration = try Regex(#"(?m)^(?:@\w+ )?(?:package )?struct \#(type)\b"#)
        for text in sources.values {
            guard let start = text.firstRange(of: declaration) else { continue }
            let end = text[start.upperBound...].firstRange(of: "\n}")
            return text[start.upperBound..<(end?.lowerBound ?? text.endIndex)]
        }
        Issue.record("the core has no \(type)")
        return ""
    }
}
