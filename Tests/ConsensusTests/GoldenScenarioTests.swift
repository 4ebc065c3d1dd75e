import Foundation
import Testing

/// The scenarios of Tests/Scenarios, each held against the messages that it is expected to show. With MPAXOS_REWRITE=1
/// in the environment they are written anew: then read the difference.
@Suite struct GoldenScenarioTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Scenarios")
    static let isRewriting = ProcessInfo.processInfo.environment["MPAXOS_REWRITE"] == "1"

    static var names: [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".txt") }.sorted()
    }

    @Test func thereAreScenarios() { #expect(Self.names.count >= 7) }

    @Test(arguments: names)
    func showsWhatIsExpected(name: String) throws {
        let file = Self.folder.appending(path: name)
        let expected = try String(contentsOf: file, encoding: .utf8)
        let actual = try ScenarioInterpreter.run(expected)
        if Self.isRewriting {
            try actual.write(to: file, atomically: true, encoding: .utf8)
            return
        }
        guard actual != expected else { return }
        let lines = expected.split(separator: "\n", omittingEmptySubsequences: false)
        for (number, (is_, was)) in zip(actual.split(separator: "\n", omittingEmptySubsequences: false), lines)
            .enumerated()
        where is_ != was {
            Issue.record("\(name):\(number + 1): shows \"\(is_)\", expected \"\(was)\"")
            return
        }
        Issue.record("\(name): shows more or fewer lines than expected")
    }

    @Test(arguments: [
        ("cluster 3\nfly 1\n----\nnothing\n", "no such command"), ("cluster 0\n----\n", "1 to 9 replicas"),
        ("cluster 3\nelect 3\n----\n", "a replica"), ("----\n", "without commands"),
        ("cluster 3\n\n", "without an expectation"),
        ("cluster 3\ndeliver 1->2\n----\n", "in flight"), ("cluster 3\nlose 1->2 gossip\n----\n", "a kind of message"),
    ])
    func mistakesAreTold(text: String, what: String) {
        let mistake = #expect(throws: ScenarioInterpreter.Mistake.self) { try ScenarioInterpreter.run(text) }
        #expect(mistake?.description.contains(what) == true)
    }
}
