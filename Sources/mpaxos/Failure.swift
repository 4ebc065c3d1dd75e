import Dispatch
import Foundation
import Glibc

/// A command that did not do what was asked, with the exit code that says how.
struct Failure: Error {
    enum Code: Int32 {
        /// The thing asked is not so: an absent key, damage found.
        case notSo = 1
        case usage = 2
        /// Refused for safety.
        case refused = 3
        /// The cluster does not answer.
        case noAnswer = 4
    }

    let code: Code
    /// For standard error; empty when the output has said it already.
    let message: String

    init(_ code: Code, _ message: String = "") {
        self.code = code
        self.message = message
    }
}

/// One message on standard error.
func say(_ message: String) {
    writeWhole(Array("mpaxos: \(message)\n".utf8), to: STDERR_FILENO)
}

/// Writes `text` to standard error, and waits a second at most for a reader that is slow: for what is said before the
/// end.
func sayBriefly(_ text: String) {
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        writeWhole(Array(text.utf8), to: STDERR_FILENO)
        done.signal()
    }
    _ = done.wait(timeout: .now() + 1)
}

/// Writes a line to standard output from a thread of its own: who calls has other things to do than to wait for a
/// reader.
func printAside(_ line: String) {
    Thread.detachNewThread { Output.announce(line) }
}

/// Writes all of `bytes`, however many calls it takes.
/// - Returns: whether all could be written. Of what standard error does not take there is nobody left to tell.
@discardableResult
func writeWhole(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return false }
        rest = rest.dropFirst(count)
    }
    return true
}
