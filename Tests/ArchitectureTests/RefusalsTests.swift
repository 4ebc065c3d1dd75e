import Foundation
import Testing

/// What the docs quote of refusals, held against the sources: an operator looks up what the program says.
@Suite struct RefusalsTests {
    /// A command, what the operating system says, and what the program puts together of smaller parts.
    private static let foreign: Set = [
        "mpaxos status", "ddress already in use", "annot assign requested address", "borted", "cannot bind", "has max",
    ]

    @Test func quotedRefusalsAreThoseOfTheSources() throws {
        let sources = try SourceTree.files(under: "Sources", named: [".swift", ".c"]).map {
            try SourceTree.text(of: $0)
        }
        let codes = try SourceTree.text(of: "docs/operations.md").split(separator: "\n").filter {
            $0.hasPrefix("| 3 |") || $0.hasPrefix("| SIG")
        }
        let symptoms = try SourceTree.text(of: "docs/troubleshooting.md").split(separator: "\n").filter {
            $0.hasPrefix("| ") && !$0.hasPrefix("| what")
        }
        #expect(codes.count > 15 && symptoms.count > 20)
        let columns = codes.map { $0.split(separator: "|")[1] } + symptoms.map { $0.split(separator: "|")[0] }
        for when in columns {
            for quote in when.matches(of: /`([^`]+)`/) {
                // Capitals and ellipses stand for what differs; the rest is looked up part by part.
                let parts = quote.output.1.split { !($0.isLowercase || " -".contains($0)) }
                for part in parts.map({ $0.trimmingCharacters(in: .whitespaces) })
                where part.count > 5 && !Self.foreign.contains(part) {
                    #expect(sources.contains { $0.contains(part) }, "nothing says \"\(part)\", of \(quote.output.1)")
                }
            }
        }
    }
}
