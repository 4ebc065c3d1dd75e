import CSupport
import Foundation
import Messaging
import Queues
import Synchronization

/// A thread that polls one or more stages, spins for a moment when none has work, then sleeps in a ZeroMQ poll on all
/// their sockets and its parker's eventfd.
final class Lane: @unchecked Sendable {
    // Unchecked: `stages` is touched by the lane's thread alone once `start` has run; `stopping` is atomic.

    /// Others wake the lane through this after they have published something for one of its stages.
    let parker: Parker

    private let name: String
    private var stages: [any Stage]
    private let spins: Int
    private let stopping = Atomic<Bool>(false)
    private let stopped = DispatchSemaphore(value: 0)

    /// Most microseconds that a lane sleeps: a stage that waits for another stage's progress (room in the log, say)
    /// without a ring between them looks again after this.
    private static let longestSleep: UInt64 = 20_000
    private static let budget = 256

    /// - Parameter spins: polls without work before the lane sleeps; 0 where cores are scarce.
    init(name: String, parker: Parker, spins: Int) {
        self.name = name
        self.parker = parker
        self.spins = spins
        stages = []
    }

    func add(_ stage: any Stage) { stages.append(stage) }

    func start() {
        precondition(!stages.isEmpty, "a lane without stages")
        let thread = Thread { [self] in
            csupport_name_thread(name)
            run()
            stopped.signal()
        }
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// Any thread. The lane finishes what it is at and closes its stages.
    func stop() {
        stopping.store(true, ordering: .releasing)
        parker.wake()
    }

    func join() { stopped.wait() }

    private func run() {
        var poller = Poller(capacity: 32)
        let wakeUp = poller.add(fileDescriptor: parker.fileDescriptor)
        for stage in stages { stage.register(in: &poller) }
        // The lane keeps its stages alive: polling them counts no references.
        let unowned = stages.map { UnownedStage($0) }
        unowned.withUnsafeBufferPointer { run($0, &poller, wakeUp) }
        for stage in stages { stage.close() }
    }

    private func run(_ stages: UnsafeBufferPointer<UnownedStage>, _ poller: inout Poller, _ wakeUp: Int) {
        var idle = 0
        while !stopping.load(ordering: .acquiring) {
            if poll(stages) {
                idle = 0
                continue
            }
            idle += 1
            if idle <= spins {
                csupport_pause()
                continue
            }
            parker.prepareToPark()
            if poll(stages) || stopping.load(ordering: .acquiring) {
                parker.cancelPark()
                idle = 0
                continue
            }
            guard parker.park() else { continue }
            _ = poller.wait(timeoutMilliseconds: sleepMilliseconds(stages))
            parker.drain(signalled: poller.isReadable(wakeUp))
        }
    }

    private func poll(_ stages: UnsafeBufferPointer<UnownedStage>) -> Bool {
        let now = csupport_monotonic_us()
        var worked = false
        for i in 0..<stages.count where stages[i].stage.poll(budget: Self.budget, now: now) { worked = true }
        return worked
    }

    private func sleepMilliseconds(_ stages: UnsafeBufferPointer<UnownedStage>) -> Int {
        let now = csupport_monotonic_us()
        var deadline = now + Self.longestSleep
        for i in 0..<stages.count { deadline = min(deadline, stages[i].stage.nextDeadline) }
        return deadline <= now ? 0 : Int((deadline - now + 999) / 1000)
    }
}

/// A stage that somebody else keeps alive.
private struct UnownedStage {
    unowned(unsafe) let stage: any Stage

    init(_ stage: any Stage) { self.stage = stage }
}
