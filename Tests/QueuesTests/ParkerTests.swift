import CSupport
import Foundation
import Queues
import Testing

/// A lane with one input ring, as the replica's lanes use the parker. Gives nil when it slept `patience` through although there
/// was something in the ring, or forever: a lost wake-up.
private func take(_ ring: SPSCRing<UInt64>, _ parker: Parker, patience: Int32 = 20_000) -> UInt64? {
    while true {
        if let element = ring.pop() { return element }
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

    /// Two lanes pass a number to and fro, each sleeping when it has nothing; now and then one delays so that the other's steps
    /// into sleep meet the wake-up at every point. A lost wake-up shows as a lane that sleeps 20 s.
    @Test func noWakeUpIsLostInPingPong() throws {
        let rounds: UInt64 = 60_000
        let there = SPSCRing<UInt64>.allocate(capacity: 2)
        let back = SPSCRing<UInt64>.allocate(capacity: 2)
        let one = try #require(Parker.allocate())
        let other = try #require(Parker.allocate())
        let echo = Worker {
            var random = XorShift(seed: 2)
            for _ in 0..<rounds {
                guard let number = take(there, other) else { return }
                for _ in 0..<(random.next() % 300) { csupport_pause() }
                guard back.push(number &+ 1) else { return }
                back.publish()
                one.wake()
            }
        }
        var random = XorShift(seed: 1)
        var done: UInt64 = 0
        while done < rounds {
            #expect(there.push(done))
            there.publish()
            other.wake()
            for _ in 0..<(random.next() % 300) { csupport_pause() }
            guard let answer = take(back, one) else { break }
            if answer != done + 1 { break }
            done += 1
        }
        #expect(done == rounds)
        #expect(echo.join())
        for ring in [there, back] { ring.deallocate() }
        for parker in [one, other] { parker.deallocate() }
    }
}

@Suite struct ManyProducersParkerTests {
    /// Three producers that each wait for the lane to have taken their number before they push the next: the lane is about to
    /// sleep nearly all the time, and every push must get it up.
    @Test func noWakeUpIsLostWithManyProducers() throws {
        let producers = 3
        let each = 8_000
        let ring = MPSCRing<Int>.allocate(capacity: 8)
        let parker = try #require(Parker.allocate())
        let taken = (0..<producers).map { _ in SPSCRing<Int>.allocate(capacity: 2) }
        let workers = (0..<producers).map { producer in
            Worker { [acknowledgement = taken[producer]] in
                var random = XorShift(seed: UInt64(producer + 1))
                for number in 0..<each {
                    for _ in 0..<(random.next() % 500) { csupport_pause() }
                    if !ring.push(producer) { return }
                    parker.wake()
                    while acknowledgement.pop() != number { sched_yield() }
                }
            }
        }
        var counts = [Int](repeating: 0, count: producers)
        var lost = false
        while !lost && counts.reduce(0, +) < producers * each {
            if let producer = ring.pop() {
                _ = taken[producer].push(counts[producer])
                taken[producer].publish()
                counts[producer] += 1
                continue
            }
            parker.prepareToPark()
            if !ring.isEmpty {
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
        for acknowledgement in taken { acknowledgement.deallocate() }
        ring.deallocate()
        parker.deallocate()
    }
}
