import MPaxosInvariants
import MPaxosPersistentMemory
import MPaxosStorage
import Synchronization

/// A snapshot of the state that the engine orders and the executor makes, between batches.
package final class SnapshotOrder: Sendable {
    private let isWanted = Atomic<Bool>(false)
    /// Microseconds.
    private let begunAt = Atomic<UInt64>(0)
    private let pieces = Atomic<UInt64>(0)
    private let wake: @Sendable () -> Void
    private let made = Mutex<Result<StateSnapshot, PoolError>?>(nil)

    /// - Parameter wake: has the executor look for orders. Called by the engine's thread.
    package init(wake: @escaping @Sendable () -> Void = {}) { self.wake = wake }

    /// Engine. One at a time: until `collect` has given something, the order stands.
    func place() {
        invariant(!isPlaced, "one snapshot is ordered at a time")
        isWanted.store(true, ordering: .releasing)
        wake()
    }

    /// Engine: what was ordered, once it is there.
    func collect() -> Result<StateSnapshot, PoolError>? {
        made.withLock { result in
            defer { result = nil }
            return result
        }
    }

    /// Executor. Whether it is to make one now.
    package var isPlaced: Bool { isWanted.load(ordering: .relaxed) }

    /// Executor: it pauses from now on.
    package func begin(at now: UInt64) { begunAt.store(now, ordering: .relaxed) }

    /// Executor: a piece more is copied.
    package func advance() { pieces.add(1, ordering: .relaxed) }

    /// Engine: pieces of all snapshots that were made. While it rises, the executor gets on.
    var progress: UInt64 { pieces.load(ordering: .relaxed) }

    /// Engine: since when the executor paused for the snapshot that was collected.
    var pausedSince: UInt64 { begunAt.load(ordering: .relaxed) }

    /// Executor: the order is done.
    package func deliver(_ result: Result<StateSnapshot, PoolError>) {
        // In this order: who has collected the result may place the next order.
        isWanted.store(false, ordering: .releasing)
        made.withLock { $0 = result }
    }
}
