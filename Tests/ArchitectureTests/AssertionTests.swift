import Testing

/// Rules are stated by `invariant` and `broken`, which speak in every build.
@Suite struct AssertionTests {
    @Test func nothingIsAssertedThatCannotSpeak() throws {
        let silent = try Regex(#"\b(precondition|preconditionFailure|assert|assertionFailure|fatalError)\("#)
        for file in try SourceTree.files(under: "Sources", named: [".swift"]) {
            for line in try SourceTree.text(of: file).split(separator: "\n") where line.contains(silent) {
                // What the documentation of state machines warns of.
                if line.drop(while: { $0 == " " }).hasPrefix("///") { continue }
                Issue.record("\(file) asserts what a release build cannot say: \(line)")
            }
        }
    }
}
