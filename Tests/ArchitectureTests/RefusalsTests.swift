import Foundation
import Testing

/// What `docs/operations.md` quotes of refusals, held against the sources: an operator looks up what the program says.
@Suite struct RefusalsTests {
    @Test func quotedRefusalsAreThoseOfTheSources() throws {
        let sources = try SourceTree.files(under: "Sources", named: [".swift", ".c"]).map {
            try SourceTree.text(of: $0)
        }
        let rows = try SourceTree.text(of: "docs/operations.md").split(separator: "\n").filter {
            $0.hasPrefix("| 3 |") || $0.hasPrefix("| SIG")
        }
        #expect(rows.count > 15)
        for row in rows {
            let when = row.split(separator: "|")[1]
            for quote in when.matches(of: /`([^`]+)`/) {
                // Capitals and ellipses stand for what differs; the rest is looked up part by part.
                let parts = quote.output.1.split { !($0.isLowercase || " -".contains($0)) }
                for part in parts.map({ $0.trimmingCharacters(in: .whitespaces) }) where part.count > 5 {
                    #expect(sources.contains { $0.contains(part) }, "nothing says \"\(part)\", of \(quote.output.1)")
                }
            }
        }
    }
}
