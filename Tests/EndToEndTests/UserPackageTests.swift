import Foundation
import Testing

/// A package of somebody who depends on this one.
///
/// SwiftPM refuses two targets of one name among a package and all that it depends on: so a user may call the modules
/// of a package what the folders of `Sources` and `Tests` are called here.
@Suite("A user's package", .serialized, .timeLimit(.minutes(4)))
struct UserPackageTests {
    /// The executables of a package are products for those who depend on it, and have one name space.
    private static let executables: Set = ["mpaxos"]

    /// What a user may want to call a module of their own.
    private static func plainNames() throws -> [String] {
        try ["Sources", "Tests"].flatMap {
            try FileManager.default.contentsOfDirectory(atPath: UserPackage.checkout.appending(path: $0).path)
        }.filter { !$0.hasPrefix(".") && !executables.contains($0) && $0 != "MPaxosSM" }
    }

    @Test func mayHaveModulesOfOurPlainNames() throws {
        let names = try Self.plainNames()
        #expect(names.contains("Wire") && names.contains("WireTests"))
        let package = try UserPackage(targets: names)
        defer { package.remove() }
        let answer = try package.loadGraph()
        #expect(answer.status == 0, "\(answer.text)")
    }

    /// The test above can fail: with a name that is taken the same command does.
    @Test func mayHaveNoneOfOurNames() throws {
        let package = try UserPackage(targets: ["MPaxosWire"])
        defer { package.remove() }
        let answer = try package.loadGraph()
        #expect(answer.status != 0 && answer.text.contains("conflicting name"), "\(answer.text)")
    }
}
