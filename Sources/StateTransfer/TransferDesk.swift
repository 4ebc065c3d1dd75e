import MPaxosPersistentMemory
import MPaxosStorage
import Synchronization

/// The slow work on a snapshot that comes in, done by the thread that runs the node, so that no lane stops for it: the
/// engine orders, and looks for the outcome.
package final class TransferDesk: Sendable {
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
    private let ring: @Sendable () -> Void

    /// - Parameter ring: called when there is an order, by the engine's thread.
    package init(ring: @escaping @Sendable () -> Void) { self.ring = ring }

    /// Engine.
    func order(_ order: Order) {
        state.withLock { $0.orders.append(order) }
        ring()
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
    package func work(with files: some SnapshotFiles) -> (IncomingSnapshot, view: UInt64)? {
        while let order = state.withLock({ $0.orders.isEmpty ? nil : $0.orders.removeFirst() }) {
            do throws(PoolError) {
                switch order {
                case .prepare:
                    report(.prepared(try files.prepare()))
                case .finish(let snapshot):
                    try files.finish(snapshot)
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

/// Where the pool for a snapshot comes from, and what makes it one of this replica.
package protocol SnapshotFiles {
    /// An empty pool for a snapshot.
    func prepare() throws(PoolError) -> IncomingSnapshot

    /// Checks a snapshot that is whole, and makes it a durable pool of this replica.
    func finish(_ snapshot: IncomingSnapshot) throws(PoolError)
}
