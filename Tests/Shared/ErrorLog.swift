import Logging

/// What was logged as an error.
final class ErrorLog: LogHandler, @unchecked Sendable {
    // Unchecked: the links log on the test's thread.
    var errors: [String] = []
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.error

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) { errors.append("\(event.message)") }
}
