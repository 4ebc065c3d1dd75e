import Dispatch
import Foundation
import MPaxosClient
import MPaxosReplica
import MPaxosStateMachines
import MPaxosTopology
import Synchronization
import Testing

/// A replica that executes otherwise than the others.
@Suite struct DriftTests {
    /// Real replicas, one of which executes otherwise from some command on, under load that never pauses.
    @Test func driftIsFoundUnderLoad() throws {
        let cluster = try NodeCluster()
        for member in cluster.topology.replicas { try cluster.format(member.id, for: Drifter.self) }
        for id in [0, 1] as [UInt16] { try cluster.start(id, as: Drifter.self) }
        defer { cluster.stop() }
        Drifter.drifts.store(true, ordering: .releasing)
        let node = try cluster.open(2, as: Drifter.self)
        let ended = DispatchSemaphore(value: 0)
        let outcome = Outcome()
        Thread.detachNewThread {
            do throws(ReplicaError) {
                try node.run { _, _ in }
            } catch {
                outcome.text.withLock { $0 = error.description }
            }
            ended.signal()
        }
        let client = try ClusterClient(endpoints: cluster.endpoints, options: ClientOptions(timeout: .seconds(30)))
        let session = try client.open()
        let deadline = ContinuousClock.now + .seconds(90)
        while outcome.text.withLock({ $0 }) == nil, ContinuousClock.now < deadline {
            _ = try client.submit([1], session: session)
        }
        let text = outcome.text.withLock { $0 } ?? "it goes on"
        #expect(text.contains("differs from that of a majority"), "\(text)")
        node.stop()
        #expect(ended.wait(timeout: .now() + 10) == .success)
        #expect(try client.query([]).body.count == 8)
    }

    private final class Outcome: Sendable { let text = Mutex<String?>(nil) }
}

/// Counts its commands. One that was made while `drifts` is set keeps another state from the 500th on.
private struct Drifter: StateMachine {
    static let drifts = Atomic<Bool>(false)
    private let sum: PersistentCounter
    private let stray: PersistentCounter
    private let isDrifting = Self.drifts.load(ordering: .acquiring)

    init(in transaction: Transaction) {
        sum = PersistentCounter(at: transaction.rootSlot(0))
        stray = PersistentCounter(at: transaction.rootSlot(1))
    }

    static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? { nil }

    func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        let count = sum.add(1, in: transaction)
        if isDrifting, count == 500 { _ = stray.add(1, in: transaction) }
    }

    func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        reply.append(littleEndian: sum.value(in: transaction))
    }
}
