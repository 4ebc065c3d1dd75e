import Dispatch
import MPaxosInvariants
import MPaxosPersistentMemory
import MPaxosStorage
import Synchronization

/// A snapshot of the state that the engine orders and the executor makes, between batches.
final class SnapshotOrder: Sendable {
    private let isWanted = Atomic<Bool>(false)
    /// Microseconds.
    private let begunAt = Atomic<UInt64>(0)
    private let made = Mutex<Result<StateSnapshot, PoolError>?>(nil)

    /// Engine. One at a time: until `collect` has given something, the order stands.
    func place() {
        invariant(!isPlaced, "one snapshot is ordered at a time")
        isWanted.store(true, ordering: .releasing)
    }

    /// Engine: what was ordered, once it is there.
    func collect() -> Result<StateSnapshot, PoolError>? {
        made.withLock { result in
            defer { result = nil }
            return result
        }
    }

    /// Executor. Whether it is to make one now.
    var isPlaced: Bool { isWanted.load(ordering: .relaxed) }

    /// Executor: it pauses from now on.
    func begin(at now: UInt64) { begunAt.store(now, ordering: .relaxed) }

    /// Engine: since when the executor paused for the snapshot that was collected.
    var pausedSince: UInt64 { begunAt.load(ordering: .relaxed) }

    /// Executor: the order is done.
    func deliver(_ result: Result<StateSnapshot, PoolError>) {
        // In this order: who has collected the result may place the next order.
        isWanted.store(false, ordering: .releasing)
        made.withLock { $0 = result }
    }
}

/// The slow work on a snapshot that comes in, done by the thread that runs the node, so that no lane stops for it: the
/// engine orders, and looks for the outcome.
final class TransferDesk: Sendable {
    enum Order {
        /// An empty pool for the snapshot.
        case prepare
        /// Check it, and make it durable.
        case finish(IncomingSnapshot)
        /// It is not wanted any more.
        case discard(IncomingSnapshot)
        /// All lanes are to stop; then it takes the place of this replica's state, once `view` is promised.
        case install(IncomingSnapshot, view: UInt64)
    }

    enum Outcome {
        case prepared(IncomingSnapshot)
        case finished
        case failed(PoolError)
    }

    private struct State {
        var orders: [Order] = []
        var outcome: Outcome?
    }

    private let state = Mutex(State())
    private let bell: DispatchSemaphore

    /// - Parameter bell: rung when there is an order.
    init(bell: DispatchSemaphore) { self.bell = bell }

    /// Engine.
    func order(_ order: Order) {
        state.withLock { $0.orders.append(order) }
        bell.signal()
    }

    /// Engine: the outcome of the last order that has one.
    func takeOutcome() -> Outcome? {
        state.withLock { state in
            defer { state.outcome = nil }
            return state.outcome
        }
    }

    /// Does what was ordered. The node's thread.
    /// - Returns: what is to be installed, if something is.
    func work(
        beside path: String, geometry: StateGeometry, identity: PoolIdentity, bootCount: UInt64
    ) -> (IncomingSnapshot, view: UInt64)? {
        while let order = state.withLock({ $0.orders.isEmpty ? nil : $0.orders.removeFirst() }) {
            do throws(PoolError) {
                switch order {
                case .prepare:
                    let snapshot = try IncomingSnapshot(beside: path, geometry: geometry)
                    report(.prepared(snapshot))
                case .finish(let snapshot):
                    try snapshot.finish(as: identity, bootCount: bootCount)
                    report(.finished)
                case .discard(let snapshot): snapshot.discard()
                case .install(let snapshot, let view): return (snapshot, view)
                }
            } catch {
                report(.failed(error))
            }
        }
        return nil
    }

    private func report(_ outcome: Outcome) { state.withLock { $0.outcome = outcome } }
}
