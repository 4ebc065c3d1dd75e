import Foundation

/// A package in a folder of its own, which depends on this checkout by its path.
struct UserPackage {
    static let checkout = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Where SwiftPM keeps what it has fetched for such packages, for the next run as well.
    private static let scratch = checkout.appending(path: ".build-user")

    private let folder = FileManager.default.temporaryDirectory.appending(path: "mpaxos-user-\(UUID().uuidString)")

    /// A package of an executable and of a module for each of `targets`.
    init(targets: [String]) throws {
        let name = "MachineOfAUser"
        for target in targets { try write("let nothing = 0\n", to: "Sources/\(target)/\(target).swift") }
        try write("import MPaxosSM\n", to: "Sources/\(name)/main.swift")
        let modules = targets.map { #".target(name: "\#($0)", path: "Sources/\#($0)")"# }
        let dependencies = targets.map { #""\#($0)""# }
        let product = #".product(name: "MPaxosSM", package: "\#(Self.checkout.lastPathComponent)")"#
        try write(
            """
            // swift-tools-version: 6.2
            import PackageDescription

            let package = Package(
                name: "user",
                dependencies: [.package(path: "\(Self.checkout.path)")],
                targets: [
                    \(modules.joined(separator: ",\n        ")),
                    .executableTarget(
                        name: "\(name)", dependencies: [\((dependencies + [product]).joined(separator: ", "))]),
                ]
            )

            """, to: "Package.swift")
        // The versions that this checkout was built with are at hand, be there a network or not.
        let resolved = "Package.resolved"
        try? FileManager.default.copyItem(
            at: Self.checkout.appending(path: resolved), to: folder.appending(path: resolved))
    }

    func remove() {
        try? FileManager.default.removeItem(at: folder)
    }

    /// Has SwiftPM put together all packages and targets: the cheapest of its commands at which names collide.
    func loadGraph() throws -> (status: Int32, text: String) {
        let output = Pipe()
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [
            "swift", "package", "--package-path", folder.path, "--scratch-path", Self.scratch.path, "show-dependencies",
        ]
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
