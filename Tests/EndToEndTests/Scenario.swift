import Foundation
import Testing

/// One end-to-end scenario: a Python script that starts clusters of the `mpaxos` executable and talks to them with a
/// client of its own, which shares nothing with this project but the protocol's description.
struct Scenario {
    /// How the replicas' stages are laid on threads.
    enum Threads: String, CaseIterable, CustomTestStringConvertible {
        case fused, staged

        var testDescription: String { rawValue }
    }

    let script: String
    let name: String

    /// Seconds; a scenario that takes longer counts as hanging, and says where. Far more than any takes on a busy
    /// machine.
    private static let limit = 180

    /// The exit code of a scenario that this machine lacks something for.
    private static let skipped: Int32 = 77

    /// Runs it as a process of its own, and fails with what it printed, the ends of the replicas' logs included.
    func run(_ threads: Threads = .fused, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let log = FileManager.default.temporaryDirectory.appending(
            path: "mpaxos-\(script)-\(name)-\(UUID().uuidString).log")
        try Data().write(to: log)
        defer { try? FileManager.default.removeItem(at: log) }
        let output = try FileHandle(forWritingTo: log)
        let code = try await Self.execute(
            [
                "python3", Self.folder.appending(path: "\(script).py").path, name, "--threads", threads.rawValue,
                "--limit", "\(Self.limit)", "--lifeline",
            ], output: output)
        try output.close()
        let text = String(decoding: try Data(contentsOf: log), as: UTF8.self)
        if code == Self.skipped {
            #if compiler(>=6.3)
                try Test.cancel("\(text)", sourceLocation: sourceLocation)
            #else
                print(text)
                return
            #endif
        }
        if code != 0 {
            Issue.record(
                "\(script).py \(name) (\(threads)) ended with \(code):\n\(text)", sourceLocation: sourceLocation)
        }
    }

    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "scenarios")

    /// Whether the executable is one that MPAXOS_EXECUTABLE names, in place of this package's debug build.
    static var runsNamedExecutable: Bool { ProcessInfo.processInfo.environment["MPAXOS_EXECUTABLE"] != nil }

    /// The executable under test: beside the test bundle, where the package's products are built.
    private static var executable: String {
        if let named = ProcessInfo.processInfo.environment["MPAXOS_EXECUTABLE"] { return named }
        let bundle = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        return bundle.deletingLastPathComponent().appending(path: "mpaxos").path
    }

    /// Standard input is a lifeline: when it ends, because this process has, the scenario cleans up and ends too.
    /// When the test is cancelled, the scenario is told to end, and cleans up.
    private static func execute(_ arguments: [String], output: FileHandle) async throws -> Int32 {
        var environment = ProcessInfo.processInfo.environment
        environment["MPAXOS_EXECUTABLE"] = executable
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["PYTHONUNBUFFERED"] = "1"
        let lifeline = Pipe()
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [environment["MPAXOS_PYTHON"] ?? arguments[0]] + arguments.dropFirst()
        process.environment = environment
        process.standardInput = lifeline
        process.standardOutput = output
        process.standardError = output
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                process.terminationHandler = { continuation.resume(returning: $0.terminationStatus) }
                do {
                    try process.run()
                } catch {
                    process.terminationHandler = nil
                    continuation.resume(throwing: error)
                }
            }
        } onCancel: {
            if process.isRunning { process.terminate() }
        }
    }
}
