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
}
