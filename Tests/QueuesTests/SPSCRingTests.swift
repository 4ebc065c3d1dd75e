import Foundation
import MPaxosCSupport
import MPaxosQueues
import Testing

private struct Slot: BitwiseCopyable, Equatable {
    var number: UInt64
    var copy: UInt64
    var padding: (UInt64, UInt64) = (0, 0)

    init(_ number: UInt64) {
        self.number = number
        copy = ~number
    }
    static func == (a: Slot, b: Slot) -> Bool { a.number == b.number && a.copy == b.copy }
}

@Suite struct SPSCRingTests {
    @Test func staysInvisibleUntilPublished() {
        let ring = SPSCRing<Int>.allocate(capacity: 8)
        defer { ring.deallocate() }
        #expect(!ring.publish())
        #expect(ring.push(1) && ring.push(2))
        #expect(ring.isEmpty && ring.count == 0 && ring.pop() == nil)
        #expect(ring.publish())
        #expect(!ring.publish())
        #expect(!ring.isEmpty && ring.count == 2)
        #expect(ring.push(3))
        #expect(ring.pop() == 1 && ring.pop() == 2 && ring.pop() == nil)
        ring.publish()
        #expect(ring.pop() == 3 && ring.isEmpty)
    }

    @Test(arguments: [1, 2, 4, 64]) func refusesWhenFullAndGoesOn(capacity: Int) {
        let ring = SPSCRing<Int>.allocate(capacity: capacity)
        defer { ring.deallocate() }
        #expect(ring.capacity == capacity)
        var next = 0
        for round in 0..<5 {
            #expect(ring.free == capacity && !ring.isFull)
            for i in 0..<capacity { #expect(ring.push(round * 1000 + i)) }
            #expect(!ring.push(-1) && ring.isFull && ring.free == 0)
            ring.publish()
            #expect(ring.count == capacity)
            // One out, one in, at the brim.
            #expect(ring.pop() == round * 1000)
            #expect(ring.push(round * 1000 + capacity) && !ring.push(-1))
            ring.publish()
            for i in 1...capacity { #expect(ring.pop() == round * 1000 + i) }
            #expect(ring.pop() == nil)
            next += capacity
        }
    }

    @Test func peekLeavesTheElementAndMayChangeIt() {
        let ring = SPSCRing<Int>.allocate(capacity: 4)
        defer { ring.deallocate() }
        #expect(ring.peek() == nil)
        _ = ring.push(7)
        _ = ring.push(8)
        ring.publish()
        #expect(ring.peek()?.pointee == 7)
        ring.peek()?.pointee = 70
        #expect(ring.count == 2 && ring.peek()?.pointee == 70)
        ring.skip()
        #expect(ring.pop() == 8 && ring.peek() == nil)
    }

    @Test(arguments: [1, 2, 64, 1024]) func carriesEverythingInOrderBetweenTwoThreads(capacity: Int) {
        let ring = SPSCRing<Slot>.allocate(capacity: capacity)
        let total: UInt64 = capacity == 1 ? 100_000 : 1_000_000
        let producer = Worker {
            var random = XorShift(seed: UInt64(capacity))
            var next: UInt64 = 0
            while next < total {
                for _ in 0..<(1 + random.next() % 8) where next < total {
                    if !ring.push(Slot(next)) { break }
                    next += 1
                }
                if !ring.publish() { sched_yield() }
            }
        }
        var expected: UInt64 = 0
        var wrong = 0
        let deadline = Date(timeIntervalSinceNow: 60)
        while expected < total {
            guard let slot = ring.pop() else {
                if Date() > deadline { break }
                sched_yield()
                continue
            }
            if slot != Slot(expected) { wrong += 1 }
            expected += 1
        }
        #expect(expected == total && wrong == 0)
        #expect(producer.join())
        #expect(ring.isEmpty)
        ring.deallocate()
    }
}
