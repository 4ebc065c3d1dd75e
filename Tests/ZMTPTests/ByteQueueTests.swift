import Testing

@testable import MPaxosZMTP

@Suite struct ByteQueueTests {
    @Test func itBeginsWithNothing() {
        var queue = ByteQueue()
        #expect(queue.isEmpty && queue.count == 0 && queue.capacity == 0 && queue.room == 0)
        #expect(queue.bytes.baseAddress == nil && queue.bytes.count == 0)
        queue.remove(0)
        queue.removeAll()
        queue.release()
        #expect(queue.capacity == 0)
    }

    @Test(arguments: [0, 1, 1000, 1024, 1025, 100_000]) func itGrowsFromNothing(count: Int) {
        var queue = ByteQueue()
        defer { queue.release() }
        _ = queue.reserve(count)
        #expect(queue.isEmpty && queue.capacity == max(1024, count) && queue.room == queue.capacity)
        queue.append(pattern(count))
        #expect(queue.count == count && queue.bytes.elementsEqual(pattern(count)))
        #expect(queue.capacity == max(1024, count))
    }

    @Test func itGrowsTwofoldAtLeastAndKeepsWhatItHas() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append(pattern(1024))
        queue.remove(1)
        queue.append([1, 2])
        #expect(queue.capacity == 2048 && queue.bytes.elementsEqual(pattern(1024)[1...] + [1, 2]))
        queue.append(pattern(9000, seed: 5))
        #expect(queue.capacity == 1025 + 9000)
        #expect(queue.bytes.elementsEqual(pattern(1024)[1...] + [1, 2] + pattern(9000, seed: 5)))
    }

    @Test func itKeepsOrderWhileItGrows() {
        var queue = ByteQueue()
        defer { queue.release() }
        var written: UInt8 = 0
        var read: UInt8 = 0
        for step in 0..<5000 {
            let count = step * 7 % 23
            let place = queue.reserve(count)
            for index in 0..<count {
                place.storeBytes(of: written, toByteOffset: index, as: UInt8.self)
                written &+= 1
            }
            queue.commit(count)
            // For a while more comes than goes.
            let taken = min(queue.count, step * 5 % (step < 2000 ? 17 : 29))
            for index in 0..<taken {
                #expect(queue.bytes[index] == read)
                read &+= 1
            }
            queue.remove(taken)
        }
        #expect(queue.capacity > 1024)
        queue.removeAll()
        #expect(queue.isEmpty)
    }

    /// Once half of the memory lies free in front, what is left is moved there instead of growing.
    @Test func itCompacts() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append(pattern(1000))
        queue.remove(600)
        #expect(queue.room == 24)
        queue.append(pattern(500, seed: 9))
        #expect(queue.capacity == 1024 && queue.room == 124)
        #expect(queue.bytes.elementsEqual(pattern(1000)[600...] + pattern(500, seed: 9)))
        // Less than half is free: to move it for little room would be done again and again.
        queue.remove(400)
        queue.append(pattern(200, seed: 2))
        #expect(queue.capacity == 2048 && queue.bytes.elementsEqual(pattern(500, seed: 9) + pattern(200, seed: 2)))
    }

    @Test func itGrowsWhenAllThatIsFreeIsTooLittle() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append(pattern(1000))
        queue.remove(600)
        queue.append(pattern(625, seed: 4))
        #expect(queue.capacity == 2048 && queue.bytes.elementsEqual(pattern(1000)[600...] + pattern(625, seed: 4)))
    }

    /// What is moved may overlap the place that it goes to.
    @Test func itCompactsOverItself() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append(pattern(1024))
        queue.remove(512)
        queue.append(pattern(500, seed: 1))
        queue.remove(512)
        queue.append(pattern(512, seed: 2))
        #expect(queue.capacity == 1024 && queue.bytes.elementsEqual(pattern(500, seed: 1) + pattern(512, seed: 2)))
    }

    @Test func anEmptyQueueHasAllItsRoomAgain() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append(pattern(1000))
        queue.remove(1000)
        #expect(queue.isEmpty && queue.room == 1024)
        queue.append(pattern(1000))
        queue.removeAll()
        #expect(queue.isEmpty && queue.room == 1024)
    }

    @Test func whatIsReservedCountsOnceItIsCommitted() {
        var queue = ByteQueue()
        defer { queue.release() }
        queue.append([1])
        queue.reserve(10).storeBytes(of: 2, as: UInt8.self)
        #expect(queue.count == 1)
        queue.commit(1)
        #expect(queue.bytes.elementsEqual([1, 2]))
        queue.append([])
        queue.append(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(queue.count == 2)
    }

    @Test func itCanBeUsedAgainOnceReleased() {
        var queue = ByteQueue()
        queue.append(pattern(5000))
        queue.remove(10)
        queue.release()
        #expect(queue.isEmpty && queue.capacity == 0 && queue.room == 0)
        queue.append(pattern(3))
        #expect(queue.capacity == 1024 && queue.bytes.elementsEqual(pattern(3)))
        queue.release()
        queue.release()
    }

    @Test func moreThanThereIsCannotBeTaken() async {
        await #expect(processExitsWith: .failure) {
            var queue = ByteQueue()
            queue.append([1, 2])
            queue.remove(3)
        }
        await #expect(processExitsWith: .failure) {
            var queue = ByteQueue()
            queue.commit(1)
        }
    }
}
