import Foundation
import MPaxosQueues
import Testing

private struct Item: BitwiseCopyable {
    var producer: Int
    var number: Int
    var check: Int
}

@Suite struct MPSCRingTests {
    @Test(arguments: [2, 8, 64]) func refusesWhenFullAndGoesOn(capacity: Int) {
        let ring = MPSCRing<Int>.allocate(capacity: capacity)
        defer { ring.deallocate() }
        #expect(ring.isEmpty && ring.pop() == nil && ring.capacity == capacity)
        for round in 0..<5 {
            for i in 0..<capacity { #expect(ring.push(round + i)) }
            #expect(!ring.push(-1) && ring.count == capacity)
            #expect(ring.pop() == round)
            #expect(ring.push(round + capacity) && !ring.push(-1))
            for i in 1...capacity { #expect(ring.pop() == round + i) }
            #expect(ring.pop() == nil && ring.isEmpty && ring.count == 0)
        }
    }

    @Test(arguments: [2, 128]) func carriesEverythingEachProducersInOrder(capacity: Int) {
        let ring = MPSCRing<Item>.allocate(capacity: capacity)
        let producers = 3
        let each = 200_000
        let workers = (0..<producers).map { producer in
            Worker {
                for number in 0..<each {
                    while !ring.push(Item(producer: producer, number: number, check: producer ^ ~number)) {
                        sched_yield()
                    }
                }
            }
        }
        var next = [Int](repeating: 0, count: producers)
        var received = 0
        var wrong = 0
        let deadline = Date(timeIntervalSinceNow: 60)
        while received < producers * each {
            guard let item = ring.pop() else {
                if Date() > deadline { break }
                sched_yield()
                continue
            }
            received += 1
            if item.check != item.producer ^ ~item.number || item.number != next[item.producer] { wrong += 1 }
            next[item.producer] = item.number + 1
        }
        #expect(received == producers * each && wrong == 0)
        for worker in workers { #expect(worker.join()) }
        #expect(ring.isEmpty)
        ring.deallocate()
    }
}
