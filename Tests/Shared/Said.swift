import Dispatch
import Foundation
import Logging
import Synchronization

/// A log handler that keeps what it is told.
final class Said: Sendable {
    private struct Handler: LogHandler {
        let said: Said
        var metadata: Logger.Metadata = [:]
        var metadataProvider: Logger.MetadataProvider?
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            said.before?()
            let all = (event.metadata ?? [:]).sorted { $0.key < $1.key }.filter { $0.key != "late_s" }
            said.state.withLock {
                $0.lines.append("\(event.level) \(event.message)" + all.map { " \($0.key)=\($0.value)" }.joined())
            }
        }
    }

    private struct State {
        var lines: [String] = []
        var before: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    var lines: [String] { state.withLock { $0.lines } }
    /// Called before each line.
    var before: (@Sendable () -> Void)? {
        get { state.withLock { $0.before } }
        set { state.withLock { $0.before = newValue } }
    }

    var logger: Logger { Logger(label: "said") { _ in Handler(said: self) } }

    func count(of text: String) -> Int { lines.count { $0.contains(text) } }

    func awaits(_ text: String) async -> Bool {
        let end = ContinuousClock.now + .seconds(20)
        while count(of: text) == 0, .now < end { try? await Task.sleep(for: .milliseconds(5)) }
        return count(of: text) > 0
    }
}
