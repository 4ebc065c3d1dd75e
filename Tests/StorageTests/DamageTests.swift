import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// Single bits are flipped in all that opening the pools trusts: each is refused, or what is found is the same after
/// all.
@Suite struct DamageTests {
    /// An acceptor pool with votes that are all fenced, as a process leaves it that is killed.
    private final class KilledAcceptor {
        static let boot: UInt64 = 7
        let image: [UInt8]
        private let expected: String
        let geometry = AcceptorGeometry(slots: 16, arenaSize: 4096)

        init() throws {
            let pool = try emptyPool(pages: 6)
            AcceptorPool.write(identity: identity, geometry: geometry, to: pool)
            let acceptor = try KilledAcceptor.open(pool)
            acceptor.record(promise: 9)
            acceptor.record(establishedView: 8, base: 2)
            acceptor.record(incarnation: 77, of: 1)
            acceptor.fence()
            for instance in 1...5 as ClosedRange<UInt64> {
                let batch = try #require(acceptor.store(bytes("value \(instance)")))
                acceptor.record(instance: instance, view: 8, batch: batch)
                if instance % 2 == 0 { acceptor.record(instance: instance, view: .max, batch: batch) }
                acceptor.fence()
            }
            acceptor.record(instance: 3, view: 9, batch: try #require(acceptor.entries[3]).batch)
            acceptor.fence()
            image = Array(pool.region)
            expected = KilledAcceptor.describe(acceptor)
        }

        private static func open(_ pool: Pool, boot: UInt64 = KilledAcceptor.boot) throws -> AcceptorPool {
            try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica, boot: boot)
        }

        private static func describe(_ acceptor: AcceptorPool) -> String {
            var text = "\(acceptor.promised) \(acceptor.established) \(acceptor.floor) "
            text += "\((0..<4).map { acceptor.incarnation(of: $0) as Any })"
            acceptor.forEachEntry { text += " \($0) \($1) \(acceptor.content(of: $2))" }
            return text
        }

        func open(
            boot: UInt64 = KilledAcceptor.boot, changing body: (UnsafeMutableRawBufferPointer) -> Void
        ) -> (error: PoolError?, isEqual: Bool, torn: [TornVote]) {
            do {
                let scratch = try image.withUnsafeBytes { try Pool(image: $0) }
                // One that refuses closes it.
                defer { scratch.close() }
                body(scratch.region)
                let acceptor = try KilledAcceptor.open(scratch, boot: boot)
                try acceptor.settle(executed: 0)
                return (nil, KilledAcceptor.describe(acceptor) == expected, acceptor.torn)
            } catch {
                return (error as? PoolError, false, [])
            }
        }

        /// Where the current line of an instance is.
        func line(of instance: UInt64) -> Int {
            image.withUnsafeBytes { image in
                (0...1).map { AcceptorGeometry.slotsOffset + Int(instance) % 16 * 128 + $0 * 64 }
                    .max {
                        image.load(fromByteOffset: $0, as: VoteLine.self).epoch
                            < image.load(fromByteOffset: $1, as: VoteLine.self).epoch
                    }!
            }
        }
    }

    @Test func everyBitOfAnAcceptorPoolsRecordsCounts() throws {
        let killed = try KilledAcceptor()
        #expect(killed.open { _ in }.isEqual)
        let records = 4096..<4096 + 6 * 128
        let fenced = AcceptorGeometry.fencedOffset..<AcceptorGeometry.fencedOffset + 8
        let peers = AcceptorGeometry.incarnationsOffset..<AcceptorGeometry.incarnationsOffset + 4 * 128
        let lives = RecordCell.peerLife(0).primary..<RecordCell.peerLife(4).primary
        let votes = AcceptorGeometry.slotsOffset..<killed.geometry.arenaOffset
        let batches = killed.geometry.arenaOffset..<killed.geometry.arenaOffset + 5 * 64
        var refused = 0
        for range in [0..<160, 4092..<4096, records, fenced, peers, lives, votes, batches] {
            for bit in 8 * range.lowerBound..<8 * range.upperBound {
                let found = killed.open { $0[bit / 8] ^= 1 << UInt8(bit % 8) }
                if let error = found.error {
                    refused += 1
                    #expect(error.kind == .damaged, "bit \(bit): \(error)")
                } else {
                    #expect(
                        found.isEqual && found.torn.isEmpty, "bit \(bit) of byte \(bit / 8) opened with another state")
                }
            }
        }
        #expect(refused > 8 * (votes.count + 5 * 7))
    }

    @Test func aDamagedVoteIsNamed() throws {
        let killed = try KilledAcceptor()
        let error = killed.open { $0[killed.line(of: 4) + 26] ^= 1 }.error
        #expect(error?.description.contains("slot 4 (of instance 4") == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("offset \(killed.line(of: 4)) ") == true)
    }

    /// What a process was writing when it was killed begins with the number of the next group.
    @Test func theLineThatWasBeingWrittenIsDropped() throws {
        let killed = try KilledAcceptor()
        let fenced = killed.image.withUnsafeBytes {
            $0.load(fromByteOffset: AcceptorGeometry.fencedOffset, as: CheckedNumber.self).number!
        }
        let next = VoteLine(instance: 6, view: 9, batch: .noop, group: CheckedNumber(fenced + 1))
        for words in 1...7 {
            for half in [false, true] {
                // Recovery itself may be killed while it removes the line: its first word goes last.
                let found = killed.open { region in
                    withUnsafeBytes(of: next) {
                        let place = region.baseAddress! + AcceptorGeometry.slotsOffset + 6 * 128
                        place.copyMemory(from: $0.baseAddress!, byteCount: 8 * words)
                        if half { memset(place + 8, 0, 32) }
                    }
                }
                #expect(found.error == nil && found.isEqual && found.torn.count == 1, "\(found)")
            }
        }
        // Two cannot have been.
        let two = killed.open { region in
            for slot in [6, 7] {
                region.storeBytes(
                    of: CheckedNumber(fenced + 1), toByteOffset: AcceptorGeometry.slotsOffset + slot * 128,
                    as: CheckedNumber.self)
            }
        }
        #expect(two.error?.kind == .damaged)
    }

    /// After a loss of power a damaged vote cannot be told from a torn one: it is dropped, and that is said.
    @Test func afterALossOfPowerATornVoteIsDroppedAndNamed() throws {
        let killed = try KilledAcceptor()
        let found = killed.open(boot: 8) { $0[killed.line(of: 4) + 26] ^= 1 }
        #expect(found.error == nil && found.torn.count == 1)
        #expect(
            found.torn.first?.instance == 4 && found.torn.first?.description.contains("instance 4 in slot 4") == true)
    }

    /// A group that is known to be fenced has its batches, also after a loss of power.
    @Test func aBatchOfAFencedGroupDoesNotPassForOneThatNeverArrived() throws {
        let killed = try KilledAcceptor()
        for boot in [KilledAcceptor.boot, 8] {
            let error = killed.open(boot: boot) { $0[killed.geometry.arenaOffset + 2 * 64] ^= 1 }.error
            #expect(error?.description.contains("the batch of instance 3") == true)
        }
    }

    // MARK: State

    @Test(arguments: [true, false])
    func everyBitOfAStatePoolsRecordsCounts(closed: Bool) throws {
        let rig = try StateRig(sessions: 16, pages: 64, journalSize: 20 << 10)
        var model = SessionModel(capacity: 16)
        var source = CommandSource(seed: 3)
        for _ in 0..<60 {
            let command = source.next(model)
            let got = rig.execute(command)
            if case .run = model.begin(command.kind, command.session, command.sequence, newID: got.session) {
                _ = model.end(command.session, command.sequence, got.status, got.body)
            }
            if command.kind == .open { source.opened(got.session) }
            rig.pool.commit()
        }
        for instance in 1...9 as ClosedRange<UInt64> { rig.pool.endInstance(instance) }
        rig.pool.commit()
        if closed { rig.pool.heap.transaction.checkpoint() }
        let image = Array(rig.region.region)
        let expected = (rig.pool.currentDigest().value, rig.pool.executed, rig.pool.progress.useClock)
        let scratch = try emptyPool(pages: 64)
        let data =
            UnsafeRawPointer(rig.pool.heap.transaction.committed.baseAddress!)
            - UnsafeRawPointer(rig.region.region.baseAddress!)
        let root = data + Int(rig.pool.heap.systemRoot)
        let header = StateLayout.heapOffset
        var refused = 0
        // Identity, the heap's header, progress and stamps, the description of the sessions.
        for range in [0..<64, header..<header + 256, data..<data + 64 + 16 * 8, root..<root + 64] {
            for bit in 8 * range.lowerBound..<8 * range.upperBound {
                image.withUnsafeBytes { scratch.region.copyMemory(from: $0) }
                scratch.region[bit / 8] ^= 1 << UInt8(bit % 8)
                do {
                    let pool = try StatePool(in: scratch)
                    let found = (pool.currentDigest().value, pool.executed, pool.progress.useClock)
                    #expect(found == expected, "bit \(bit): opened with another state")
                } catch {
                    refused += 1
                    #expect(error.kind == .damaged, "bit \(bit): \(error)")
                }
            }
        }
        // What lies at home is written anew where the journal has it.
        #expect(refused > 8 * (closed ? 64 + 80 + 64 + 16 * 8 + 64 : 64 + 80) - 64)
    }

    /// A byte of a session, of a value, or of what was freed: opening it does not look there, but the digest does.
    @Test func everyByteOfTheStateCounts() throws {
        let rig = try StateRig(sessions: 16, pages: 64, journalSize: 20 << 10)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        for sequence in 1...60 as ClosedRange<UInt64> {
            _ = rig.execute(
                TestCommand(
                    kind: .submit, session: session, sequence: sequence, cell: Int(sequence % 7), size: 900,
                    fill: UInt8(sequence), replySize: 300))
        }
        rig.pool.commit()
        rig.pool.heap.transaction.checkpoint()
        let image = Array(rig.region.region)
        let heap = rig.pool.heap
        let data =
            UnsafeRawPointer(heap.transaction.committed.baseAddress!)
            - UnsafeRawPointer(rig.region.region.baseAddress!)
        let scratch = try emptyPool(pages: 64)
        var found = 0
        var random = Seeded(seed: 3)
        for offset in stride(from: data + heap.progressSize, to: data + heap.snapshot.data.count, by: 61) {
            image.withUnsafeBytes { scratch.region.copyMemory(from: $0) }
            scratch.region[offset] ^= 1 << UInt8(random.below(8))
            do {
                let pool = try StatePool(in: scratch)
                #expect(error(of: { try pool.verifyDigest() })?.kind == .damaged, "at \(offset - data)")
                found += 1
            } catch {
                #expect(error.kind == .damaged, "at \(offset - data): \(error)")
            }
        }
        #expect(found > 200)
    }
}
