import Foundation
import Testing

@testable import MPaxosQueues

/// A ring and a list of what is in it, side by side.
private final class Model {
    struct Place {
        var pointer: UnsafeRawPointer
        var count: Int
        var seed: UInt8
    }

    let ring: ByteRing
    private(set) var places: [Place] = []
    private(set) var highest = 0
    private var seed: UInt8 = 0

    init(capacity: Int) { ring = .allocate(capacity: capacity) }

    deinit { ring.deallocate() }

    var isEmpty: Bool { places.isEmpty }

    func offset(_ place: Place) -> Int { place.pointer - UnsafeRawPointer(ring.memory) }

    /// Pushes so many bytes, and checks where they came to lie; false when that is outside of the ring.
    @discardableResult
    func push(_ count: Int) -> Bool {
        seed &+= 1
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0) &+ seed }
        let pointer = bytes.withUnsafeBytes { ring.push($0) }
        let place = Place(pointer: pointer, count: count, seed: seed)
        let isInside = ring.contains(pointer)
        if isInside {
            let start = offset(place)
            #expect(start + count <= ring.capacity && start % 8 == 0)
            for other in places where ring.contains(other.pointer) {
                #expect(start + count <= offset(other) || offset(other) + other.count <= start, "two places overlap")
            }
            highest = max(highest, start + count)
        }
        places.append(place)
        #expect(ring.waiting == places.reduce(0) { $0 + $1.count })
        return isInside
    }

    /// Releases the oldest, which must be as it was pushed.
    func release() {
        let place = places.removeFirst()
        let bytes = UnsafeRawBufferPointer(start: place.pointer, count: place.count)
        #expect((0..<place.count).allSatisfy { bytes[$0] == UInt8(truncatingIfNeeded: $0) &+ place.seed })
        ring.release(place.pointer, place.count)
        #expect(ring.waiting == places.reduce(0) { $0 + $1.count })
    }

    func releaseAll() {
        while !isEmpty { release() }
    }

    /// As if so many bodies had gone through before, whose places are all free again.
    func age(by count: UInt32) {
        func aged(_ released: UInt64) -> UInt64 {
            released & ~0xFFFF_FFFF | UInt64(UInt32(truncatingIfNeeded: released) &+ count)
        }
        ring.producer.pointee.pushes &+= count
        ring.producer.pointee.seen = aged(ring.producer.pointee.seen)
        ring.consumer.pointee.releases &+= count
        ring.released.pointee.store(aged(ring.released.pointee.load(ordering: .relaxed)), ordering: .relaxed)
    }
}

@Suite struct ByteRingTests {
    @Test(arguments: [8, 16, 64, 1000, 4096]) func isAsAListOfPlaces(capacity: Int) {
        let model = Model(capacity: capacity)
        var random = XorShift(seed: UInt64(capacity))
        func below(_ limit: Int) -> Int { Int(random.next() % UInt64(limit)) }
        let most = capacity & ~7
        var outside = 0
        for _ in 0..<3000 {
            // Now more pushes, now more releases.
            if model.isEmpty || below(8) < (below(100) < 50 ? 6 : 2) {
                let wasEmpty = model.isEmpty
                let isInside = model.push(1 + below(below(4) == 0 ? most : max(1, most / 8)))
                #expect(isInside || !wasEmpty, "an empty ring had no room")
                if !isInside { outside += 1 }
            } else {
                model.release()
            }
        }
        #expect(outside > 0)
        model.releaseAll()
        #expect(model.push(most))
        #expect(!model.push(1))
        model.releaseAll()
    }

    @Test func whatIsLargerLiesOutside() {
        let model = Model(capacity: 100)
        #expect(!model.push(101) && !model.push(97))  // whole words count
        #expect(model.push(96))
        model.releaseAll()
        #expect(model.push(1))
        #expect(!model.push(96))
        model.releaseAll()
    }

    @Test func whatLiesOutsideCanBeTakenBack() {
        let ring = ByteRing.allocate(capacity: 100)
        defer { ring.deallocate() }
        let bytes: [UInt8] = [1, 2, 3]
        let first = bytes.withUnsafeBytes { ring.push($0) }
        let second = bytes.withUnsafeBytes { ring.pushOutside($0) }
        let third = bytes.withUnsafeBytes { ring.pushOutside($0) }
        #expect(ring.waiting == 9 && memcmp(second, bytes, 3) == 0)
        ring.takeBack(third, 3)
        #expect(ring.waiting == 6)
        ring.release(first, 3)
        ring.release(second, 3)
        #expect(ring.waiting == 0)
    }

    /// An empty ring begins anew, wherever it was.
    @Test func beginsAnewWhenEmpty() {
        let model = Model(capacity: 1 << 10)
        for round in 0..<200 {
            let count = 1 + round * 5 % 1000
            #expect(model.push(count))
            model.releaseAll()
        }
        #expect(model.push(1 << 10))
        model.releaseAll()
    }

    /// Where it runs empty after each push, little of its memory is touched.
    @Test func staysAtItsStartWhileItRunsEmpty() {
        let model = Model(capacity: 64 << 10)
        for _ in 0..<5000 {
            #expect(model.push(300))
            model.release()
        }
        #expect(model.highest <= 4096 + 2 * 304)
    }

    @Test(arguments: [UInt32.max - 2, UInt32.max - 100, 1 << 31]) func countersGoRound(age: UInt32) {
        let model = Model(capacity: 1024)
        model.age(by: age)
        var random = XorShift(seed: UInt64(age))
        for _ in 0..<2000 {
            let isInside = model.push(1 + Int(random.next() % 200))
            if !isInside || random.next() % 3 == 0 { model.release() }
        }
        model.releaseAll()
        #expect(model.push(1024))
        model.releaseAll()
    }

    /// 4 Gi bodies later, without having been empty between: as many releases as when the ring was last empty are none.
    @Test func neverEmptyForAWholeRoundOfTheCounters() {
        let model = Model(capacity: 1024)
        // Places of 128: eight fill it, the ninth lies at the start again.
        for _ in 0..<8 { #expect(model.push(128)) }
        for _ in 0..<3 { model.release() }
        #expect(model.push(128))
        // What was released since then: all but a few of a whole round.
        model.age(by: .max - 4)
        model.release()
        model.release()
        #expect(model.ring.released.pointee.load(ordering: .relaxed) & 0xFFFF_FFFF == 0)
        for _ in 0..<20 { _ = model.push(128) }
        model.releaseAll()
    }

    @Test(arguments: [64, 1000, 64 << 10, 4 << 20])
    func carriesBytesBetweenTwoThreads(capacity: Int) {
        struct Element: BitwiseCopyable {
            var place: UnsafeRawPointer
            var count: Int
        }
        let ring = ByteRing.allocate(capacity: capacity)
        let elements = SPSCRing<Element>.allocate(capacity: 256)
        let total = 100_000
        // Some lie outside of the small ones.
        let largest = 2000
        @Sendable func size(_ number: Int) -> Int {
            var random = XorShift(seed: UInt64(number))
            let draw = Int(random.next() >> 33)
            return 1 + draw % (draw % 64 == 0 ? largest : min(largest, 60))
        }
        let producer = Worker {
            let source = UnsafeMutableRawBufferPointer.allocate(byteCount: 2000, alignment: 8)
            defer { source.deallocate() }
            let deadline = Date(timeIntervalSinceNow: 60)
            for number in 0..<total {
                let bytes = UnsafeMutableRawBufferPointer(rebasing: source[0..<size(number)])
                memset(bytes.baseAddress!, Int32(number & 0xFF), bytes.count)
                while true {
                    if !elements.isFull {
                        let place = ring.push(UnsafeRawBufferPointer(bytes))
                        _ = elements.push(Element(place: place, count: bytes.count))
                        break
                    }
                    elements.publish()
                    sched_yield()
                    if Date() > deadline { return }
                }
                if number % 5 == 0 { elements.publish() }
            }
            elements.publish()
        }
        let expected = UnsafeMutableRawBufferPointer.allocate(byteCount: 2000, alignment: 8)
        defer { expected.deallocate() }
        var next = 0
        var wrong = 0
        let deadline = Date(timeIntervalSinceNow: 60)
        while next < total {
            guard let element = elements.pop() else {
                if Date() > deadline { break }
                sched_yield()
                continue
            }
            memset(expected.baseAddress!, Int32(next & 0xFF), element.count)
            if element.count != size(next) || memcmp(element.place, expected.baseAddress!, element.count) != 0 {
                wrong += 1
            }
            ring.release(element.place, element.count)
            next += 1
        }
        #expect(next == total && wrong == 0)
        #expect(producer.join())
        elements.deallocate()
        ring.deallocate()
    }
}
