import Foundation
import MPaxosCSupport
import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosQueues
import MPaxosTransport
import Synchronization

/// A thread that polls one or more stages, spins for a moment when none has work, then sleeps until one of
/// their sockets or its parker's eventfd is signalled.
final class Lane: @unchecked Sendable {
    // Unchecked: `stages` and `watched` are touched by the lane's thread alone from `start` until it has stopped;
    // `stopping` is atomic.

    /// Others wake the lane through this after they have published something for one of its stages.
    let parker: Parker

    private let name: String
    private var stages: [Stage]
    private var watched: [any Watched] = []
    private let spins: Int
    /// When the turn began that it is at.
    private let turn: Gauge
    private let stopping = Atomic<Bool>(false)
    private let stopped = DispatchSemaphore(value: 0)

    /// Most microseconds that a lane sleeps. Whatever a stage waits for wakes its lane, or is a deadline of its own;
    /// this is for what the machine does not tell.
    private static let longestSleep: UInt64 = 1_000_000
    private static let budget = 256

    /// - Parameters:
    ///   - spins: polls without work before the lane sleeps; 0 where cores are scarce.
    ///   - turn: told the time at which each turn begins, and before a sleep when the next one will.
    init(name: String, parker: Parker, spins: Int, turn: Gauge) {
        self.turn = turn
        self.name = name
        self.parker = parker
        self.spins = spins
        stages = []
    }

    /// Adds a stage to each turn, behind those added before. A stage may have several places in a turn.
    func add(_ stage: Stage) { stages.append(stage) }

    /// What is received from for one of the stages.
    func watch(_ watched: any Watched) { self.watched.append(watched) }

    /// - Parameter prepare: called on the lane's thread first of all.
    func start(_ prepare: @escaping @Sendable () -> Void) {
        invariant(!stages.isEmpty, "a lane has stages")
        let thread = Thread { [self] in
            csupport_name_thread(name)
            prepare()
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

    /// When it returns, the lane has stopped and let its stages go.
    func join() {
        stopped.wait()
        stages = []
        watched = []
    }

    private func run() {
        let watch = Watch.allocate(capacity: 64)
        defer { watch.deallocate() }
        let wakeUp = watch.add(fileDescriptor: parker.fileDescriptor)
        var distinct: [Stage] = []
        for stage in stages where !distinct.contains(where: { $0 === stage }) { distinct.append(stage) }
        for source in watched { source.register(in: watch) }
        // The lane keeps its stages alive: polling them counts no references.
        let unmanaged = stages.map { Unmanaged.passUnretained($0) }
        unmanaged.withUnsafeBufferPointer { run($0, watch, wakeUp) }
        for stage in distinct { stage.close() }
        // Gone, not standing still.
        turn.store(0)
    }

    private func run(_ stages: UnsafeBufferPointer<Unmanaged<Stage>>, _ watch: Watch, _ wakeUp: Watch.Item) {
        var idle = 0
        var workedBefore = false
        while !stopping.load(ordering: .acquiring) {
            // Announced before the turn that may turn out to be the last: no other turn is needed to be sure.
            let mayPark = idle >= spins
            if mayPark { parker.prepareToPark() }
            if poll(stages) {
                if mayPark { parker.cancelPark() }
                idle = 0
                // What arrived meanwhile shows when the lane wants to sleep; but there may be work for ever.
                if workedBefore { watch.look(timeoutMilliseconds: 0) }
                workedBefore.toggle()
                continue
            }
            workedBefore = false
            guard mayPark else {
                idle += 1
                csupport_pause()
                watch.look(timeoutMilliseconds: 0)
                continue
            }
            // A stop after the look at the top has woken nobody.
            guard !stopping.load(ordering: .acquiring), parker.park() else { continue }
            let time = sleepMilliseconds(stages)
            // Asleep until then, and not standing still before.
            turn.store(csupport_monotonic_us() + UInt64(time) * 1000)
            watch.look(timeoutMilliseconds: time)
            parker.drain(signalled: watch.isReady(wakeUp))
            watch.wasEmpty(wakeUp)
        }
    }

    private func poll(_ stages: UnsafeBufferPointer<Unmanaged<Stage>>) -> Bool {
        let now = csupport_monotonic_us()
        turn.store(now)
        var worked = false
        for i in 0..<stages.count {
            if stages[i]._withUnsafeGuaranteedRef({ $0.poll(budget: Self.budget, now: now) }) { worked = true }
        }
        return worked
    }

    private func sleepMilliseconds(_ stages: UnsafeBufferPointer<Unmanaged<Stage>>) -> Int {
        let now = csupport_monotonic_us()
        var deadline = now + Self.longestSleep
        for i in 0..<stages.count {
            deadline = stages[i]._withUnsafeGuaranteedRef { min(deadline, $0.nextDeadline) }
        }
        return deadline <= now ? 0 : Int((deadline - now + 999) / 1000)
    }
}
