import Foundation
import Testing

/// A package of somebody who depends on this one.
///
/// SwiftPM refuses two targets of one name among a package and all that it depends on: so a user may call the modules
/// of a package what the folders of `Sources` and `Tests` are called here.
@Suite("A user's package", .serialized, .timeLimit(.minutes(4)))
struct UserPackageTests {
    /// Names that a package shows to those who depend on it, and that are ours.
    private static let products: Set = ["mpaxos", "MPaxosSM"]

    /// What a user may want to call modules of a package.
    private static func plainNames(in folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: UserPackage.checkout.appending(path: folder).path)
            .filter { !$0.hasPrefix(".") && !products.contains($0) }
    }

    @Test func mayHaveModulesOfOurPlainNames() throws {
        let names = try Self.plainNames(in: "Sources") + Self.plainNames(in: "Tests")
        #expect(names.contains("Wire") && names.contains("WireTests"))
        let package = try UserPackage(modules: names, sources: ["main.swift": "import MPaxosSM\n"])
        defer { package.remove() }
        let answer = try package.loadGraph()
        #expect(answer.status == 0, "\(answer.text)")
    }

    /// The test above can fail: with a name that is taken the same command does.
    @Test func mayHaveNoneOfOurNames() throws {
        let package = try UserPackage(modules: ["MPaxosWire"], sources: ["main.swift": "import MPaxosSM\n"])
        defer { package.remove() }
        let answer = try package.loadGraph()
        #expect(answer.status != 0 && answer.text.contains("conflicting name"), "\(answer.text)")
    }

    /// The state machine of the README, and the program that runs a replica of it. Without the names of our tests:
    /// where these are built, they would be built in their place.
    @Test func buildsWhatTheReadmeShows() throws {
        let readme = try String(contentsOf: UserPackage.checkout.appending(path: "README.md"), encoding: .utf8)
        let blocks = readme.components(separatedBy: "```swift\n").dropFirst().map {
            $0.components(separatedBy: "```")[0]
        }
        try #require(blocks.count == 2, "a state machine, and a program")
        let package = try UserPackage(
            modules: Self.plainNames(in: "Sources"),
            sources: ["ReplicatedCounter.swift": "import MPaxosSM\n\n" + blocks[0], "main.swift": blocks[1]])
        defer { package.remove() }
        let answer = try package.build()
        #expect(answer.status == 0, "\(answer.text)")
    }
}
