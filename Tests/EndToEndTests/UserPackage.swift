import Foundation

/// A package in a folder of its own, which depends on this checkout by its path. It is built where the tests were:
/// what it depends on is there already, be there a network or not.
struct UserPackage {
    static let checkout = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// The folder of this test's executable: SCRATCH/TRIPLE/CONFIGURATION.
    private static let products = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    private static let scratch = products.deletingLastPathComponent().deletingLastPathComponent()

    private let folder = FileManager.default.temporaryDirectory.appending(path: "mpaxos-user-\(UUID().uuidString)")

    /// A package of a module for each of `modules`, and of an executable with `sources`, by their names.
    init(modules: [String], sources: [String: String]) throws {
        let executable = "MachineOfAUser"
        for module in modules { try write("let nothing = 0\n", to: "Sources/\(module)/\(module).swift") }
        for (name, text) in sources { try write(text, to: "Sources/\(executable)/\(name)") }
        let targets = modules.map { #".target(name: "\#($0)", path: "Sources/\#($0)")"# }
        let dependencies = modules.map { #""\#($0)""# }
        let product = #".product(name: "MPaxosSM", package: "\#(Self.checkout.lastPathComponent)")"#
        try write(
            """
            // swift-tools-version: 6.2
            import PackageDescription

            let package = Package(
                name: "user",
                dependencies: [.package(path: "\(Self.checkout.path)")],
                targets: [
                    \(targets.joined(separator: ",\n        ")),
                    .executableTarget(
                        name: "\(executable)", dependencies: [\((dependencies + [product]).joined(separator: ", "))]),
                ]
            )

            """, to: "Package.swift")
        let versions = "Package.resolved"
        try? FileManager.default.copyItem(
            at: Self.checkout.appending(path: versions), to: folder.appending(path: versions))
    }

    func remove() {
        try? FileManager.default.removeItem(at: folder)
    }

    /// Has SwiftPM put together all packages and targets: the cheapest of its commands at which names collide.
    func loadGraph() throws -> (status: Int32, text: String) { try run("package", then: ["show-dependencies"]) }

    func build() throws -> (status: Int32, text: String) {
        try run("build", then: ["--configuration", Self.products.lastPathComponent])
    }

    /// The lock of the scratch folder is held by the `swift test` that waits for this test, and does nothing meanwhile.
    private func run(_ command: String, then arguments: [String]) throws -> (status: Int32, text: String) {
        let output = Pipe()
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments =
            [
                "swift", command, "--package-path", folder.path, "--scratch-path", Self.scratch.path, "--ignore-lock",
            ] + arguments
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: text, as: UTF8.self))
    }

    private func write(_ text: String, to path: String) throws {
        let file = folder.appending(path: path)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
    }
}
