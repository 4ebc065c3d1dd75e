import Foundation

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

/// A small, fast, seeded source of delays: no two rounds of a stress test meet alike, every run does the same.
struct XorShift {
    private var state: UInt64
    init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}
