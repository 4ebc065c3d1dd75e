import Foundation
import MPaxosFrames
import MPaxosMessaging
import Testing

/// A thread that a test starts and waits for.
final class Worker: Sendable {
    private let done = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable () -> Void) {
        let done = done
        Thread.detachNewThread {
            body()
            done.signal()
        }
    }

    /// False: still running after `seconds`.
    func join(seconds: Double = 60) -> Bool { done.wait(timeout: .now() + seconds) == .success }
}

/// Receives the next frame, waiting up to `seconds` for it. False: none came.
func receive(_ frame: borrowing Frame, from socket: borrowing Socket, seconds: Double = 10) -> Bool {
    let deadline = Date(timeIntervalSinceNow: seconds)
    var poller = Poller(capacity: 1)
    _ = poller.add(socket)
    while !socket.receive(frame) {
        if Date() > deadline { return false }
        _ = poller.wait(timeoutMilliseconds: 100)
    }
    return true
}

/// Receives a whole message, waiting for it.
func receiveMessage(from socket: borrowing Socket, seconds: Double = 10) -> [[UInt8]]? {
    let frame = Frame()
    var message: [[UInt8]] = []
    repeat {
        if !receive(frame, from: socket, seconds: seconds) { return nil }
        message.append([UInt8](frame.bytes))
    } while frame.hasMore
    return message
}

/// Sends a whole message; the outcome of the first frame that was not accepted.
func send(_ message: [[UInt8]], to socket: borrowing Socket) -> SendOutcome {
    for (index, part) in message.enumerated() {
        let outcome = part.withUnsafeBytes { socket.send(copying: $0, more: index + 1 < message.count) }
        if outcome != .sent { return outcome }
    }
    return .sent
}

/// Sends, again until accepted: while the connection is being made there is none to send to.
func sendEventually(_ message: [[UInt8]], to socket: borrowing Socket, seconds: Double = 10) -> Bool {
    let deadline = Date(timeIntervalSinceNow: seconds)
    while send(message, to: socket) != .sent {
        if Date() > deadline { return false }
        sched_yield()
    }
    return true
}

// A note on the tests: #expect cannot take apart a call with a non-copyable argument; in a comparison it need not.

func pattern(_ count: Int, seed: Int = 0) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ seed) } }

func makeFrame(_ bytes: [UInt8]) -> Frame {
    let frame = Frame()
    bytes.withUnsafeBytes { frame.rebuild(copying: $0) }
    return frame
}
