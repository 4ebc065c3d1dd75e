import Testing

/// The tables of `CONTRIBUTING.md`, held against the repository.
@Suite struct ContributingTests {
    /// The environment variables that programs, tests and scripts look at.
    @Test func eachSwitchIsInTheTable() throws {
        let used = try switches(
            in: ["Sources", "Tests", "scripts", "Benchmarks", ".ci"].flatMap {
                try SourceTree.files(under: $0, named: [".swift", ".c", ".h", ".py", ".java", ".sh", ""])
            } + ["Package.swift"])
        let text = try SourceTree.text(of: "CONTRIBUTING.md")
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `MPAXOS_") }
        let listed = rows.map { $0.split(separator: "`")[1].prefix { $0 != "=" } }.map(String.init)
        #expect(Set(listed).count == listed.count, "each switch has one row")
        #expect(Set(listed).subtracting(used) == [], "nothing looks at these")
        #expect(used.subtracting(listed) == [], "these are not in the table of CONTRIBUTING.md")
    }

    @Test func eachFolderHasItsTests() throws {
        let text = try SourceTree.text(of: "CONTRIBUTING.md")
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `Sources/") }
        let named = rows.flatMap { row in
            row.split(separator: "|")[0].matches(of: /`Sources\/(\w+)`/).map { String($0.output.1) }
        }
        #expect(named.sorted() == (try SourceTree.modules()).sorted())
        let package = try SourceTree.text(of: "Package.swift")
        for row in rows {
            for match in row.matches(of: /\b([A-Z]\w+)Tests\b/) {
                #expect(package.contains("of: \"\(match.output.1)\""), "there are no \(match.output.0)")
            }
        }
    }

    private func switches(in files: [String]) throws -> Set<String> {
        try files.reduce(into: []) { found, file in
            // This file speaks of what switches begin with.
            if file.hasSuffix("ContributingTests.swift") { return }
            for match in try SourceTree.text(of: file).matches(of: /\bMPAXOS_[A-Z][A-Z_]*[A-Z]\b/) {
                found.insert(String(match.output))
            }
        }
    }
}
