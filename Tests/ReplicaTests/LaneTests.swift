import Dispatch
import MPaxosCSupport
import MPaxosInvariants
import MPaxosPipeline
import MPaxosQueues
import Synchronization
import Testing

@testable import MPaxosMetrics
@testable import MPaxosReplica

@Suite struct LaneTests {
    /// A stage whose turn lasts until it is let go.
    private final class Freezing: Stage {
        let isFrozen = Atomic(false)
        private let ice: DispatchSemaphore

        init(_ ice: DispatchSemaphore) { self.ice = ice }

        override func poll(budget: Int, now: UInt64) -> Bool {
            if isFrozen.load(ordering: .acquiring) {
                ice.wait()
                isFrozen.store(false, ordering: .releasing)
            }
            return false
        }
    }

    /// A lane that sleeps is in good health; one that waits for a disk in the middle of a turn is not, until it goes
    /// on.
    @Test func aLaneThatStandsStill() async throws {
        let board = StatusBoard(members: [0])
        board.isReady = true
        let ice = DispatchSemaphore(value: 0)
        let stage = Freezing(ice)
        let lane = Lane(
            name: "executor", parker: try #require(Parker.allocate()), spins: 0, turn: board.turn(of: "executor"))
        lane.add(stage)
        lane.start {}
        // Longer asleep than a turn may last.
        try await Task.sleep(for: .milliseconds(1200))
        #expect(await eventually { board.unreadiness(now: csupport_monotonic_us()) == nil })
        stage.isFrozen.store(true, ordering: .releasing)
        #expect(
            await eventually {
                board.unreadiness(now: csupport_monotonic_us())?.hasPrefix("its lane executor has stood still") == true
            })
        ice.signal()
        #expect(await eventually { board.unreadiness(now: csupport_monotonic_us()) == nil })
        lane.stop()
        lane.join()
        lane.parker.deallocate()
    }

    private func eventually(_ condition: () -> Bool) async -> Bool {
        let end = ContinuousClock.now + .seconds(20)
        while !condition(), .now < end { try? await Task.sleep(for: .milliseconds(10)) }
        return condition()
    }
}
