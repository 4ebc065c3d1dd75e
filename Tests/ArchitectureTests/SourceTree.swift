import Foundation

/// The package's own files, found from where this file was compiled.
enum SourceTree {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Folders of `Sources`.
    static func modules() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: root.appending(path: "Sources").path)
            .filter { !$0.hasPrefix(".") }
    }

    /// Files below `folder`, as paths from the root.
    /// - Parameter extensions: with their dot; "" for files without one.
    static func files(under folder: String, named extensions: Set<String>) throws -> [String] {
        let start = root.appending(path: folder)
        guard let walk = FileManager.default.enumerator(atPath: start.path) else { return [] }
        return walk.compactMap { $0 as? String }
            .filter { path in
                let name = path.split(separator: "/").last ?? ""
                let dot = name.lastIndex(of: ".")
                var isFolder: ObjCBool = false
                let exists = FileManager.default.fileExists(
                    atPath: start.appending(path: path).path, isDirectory: &isFolder)
                return exists && !isFolder.boolValue && extensions.contains(dot.map { String(name[$0...]) } ?? "")
                    && !path.split(separator: "/").contains { $0.hasPrefix(".") || $0 == "__pycache__" }
            }
            .map { "\(folder)/\($0)" }
            .sorted()
    }

    static func text(of file: String) throws -> String {
        try String(contentsOf: root.appending(path: file), encoding: .utf8)
    }

    /// Runs a program in the package's folder: how it ended, and what it said.
    static func output(of command: [String]) throws -> (status: Int32, text: String) {
        let output = Pipe()
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = command
        process.currentDirectoryURL = root
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: text, as: UTF8.self))
    }
}
