import Foundation
import MPaxosCSupport
import MPaxosQueues
import Testing

/// A lane with one input ring, as the replica's lanes use the parker: it spins for a while, then sleeps. Gives nil when
/// it slept `patience` ms through: a lost wake-up.
private func take(
    _ ring: SPSCRing<UInt64>, _ parker: Parker, spinning turns: UInt64, patience: Int32 = 20_000
) -> UInt64? {
    while true {
        for _ in 0...turns {
            if let element = ring.pop() { return element }
            csupport_pause()
        }
        parker.prepareToPark()
        if !ring.isEmpty {
            parker.cancelPark()
            continue
        }
        guard parker.park() else { continue }
        var descriptor = pollfd(fd: parker.fileDescriptor, events: Int16(POLLIN), revents: 0)
        let ready = poll(&descriptor, 1, patience)
        parker.drain(signalled: ready > 0)
        if ready == 0 { return nil }
    }
}

private func isReadable(_ parker: Parker) -> Bool {
    var descriptor = pollfd(fd: parker.fileDescriptor, events: Int16(POLLIN), revents: 0)
    return poll(&descriptor, 1, 0) > 0
}

@Suite struct ParkerTests {
    @Test func wakingARunningLaneTouchesNoDescriptor() throws {
        let parker = try #require(Parker.allocate())
        defer { parker.deallocate() }
        parker.wake()
        #expect(!isReadable(parker))
        parker.prepareToPark()
        parker.cancelPark()
        parker.wake()
        #expect(!isReadable(parker))
    }

    @Test func wakeBetweenPrepareAndParkForbidsToSleep() throws {
        let parker = try #require(Parker.allocate())
        defer { parker.deallocate() }
        parker.prepareToPark()
        parker.wake()
        #expect(!parker.park())
        #expect(!isReadable(parker))
    }

    @Test func wakeOfASleepingLaneMakesTheDescriptorReadableOnce() throws {
        let parker = try #require(Parker.allocate())
        defer { parker.deallocate() }
        for _ in 0..<3 {
            parker.prepareToPark()
            #expect(parker.park())
            #expect(!isReadable(parker))
            parker.wake()
            parker.wake()
            #expect(isReadable(parker))
            parker.drain()
            #expect(!isReadable(parker))
        }
        // Timed out: unsignalled, then runs on.
        parker.prepareToPark()
        #expect(parker.park())
        parker.drain(signalled: false)
        parker.wake()
        #expect(!isReadable(parker))
    }

    /// Two lanes pass short bursts of numbers to and fro. Each waits a random while before every number and spins a
    /// random while before it sleeps, so that the steps into sleep meet the wake-up at every point. A lost wake-up
    /// shows as a lane that sleeps 20 s.
    @Test func noWakeUpIsLostInPingPong() throws {
        let rounds: UInt64 = 50_000
        let there = SPSCRing<UInt64>.allocate(capacity: 4)
        let back = SPSCRing<UInt64>.allocate(capacity: 4)
        let one = try #require(Parker.allocate())
        let other = try #require(Parker.allocate())
        let echo = Worker { pingPong(rounds, first: false, core: 1, there, other, back, one) }
        let main = Worker { pingPong(rounds, first: true, core: 0, back, one, there, other) }
        try #require(main.join(seconds: 120) && echo.join(seconds: 120))
        for ring in [there, back] {
            #expect(ring.isEmpty)
            ring.deallocate()
        }
        for parker in [one, other] { parker.deallocate() }
    }
}

/// One side of the game: takes a burst of three, gives a burst of three.
private func pingPong(
    _ rounds: UInt64, first: Bool, core: Int32, _ input: SPSCRing<UInt64>, _ own: Parker, _ output: SPSCRing<UInt64>,
    _ peer: Parker
) {
    // Two lanes on one core never meet in mid-step; a machine with one core cannot do better.
    _ = csupport_pin_thread(core)
    var random = XorShift(seed: UInt64(core + 1))
    for round in 0..<rounds {
        for turn in 0...1 {
            for number in round * 3..<round * 3 + 3 {
                if (turn == 0) == first {
                    for _ in 0..<(random.next() % 64) { csupport_pause() }
                    if !output.push(number) { Issue.record("the ring is full at \(number)") }
                    output.publish()
                    peer.wake()
                } else {
                    let taken = take(input, own, spinning: random.next() % 128)
                    if taken != number {
                        Issue.record("lost wake-up: \(taken.map(String.init) ?? "nothing") in place of \(number)")
                        return
                    }
                }
            }
        }
    }
}

@Suite struct ManyProducersParkerTests {
    /// Three producers that each wait for the lane to have taken their number before they push the next: the lane is
    /// about to sleep nearly all the time, and every push must get it up.
    @Test func noWakeUpIsLostWithManyProducers() throws {
        let producers = 3
        let each = 8_000
        let parker = try #require(Parker.allocate())
        let offered = (0..<producers).map { _ in SPSCRing<Int>.allocate(capacity: 2) }
        let taken = (0..<producers).map { _ in SPSCRing<Int>.allocate(capacity: 2) }
        let workers = (0..<producers).map { producer in
            Worker { [ring = offered[producer], acknowledgement = taken[producer]] in
                var random = XorShift(seed: UInt64(producer + 1))
                for number in 0..<each {
                    for _ in 0..<(random.next() % 500) { csupport_pause() }
                    if !ring.push(number) { return }
                    ring.publish()
                    parker.wake()
                    while acknowledgement.pop() != number { sched_yield() }
                }
            }
        }
        var counts = [Int](repeating: 0, count: producers)
        var lost = false
        while !lost && counts.reduce(0, +) < producers * each {
            if let producer = offered.indices.first(where: { offered[$0].pop() != nil }) {
                _ = taken[producer].push(counts[producer])
                taken[producer].publish()
                counts[producer] += 1
                continue
            }
            parker.prepareToPark()
            if !offered.allSatisfy(\.isEmpty) {
                parker.cancelPark()
            } else if parker.park() {
                var descriptor = pollfd(fd: parker.fileDescriptor, events: Int16(POLLIN), revents: 0)
                let ready = poll(&descriptor, 1, 20_000)
                parker.drain(signalled: ready > 0)
                lost = ready == 0
            }
        }
        #expect(!lost)
        try #require(counts == [Int](repeating: each, count: producers))
        for worker in workers { #expect(worker.join()) }
        for ring in offered + taken { ring.deallocate() }
        parker.deallocate()
    }
}
