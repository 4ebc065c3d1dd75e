import MPaxosFrames
import MPaxosMessaging
import MPaxosQueues
import MPaxosWire
import Testing

@testable import MPaxosPipeline

/// The road of the large commands, beside that of the others.
@Suite struct BatcherTests {
    private static let largeFrom = 1_000

    /// A batcher of replica 1, with the rings that it takes from.
    private final class Rig {
        let rings = Rings(outstanding: 8_192)
        private var batcher: Batcher
        private let place = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 64)

        init(largeFrom: Int = BatcherTests.largeFrom) {
            batcher = Batcher(origin: 1, batchBytes: 65_536, delay: 0, rings: rings)
            batcher.largeFrom = largeFrom
        }

        deinit {
            batcher.discard()
            rings.deallocate()
            place.deallocate()
        }

        func submit(_ tag: UInt64, _ count: Int) {
            TrafficEnd.payload(count, salt: Int(tag)).withUnsafeBytes {
                let pushed = rings.submissions.push(
                    Submission(
                        kind: CommandCode.submit.rawValue, tag: tag, session: 3, sequence: tag,
                        body: Body(copying: $0, into: rings.bodies)))
                precondition(pushed, "more submissions than the ring has room for")
            }
            rings.submissions.publish()
        }

        /// A run of one command of replica 2. False: it was refused.
        func forwarded(_ tag: UInt64, _ count: Int) -> Bool {
            let frame = Frame(size: PeerHeader.size + CommandRecord.size(bodyCount: count))
            TrafficEnd.payload(min(count, 1_000), salt: Int(tag)).withUnsafeBytes { bytes in
                let body = CommandRecord.writeHeader(
                    into: frame.bytes.baseAddress! + PeerHeader.size, kind: .submit, origin: 2, tag: tag, session: 3,
                    sequence: tag, bodyCount: count)
                body.copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
            }
            return batcher.takeForwarded(frame)
        }

        /// Tags of the commands in the next batch.
        func fill(capacity: Int = 65_536) -> [UInt64] {
            let (bytes, commands) = batcher.fill(place, capacity: capacity)
            let tags = Self.tags(UnsafeRawBufferPointer(start: place, count: bytes))
            #expect(tags.count == commands)
            return tags
        }

        /// The next large batch: who it is of, and its commands.
        func takeLarge() -> (isOwn: Bool, tags: [UInt64])? {
            guard let batch = batcher.takeLarge() else { return nil }
            defer { batch.frame.discard() }
            return (batch.isOwn, Self.tags(batch.records))
        }

        // A batcher cannot be copied, and so not be looked at by what a test expects.
        var hasLarge: Bool { batcher.hasLarge }
        var nextSize: Int? { batcher.nextSize() }
        var largeFrom: Int {
            get { batcher.largeFrom }
            set { batcher.largeFrom = newValue }
        }
        func sortOut() { batcher.sortOut() }
        func dropForwarded() -> Int { batcher.dropForwarded() }

        var largeTags: [UInt64] {
            var tags: [UInt64] = []
            while let batch = takeLarge() { tags += batch.tags }
            return tags
        }

        private static func tags(_ bytes: UnsafeRawBufferPointer) -> [UInt64] {
            var records = CommandRecords(bytes)
            var tags: [UInt64] = []
            while let record = records.next() {
                let beginning = record.body.prefix(1_000)
                #expect(beginning.elementsEqual(TrafficEnd.payload(beginning.count, salt: Int(record.tag))))
                tags.append(record.tag)
            }
            #expect(!records.isDamaged)
            return tags
        }
    }

    /// Large commands are set aside, in order; those behind them do not wait.
    @Test func largeOnesAreSetAside() throws {
        let rig = Rig()
        for (tag, count) in [(1, 10), (2, 5_000), (3, 20), (4, 2_000), (5, 3_000), (6, 30)] {
            rig.submit(UInt64(tag), count)
        }
        #expect(!rig.hasLarge)
        #expect(rig.nextSize == CommandRecord.size(bodyCount: 10))
        #expect(rig.fill() == [1, 3, 6])
        #expect(rig.nextSize == nil)
        #expect(rig.hasLarge)
        let first = try #require(rig.takeLarge())
        #expect(first.isOwn && first.tags == [2])
        #expect(rig.largeTags == [4, 5], "each is a batch of its own")
        #expect(!rig.hasLarge)
        #expect(rig.rings.bodies.waiting == 0)
    }

    @Test func whatIsLarge() {
        let rig = Rig(largeFrom: CommandRecord.size(bodyCount: 1_000))
        rig.submit(1, 1_000)
        rig.submit(2, 1_001)
        #expect(rig.fill() == [1])
        #expect(rig.largeTags == [2])
        rig.largeFrom = .max
        rig.submit(3, 60_000)
        #expect(rig.nextSize == CommandRecord.size(bodyCount: 60_000))
        #expect(rig.fill() == [3])
        #expect(!rig.hasLarge)
    }

    /// What was ordinary when it was looked at, and is large by now, makes way, too.
    @Test func theLimitFalls() {
        let rig = Rig(largeFrom: .max)
        rig.submit(1, 5_000)
        rig.submit(2, 10)
        #expect(rig.nextSize == CommandRecord.size(bodyCount: 5_000))
        rig.largeFrom = Self.largeFrom
        #expect(rig.nextSize == CommandRecord.size(bodyCount: 10))
        #expect(rig.fill() == [2])
        #expect(rig.largeTags == [1])
    }

    /// Also while nothing may be proposed.
    @Test func sortingOut() {
        let rig = Rig()
        rig.submit(1, 5_000)
        rig.submit(2, 10)
        rig.submit(3, 5_000)
        rig.sortOut()
        #expect(rig.hasLarge)
        #expect(rig.largeTags == [1], "what is behind an ordinary one waits with it")
        rig.sortOut()
        #expect(!rig.hasLarge)
        #expect(rig.fill() == [2])
        #expect(rig.largeTags == [3])
    }

    /// Own ones and those of followers go as they came; what is not large goes with the others.
    @Test func largeRunsOfFollowers() throws {
        let rig = Rig()
        #expect(rig.forwarded(1, 5_000))
        rig.submit(2, 5_000)
        rig.sortOut()
        #expect(rig.forwarded(3, 5_000))
        #expect(rig.forwarded(4, 100))
        #expect(rig.fill() == [4])
        let batches = [rig.takeLarge(), rig.takeLarge(), rig.takeLarge()].map { $0?.tags }
        #expect(batches == [[1], [2], [3]])
        #expect(rig.forwarded(5, 5_000))
        let last = try #require(rig.takeLarge())
        #expect(!last.isOwn && last.tags == [5])
    }

    /// What followers forwarded goes when this replica does not lead any more; its own clients' commands stay, in
    /// order.
    @Test func dropForwarded() {
        let rig = Rig()
        rig.submit(1, 5_000)
        rig.sortOut()
        #expect(rig.forwarded(2, 5_000))
        #expect(rig.forwarded(3, 10))
        rig.submit(4, 5_000)
        rig.sortOut()
        #expect(rig.forwarded(5, 5_000))
        rig.submit(6, 10)
        #expect(rig.dropForwarded() == 3)
        #expect(rig.dropForwarded() == 0)
        #expect(rig.fill() == [6])
        #expect(rig.largeTags == [1, 4])
    }

    /// Places of bodies are given back in the order in which they were taken: else later ones would be written over
    /// those that wait.
    @Test func bodiesInOrder() {
        let rig = Rig()
        var tag: UInt64 = 0
        // Round the ring of bytes, and on.
        for round in 0..<20 {
            for count in [100, 200_000, 100, 150_000, 50] {
                tag += 1
                rig.submit(tag, count)
            }
            guard round % 4 == 3 else { continue }
            let first = tag - 19
            let large = (first...tag).filter { ($0 - 1) % 5 % 2 == 1 }
            #expect(rig.fill() == (first...tag).filter { !large.contains($0) })
            #expect(rig.largeTags == large)
            #expect(rig.rings.bodies.waiting == 0)
        }
    }

    /// So many bytes of followers are held, on both roads together.
    @Test func mostBytesOfFollowers() {
        let rig = Rig(largeFrom: 100_000)
        let size = (1 << 20) - PeerHeader.size - CommandRecord.headerSize
        var taken: UInt64 = 0
        #expect(rig.forwarded(1_000, 50_000))
        while rig.forwarded(taken + 1, size), taken < 100 { taken += 1 }
        #expect(taken == 63)
        #expect(!rig.forwarded(500, size))
        #expect(rig.takeLarge()?.tags == [1])
        #expect(rig.forwarded(501, size))
        #expect(!rig.forwarded(502, size))
        #expect(rig.dropForwarded() == 64)
        for tag in 600..<664 as Range<UInt64> { #expect(rig.forwarded(tag, size)) }
        #expect(!rig.forwarded(700, size))
    }

    /// Where the road for large ones is full, they go with the others.
    @Test func theRoadIsFull() {
        let rig = Rig(largeFrom: 40)
        let most = 4_096
        for tag in 1...UInt64(most + 2) { rig.submit(tag, 100) }
        #expect(rig.nextSize == CommandRecord.size(bodyCount: 100))
        #expect(rig.forwarded(9_000, 100))
        #expect(rig.fill(capacity: 200) == [9_000])
        #expect(rig.fill(capacity: 200) == [UInt64(most + 1)])
        #expect(rig.takeLarge()?.tags == [1])
        #expect(rig.nextSize == nil, "the last found room")
        #expect(rig.largeTags == Array(2...UInt64(most)) + [UInt64(most + 2)])
    }
}
