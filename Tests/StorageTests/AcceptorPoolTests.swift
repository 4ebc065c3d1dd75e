import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// A small pool in memory: 16 slots, an arena of 4 KiB.
private let small = AcceptorGeometry(slots: 16, arenaSize: 4096)

private func smallPool() throws -> AcceptorPool {
    let pool = try emptyPool(pages: 6)
    AcceptorPool.write(identity: identity, geometry: small, to: pool)
    return try open(pool)
}

private func open(_ pool: Pool) throws -> AcceptorPool {
    try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica)
}

private func reopened(_ pool: AcceptorPool) throws -> AcceptorPool { try open(copy(of: pool.pool)) }

@Suite struct AcceptorPoolTests {
    @Test func formatsAndOpensAFile() throws {
        let folder = Folder()
        let path = folder.file("acceptor.pool")
        try AcceptorPool.format(path: path, identity: identity, size: 8 << 20)
        do {
            let pool = try AcceptorPool(opening: path, expecting: "test cluster", replica: 7)
            #expect(pool.identity == identity)
            #expect(pool.promised == 0 && pool.established.view == 0 && pool.floor == 1)
            #expect(pool.entries.isEmpty && pool.used == 0)
            #expect(pool.slotCount >= 8192)
            #expect(pool.largestBatch > (8 << 20) / 8 + 64, "an eighth of the log fits into a batch")
            pool.record(promise: 5)
            pool.record(establishedView: 5, base: 3)
            let batch = try #require(pool.store(bytes("hello")))
            pool.record(instance: 1, view: 5, batch: batch)
            pool.record(instance: 2, view: 5, batch: .noop)
            pool.record(incarnation: 42, of: 3)
            pool.fence()
            pool.close()
        }
        let pool = try AcceptorPool(opening: path, expecting: "test cluster", replica: 7)
        #expect(pool.promised == 5 && pool.established == (5, 3))
        #expect(pool.incarnation(of: 3) == 42 && pool.incarnation(of: 4) == nil)
        #expect(pool.torn.count == 0)
        let entries = pool.entries
        #expect(entries.count == 2 && entries[2]?.batch == .noop)
        let first = try #require(entries[1])
        #expect(first.view == 5 && pool.content(of: first.batch) == bytes("hello") && pool.verify(first.batch))
        try pool.settle(executed: 0)
        pool.close()
    }

    @Test func keepsTheNewestVoteOfAnInstance() throws {
        let pool = try smallPool()
        for view in 1...5 as ClosedRange<UInt64> {
            let batch = try #require(pool.store(bytes("value of view \(view)")))
            pool.record(instance: 3, view: view, batch: batch)
            if view != 4 { pool.fence() }
            let again = try reopened(pool)
            let entry = try #require(again.entries[3])
            #expect(entry.view == view && again.content(of: entry.batch) == bytes("value of view \(view)"))
        }
        pool.record(instance: 3, view: .max, batch: try #require(pool.entries[3]).batch)
        #expect(try reopened(pool).entries[3]?.view == .max)
    }

    /// A vote that must stay is moved behind the newest, as it is; then its old place goes, and what lay behind it.
    @Test func theOldestVoteIsMoved() throws {
        let pool = try smallPool()
        for instance in 1...3 as ClosedRange<UInt64> {
            pool.record(instance: instance, view: 4, batch: try #require(pool.store(filled(900, UInt8(instance)))))
        }
        // The second is superseded: its place goes with the first.
        pool.record(instance: 2, view: 5, batch: try #require(pool.store(filled(100, 9))))
        pool.fence()
        #expect(pool.liveSpan(executed: 0) { _, _ in false } == 3 * 960 + 128)
        #expect(pool.reserve(1500) == nil && pool.moveOldest(above: 1) == nil, "what may be executed stays")
        let moved = try #require(pool.moveOldest(above: 0))
        #expect(moved.instance == 1 && pool.content(of: moved.batch) == filled(900, 1))
        _ = pool.makeRoom(for: 1500, instance: 4, executed: 0) { _, _ in false }
        #expect(pool.reserve(900) != nil, "the first and the superseded one have gone")
        let again = try reopened(pool)
        #expect(again.entries[1]?.view == 4 && again.entries[2]?.view == 5 && again.entries[3]?.view == 4)
        #expect(again.entries[1].map { again.content(of: $0.batch) } == filled(900, 1))
        #expect(again.entries[3].map { again.content(of: $0.batch) } == filled(900, 3))
    }

    private func filled(_ count: Int, _ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: count) }

    /// Two votes in one group must not leave the slot without the one that was fenced before them.
    @Test func anUnfencedVoteIsReplacedInPlace() throws {
        let pool = try smallPool()
        let slot = pool.slots.slot(of: 3)
        for view in 1...3 as ClosedRange<UInt64> {
            pool.record(instance: 3, view: view, batch: try #require(pool.store([UInt8(view)])))
            if view == 1 { pool.fence() }
        }
        let views = Set([0, 1].map { pool.slots.line(slot, $0).view })
        #expect(views == [1, 3])
    }

    @Test func aTornVoteIsRemovedAndTheOneBeforeItStands() throws {
        let pool = try smallPool()
        pool.record(instance: 3, view: 1, batch: try #require(pool.store(bytes("old"))))
        pool.fence()
        pool.record(instance: 3, view: 2, batch: try #require(pool.store(bytes("new"))))
        let image = try copy(of: pool.pool)
        let line = AcceptorGeometry.slotsOffset + pool.slots.slot(of: 3) * 128 + 64
        image.region.storeBytes(of: 99, toByteOffset: line + 8, as: UInt64.self)
        let recovered = try open(image)
        #expect(recovered.torn.count == 1)
        let entry = try #require(recovered.entries[3])
        #expect(entry.view == 1 && recovered.content(of: entry.batch) == bytes("old"))
        #expect(try reopened(recovered).torn.count == 0, "what recovery removed is gone")
    }

    @Test func aVoteWhoseBatchNeverArrivedIsRemoved() throws {
        let pool = try smallPool()
        pool.record(instance: 1, view: 1, batch: try #require(pool.store(bytes("arrived"))))
        pool.fence()
        pool.record(instance: 2, view: 1, batch: try #require(pool.store(bytes("lost"))))
        let image = try copy(of: pool.pool)
        image.region[small.arenaOffset + 64] ^= 1
        let recovered = try open(image)
        #expect(recovered.torn.count == 1 && Set(recovered.entries.keys) == [1])
    }

    @Test func aFencedBatchThatIsDamagedIsReported() throws {
        let pool = try smallPool()
        pool.record(instance: 1, view: 1, batch: try #require(pool.store(bytes("first"))))
        pool.fence()
        pool.record(instance: 2, view: 1, batch: try #require(pool.store(bytes("second"))))
        pool.fence()
        let image = try copy(of: pool.pool)
        image.region[small.arenaOffset] ^= 1
        let recovered = try open(image)
        #expect(throws: PoolError.self) { try recovered.settle(executed: 0) }
        try recovered.settle(executed: 1)
        #expect(recovered.verify(try #require(recovered.entries[1]).batch) == false)
    }

    @Test func afterAnOrderlyCloseATornVoteIsDamage() throws {
        let folder = Folder()
        let path = folder.file("acceptor.pool")
        try AcceptorPool.format(path: path, identity: identity, size: 8 << 20)
        let pool = try AcceptorPool(opening: path, expecting: "test cluster", replica: 7)
        pool.record(instance: 1, view: 1, batch: try #require(pool.store(bytes("value"))))
        let region = pool.pool.fileOffsetOfRegion
        let slot = pool.slots.slot(of: 1)
        pool.close()
        flipBit(in: path, at: region + AcceptorGeometry.slotsOffset + slot * 128 + 8)
        #expect(
            error(of: { _ = try AcceptorPool(opening: path, expecting: "test cluster", replica: 7) })?.kind == .damaged)
    }

    /// A torn or damaged line never shows an older record.
    @Test func oneDamagedCopyOfARecordIsRepairedTwoAreReported() throws {
        let pool = try smallPool()
        pool.record(promise: 9)
        pool.record(establishedView: 8, base: 4)
        pool.begin(start: 1)
        pool.record(life: Life(bootCount: 1, nonce: 5))
        pool.record(incarnation: 77, of: 1)
        pool.record(life: Life(bootCount: 3, nonce: 6), of: 1)
        pool.record(refusedLife: Life(bootCount: 2, nonce: 7), of: 1)
        pool.record(founding: .whole)
        pool.fence()
        let cells: [RecordCell] = [
            .promise, .established, .floor, .life, .begun, .founding, .peer(0), .peerLife(0), .refusedLife(0),
            RecordCell.nonce(of: 1).cell,
        ]
        for cell in cells {
            for lines in [[cell.primary], [cell.mirror], [cell.primary, cell.mirror]] {
                let image = try copy(of: pool.pool)
                for line in lines { image.region[line + 24] ^= 0x40 }
                if lines.count == 2 {
                    #expect(error(of: { _ = try open(image) })?.kind == .damaged)
                    continue
                }
                let recovered = try open(image)
                for other in cells { #expect(words(of: other, in: recovered) == words(of: other, in: pool)) }
                for other in lines == [cell.primary] ? [cell.mirror] : [cell.primary] {
                    recovered.pool.region[other + 24] ^= 0x40
                }
                let again = try reopened(recovered)
                #expect(words(of: cell, in: again) == words(of: cell, in: pool), "both copies are good again")
            }
        }
    }

    private func words(of cell: RecordCell, in pool: AcceptorPool) -> [UInt64] {
        [pool.cells[cell.index].first, pool.cells[cell.index].second]
    }

    /// Under a checksum that is right, as by a program with a fault.
    @Test func aFoundingThatIsNoneIsRefused() throws {
        for word in [3, 256, .max] as [UInt64] {
            let pool = try smallPool()
            pool.write(.founding, first: word, second: 0)
            pool.fence()
            #expect(error(of: { _ = try reopened(pool) })?.kind == .damaged)
        }
    }

    @Test func wrapsAroundAndKeepsWhatIsNotExecuted() throws {
        let pool = try smallPool()
        var random = Seeded(seed: 1)
        var contents: [UInt64: [UInt8]] = [:]
        var instance: UInt64 = 0
        var executed: UInt64 = 0
        var wraps = 0
        var lastOffset: UInt64 = 0
        while instance < 2000 {
            let content = (0..<1 + random.below(500)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let floor = pool.makeRoom(
                for: content.count, instance: instance + 1, executed: executed, isReferenced: { _, _ in true })
            #expect(floor <= executed + 1)
            guard pool.hasSlot(for: instance + 1), let batch = pool.store(content) else {
                try #require(executed < instance, "there is room when everything is executed")
                executed += 1
                continue
            }
            instance += 1
            if batch.offset % UInt64(small.arenaSize) < lastOffset % UInt64(small.arenaSize) { wraps += 1 }
            #expect(batch.offset % UInt64(small.arenaSize) + UInt64(batch.length) <= UInt64(small.arenaSize))
            lastOffset = batch.offset
            pool.record(instance: instance, view: 1, batch: batch)
            contents[instance] = content
            if random.below(3) == 0 { pool.fence() }
            if random.below(50) == 0 {
                pool.fence()
                let again = try reopened(pool)
                try again.settle(executed: executed)
                #expect(again.floor == pool.floor)
                #expect(Set(again.entries.keys) == Set(pool.floor...instance))
                for (number, entry) in again.entries { #expect(again.content(of: entry.batch) == contents[number]) }
                #expect(again.used <= pool.used)
            }
            #expect(pool.entries.count == Int(instance - pool.floor + 1))
        }
        #expect(wraps > 50)
        for number in pool.floor...instance {
            let entry = try #require(pool.entries[number])
            #expect(pool.content(of: entry.batch) == contents[number])
        }
    }

    @Test func makesRoomOnlyWhenItIsNeededAndThenSomeInAdvance() throws {
        let pool = try smallPool()
        for instance in 1...4 as ClosedRange<UInt64> {
            pool.record(instance: instance, view: 1, batch: try #require(pool.store(Array(repeating: 1, count: 1000))))
        }
        #expect(pool.makeRoom(for: 0, instance: 5, executed: 4, isReferenced: { _, _ in false }) == 1)
        #expect(pool.reserve(100) == nil)
        #expect(pool.makeRoom(for: 100, instance: 5, executed: 0, isReferenced: { _, _ in false }) == 1)
        #expect(pool.reserve(100) == nil, "nothing is executed, nothing may go")
        #expect(pool.makeRoom(for: 100, instance: 5, executed: 4, isReferenced: { _, _ in false }) == 2)
        #expect(pool.reserve(100) != nil)
        #expect(try reopened(pool).floor == 2)
    }

    @Test func aSlotIsUsedAgainOnlyAboveTheFloor() throws {
        let pool = try smallPool()
        for instance in 1...16 as ClosedRange<UInt64> { pool.record(instance: instance, view: 1, batch: .noop) }
        #expect(!pool.hasSlot(for: 17))
        #expect(pool.makeRoom(for: 0, instance: 17, executed: 0, isReferenced: { _, _ in false }) == 1)
        #expect(!pool.hasSlot(for: 17))
        #expect(pool.makeRoom(for: 0, instance: 17, executed: 16, isReferenced: { _, _ in false }) == 3)
        #expect(pool.hasSlot(for: 17))
        pool.record(instance: 17, view: 1, batch: .noop)
        pool.fence()
        #expect(Set(try reopened(pool).entries.keys) == Set(3...17))
    }

    @Test func supersededAndUnreferencedBatchesGoThoughNothingIsExecuted() throws {
        let pool = try smallPool()
        let old = try #require(pool.store(Array(repeating: 1, count: 1500)))
        pool.record(instance: 1, view: 1, batch: old)
        let unvoted = try #require(pool.store(Array(repeating: 2, count: 1000), for: 2))
        let new = try #require(pool.store(Array(repeating: 3, count: 1500)))
        pool.record(instance: 1, view: 2, batch: new)
        var asked: [UInt64] = []
        #expect(
            pool.makeRoom(for: 1600, instance: 3, executed: 0) { instance, offset in
                asked.append(instance)
                return offset == unvoted.offset
            } == 1)
        #expect(asked.last == 2, "the superseded one is gone, the other one is in use")
        #expect(pool.makeRoom(for: 2000, instance: 3, executed: 0, isReferenced: { _, _ in false }) == 1)
        #expect(pool.reserve(2000) != nil)
        #expect(pool.content(of: new) == Array(repeating: 3, count: 1500))
    }

    @Test func aBatchOnItsWayToItsVoteIsNotDropped() throws {
        let pool = try smallPool()
        let pending = try #require(pool.store(Array(repeating: 1, count: 3000)))
        _ = pool.makeRoom(for: 2000, instance: 1, executed: 0) { _, _ in
            Issue.record("asked for a batch without an instance")
            return false
        }
        #expect(pool.reserve(2000) == nil)
        pool.record(instance: 1, view: 1, batch: pending)
        #expect(pool.makeRoom(for: 2000, instance: 2, executed: 1, isReferenced: { _, _ in false }) == 2)
        #expect(pool.reserve(2000) != nil)
    }

    @Test func theNewestBatchCanBeDroppedAgain() throws {
        let pool = try smallPool()
        let kept = try #require(pool.store(bytes("kept")))
        let before = pool.used
        pool.unseal(try #require(pool.store(Array(repeating: 1, count: 500))))
        #expect(pool.used == before)
        let next = try #require(pool.store(bytes("next")))
        #expect(next.offset == kept.offset + 64 && pool.content(of: kept) == bytes("kept"))
    }

    @Test func aReservationMayBeSealedShorter() throws {
        let pool = try smallPool()
        let room = try #require(pool.reserve(1000))
        room.storeBytes(of: 0x4141, as: UInt16.self)
        let batch = pool.seal(2)
        #expect(pool.content(of: batch) == bytes("AA") && pool.used == 64)
    }

    @Test func aBatchOfAnEighthOfTheLogAlwaysFindsRoom() throws {
        let pool = try smallPool()
        for instance in 1...200 as ClosedRange<UInt64> {
            let size = instance % 3 == 0 ? 1024 : 65
            _ = pool.makeRoom(for: size, instance: instance, executed: instance - 1, isReferenced: { _, _ in true })
            pool.record(instance: instance, view: 1, batch: try #require(pool.store(Array(repeating: 5, count: size))))
            pool.fence()
        }
    }

    @Test func aReceivedStateRaisesTheFloor() throws {
        let pool = try smallPool()
        for instance in 1...5 as ClosedRange<UInt64> {
            pool.record(instance: instance, view: 1, batch: try #require(pool.store([1, 2, 3])))
        }
        pool.raiseFloor(to: 1000)
        #expect(pool.floor == 1000 && pool.used == 0 && pool.entries.isEmpty)
        pool.record(instance: 1001, view: 2, batch: try #require(pool.store([4])))
        pool.fence()
        let again = try reopened(pool)
        #expect(again.floor == 1000 && Set(again.entries.keys) == [1001])
        try again.settle(executed: 999)
    }

    /// A follower that lost batches it has executed cannot serve them: its floor says so.
    @Test func holesBelowTheExecutedInstanceRaiseTheFloor() throws {
        let pool = try smallPool()
        for instance in [1, 2, 4, 6] as [UInt64] {
            pool.record(instance: instance, view: 1, batch: try #require(pool.store([1])))
        }
        pool.fence()
        let again = try reopened(pool)
        try again.settle(executed: 4)
        #expect(again.floor == 4 && Set(again.entries.keys) == [4, 6])
    }

    @Test func remembersThePeersIncarnations() throws {
        let pool = try smallPool()
        for peer in 0..<9 as Range<UInt16> { pool.record(incarnation: UInt64(peer) + 100, of: peer * 1000) }
        pool.fence()
        pool.record(incarnation: 999, of: 3000)
        pool.fence()
        let again = try reopened(pool)
        for peer in 0..<9 as Range<UInt16> {
            #expect(again.incarnation(of: peer * 1000) == (peer == 3 ? 999 : UInt64(peer) + 100))
        }
        #expect(again.incarnation(of: 1) == nil)
    }

    /// Neither those of pools that were formatted again, nor those that a loss of power left without their replica.
    @Test func theLivesOfOtherPoolsAreNotTheNewOnes() throws {
        let pool = try smallPool()
        pool.write(.peerLife(0), first: 7, second: 70)
        pool.fence()
        let torn = try reopened(pool)
        torn.record(incarnation: 5, of: 9)
        torn.fence()
        #expect(torn.incarnation(of: 9) == 5 && torn.life(of: 9) == .none)
        torn.record(life: Life(bootCount: 3, nonce: 30), of: 9)
        torn.fence()
        torn.record(incarnation: 6, of: 9)
        torn.fence()
        let again = try reopened(torn)
        #expect(again.incarnation(of: 9) == 6 && again.life(of: 9) == .none)
    }
}

@Suite struct PairedRecordTests {
    @Test func theMirrorIsNeverAheadOfThePrimary() {
        let old = PairedRecord(kind: 1, sequence: 4, epoch: 1, first: 1, second: 2)
        let new = PairedRecord(kind: 1, sequence: 5, epoch: 2, first: 3, second: 4)
        var torn = new
        torn.first = 1
        #expect(PairedRecordReading(primary: new, mirror: old, kind: 1)?.value.first == 3)
        #expect(PairedRecordReading(primary: torn, mirror: old, kind: 1)?.value.first == 1)
        #expect(PairedRecordReading(primary: new, mirror: torn, kind: 1)?.value.first == 3)
        #expect(PairedRecordReading(primary: new, mirror: new, kind: 1)?.needsRepair == false)
        #expect(PairedRecordReading(primary: old, mirror: new, kind: 1) == nil)
        #expect(PairedRecordReading(primary: torn, mirror: torn, kind: 1) == nil)
        #expect(PairedRecordReading(primary: new, mirror: new, kind: 2) == nil)
    }
}
