import Glibc
import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// What this replica has promised and voted, private to it: the promised view, the log of votes, the bytes of the
/// batches.
///
/// Everything recorded is stored and flushed at once, but counts only after `fence()`: a message that rests on a record
/// leaves after the fence that follows it. One fence makes durable all that gathered before it. No libpmemobj
/// transactions are involved.
///
/// One owner: the stage that journals. Nothing here allocates after `init`.
package final class AcceptorPool {
    package let identity: PoolIdentity
    package var path: String { pool.path }
    package var durability: Durability { pool.durability }

    let pool: Pool
    let geometry: AcceptorGeometry
    let base: UnsafeMutableRawPointer
    // One stage owns the pool, and no access to these overlaps another: checks of that would only cost.
    @exclusivity(unchecked) var slots: Slots
    @exclusivity(unchecked) var arena: Arena
    /// Number of the group commit that gathers now.
    @exclusivity(unchecked) var epoch: UInt64 = 1 { didSet { group = CheckedNumber(epoch) } }
    /// The same, as it is stored.
    @exclusivity(unchecked) private var group = CheckedNumber(1)
    /// Which run of the machine this is, see `Boot`; 0 when that is not known.
    let boot: UInt64
    @exclusivity(unchecked) private var isDirty = false
    /// Records whose primary is written and whose mirror is not.
    @exclusivity(unchecked) private var pendingMirrors: UInt64 = 0
    @exclusivity(unchecked) var cells: [PairedRecord]

    /// The view promised last; 0 at format.
    @exclusivity(unchecked) package internal(set) var promised: UInt64 = 0
    /// The last view that this replica established as its leader, and its base.
    @exclusivity(unchecked) package internal(set) var established: (view: UInt64, base: UInt64) = (0, 0)
    /// The lowest instance whose vote and batch are kept; 1 at format.
    @exclusivity(unchecked) package internal(set) var floor: UInt64 = 1
    /// What recovery found torn of the last, unfinished group commit, and removed.
    package internal(set) var torn: [TornVote] = []

    /// The two pools of a replica are created with the same incarnation.
    /// - Parameter size: of the log, in bytes; the file is some MiB larger.
    package static func format(path: String, identity: PoolIdentity, size: Int) throws(PoolError) {
        try format(path: path, identity: identity, size: size, geometry: nil)
    }

    static func format(path: String, identity: PoolIdentity, size: Int, geometry: AcceptorGeometry?) throws(PoolError) {
        try Pool.create(
            path: path, layout: AcceptorGeometry.poolLayout, size: AcceptorGeometry.fileSize(logSize: size))
        let pool = try Pool(opening: path, layout: AcceptorGeometry.poolLayout)
        defer { pool.close() }
        write(identity: identity, geometry: geometry ?? AcceptorGeometry(regionSize: pool.region.count), to: pool)
    }

    /// Formats a region.
    package static func write(identity: PoolIdentity, geometry: AcceptorGeometry, to pool: Pool) {
        invariant(
            geometry.arenaOffset + geometry.arenaSize <= pool.region.count, "the geometry fits the region")
        let region = pool.region.baseAddress!
        region.initializeMemory(as: UInt8.self, repeating: 0, count: geometry.arenaOffset)
        for cell in RecordCell.all {
            let record = PairedRecord(
                kind: cell.kind, sequence: 1, epoch: 1, first: cell == .floor ? 1 : 0, second: 0)
            (region + cell.primary).storeBytes(of: record, as: PairedRecord.self)
            (region + cell.mirror).storeBytes(of: record, as: PairedRecord.self)
        }
        (region + AcceptorGeometry.fencedOffset).storeBytes(of: CheckedNumber(1), as: CheckedNumber.self)
        pool.flush(region, geometry.arenaOffset)
        pool.fence()
        // The identity comes last: a pool whose format was cut short has none and is refused.
        IdentityPage(
            magic: AcceptorGeometry.magic, version: AcceptorGeometry.version, identity: identity,
            regionSize: pool.region.count, geometry: geometry.words
        ).write(to: region)
        pool.flush(region, IdentityPage.size)
        pool.fence()
    }

    /// Opens and recovers. Removes what the last, unfinished group commit left torn; reports damage to anything older.
    /// Call `settle(executed:)` before the entries are used.
    /// - Parameter charter: what it must have been formatted for; nil for who only looks at it.
    package convenience init(
        opening path: String, expecting cluster: String, replica: UInt16, charter: Charter? = nil
    ) throws(PoolError) {
        try self.init(
            in: Pool(opening: path, layout: AcceptorGeometry.poolLayout), expecting: cluster, replica: replica,
            charter: charter, boot: Boot.current)
    }

    /// - Parameter boot: the run of the machine; 0: it may have lost power since the pool was last written.
    package init(
        in pool: Pool, expecting cluster: String, replica: UInt16, charter: Charter? = nil, boot: UInt64 = 0
    ) throws(PoolError) {
        self.pool = pool
        self.boot = boot
        base = pool.region.baseAddress!
        do throws(PoolError) {
            let page = try IdentityCheck.page(
                of: pool, magic: AcceptorGeometry.magic, version: AcceptorGeometry.version, what: "acceptor")
            try IdentityCheck.expect(
                page.identity, cluster: cluster, replica: replica, charter: charter, path: pool.path)
            guard let geometry = AcceptorGeometry(words: page.geometry, regionSize: pool.region.count) else {
                throw PoolError.damagedPool(pool.path, "the sizes in its header do not fit the file")
            }
            identity = page.identity
            self.geometry = geometry
        } catch {
            pool.close()
            throw error
        }
        slots = Slots(at: base + AcceptorGeometry.slotsOffset, count: geometry.slots)
        arena = Arena(
            at: base + geometry.arenaOffset, size: geometry.arenaSize, recordCapacity: 2 * geometry.slots)
        cells = []
        cells.reserveCapacity(RecordCell.count)
        do throws(PoolError) {
            try recover()
        } catch {
            pool.close()
            throw error
        }
    }

    deinit {
        slots.deallocate()
        arena.deallocate()
    }

    /// Makes everything durable and marks the shutdown as a clean one: then the next open takes any torn line for
    /// damage.
    package func close() {
        // A group of its own: then no vote belongs to the newest group, and none passes for torn.
        fence()
        write(.shutdown, first: 1, second: boot)
        fence()
        pool.close()
    }

    // MARK: Batches

    /// Contiguous room at the arena's tail, to be filled and then sealed. nil: `makeRoom` first. Replaces an earlier
    /// reservation that was not sealed.
    package func reserve(_ count: Int) -> UnsafeMutableRawPointer? { arena.reserve(count) }

    /// Makes the first `count` bytes of the reservation a batch: checksum, flush, no fence.
    /// - Parameter instance: for which the batch came, if that is known before a vote names it.
    package func seal(_ count: Int, for instance: UInt64? = nil) -> Batch {
        let batch = arena.seal(count, for: instance ?? ArenaRecord.unknown)
        pool.flush(arena.pointer(at: batch.offset), count)
        isDirty = true
        return batch
    }

    /// Drops the newest batch again. It must not have been voted for.
    package func unseal(_ batch: Batch) { arena.unseal(batch) }

    /// Valid until the batch is dropped by `makeRoom`: whoever sends these bytes later than that needs a copy.
    package func bytes(of batch: Batch) -> UnsafeRawBufferPointer {
        guard batch.length > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        invariant(arena.holds(batch), "a batch that is read is held")
        return UnsafeRawBufferPointer(start: arena.pointer(at: batch.offset), count: Int(batch.length))
    }

    /// Bytes of the log from a batch on.
    package func bytes(from batch: Batch) -> Int { arena.holds(batch) ? Int(arena.tail - batch.offset) : 0 }

    /// Whether the bytes of a batch that was voted for are still there, as they are until `makeRoom` drops it.
    package func holds(_ batch: Batch) -> Bool { arena.holds(batch) }

    /// Whether a batch consists of just these bytes, as many as it has.
    package func holds(_ batch: Batch, as bytes: UnsafeRawBufferPointer) -> Bool {
        invariant(bytes.count == Int(batch.length), "a batch is compared with as many bytes as it has")
        guard let start = bytes.baseAddress, !bytes.isEmpty else { return true }
        return arena.holds(batch) && memcmp(arena.pointer(at: batch.offset), start, bytes.count) == 0
    }

    /// Whether the bytes are those that were voted for. For batches that leave the pool long after they came.
    package func verify(_ batch: Batch) -> Bool {
        guard batch.length > 0 else { return true }
        return arena.holds(batch) && Checksum.of(arena.pointer(at: batch.offset), Int(batch.length)) == batch.checksum
    }

    // MARK: Records

    package func record(promise view: UInt64) {
        invariant(view >= promised, "a promise never goes back to a lower view")
        promised = view
        write(.promise, first: view, second: 0)
    }

    package func record(establishedView view: UInt64, base: UInt64) {
        invariant(view >= established.view, "an established view never goes back")
        invariant(view <= promised, "a view is established only after it was promised")
        established = (view, base)
        write(.established, first: view, second: base)
    }

    /// A vote for `batch` at `instance` in `view`; `UInt64.max` as view: the instance is decided. The instance must be
    /// at or above the floor and have a free slot, see `hasSlot(for:)`; its batch must be held.
    package func record(instance: UInt64, view: UInt64, batch: Batch) {
        // Executed meanwhile, by word of others: whatever rests on this vote is true of a decided instance without it.
        guard instance >= floor else { return }
        invariant(instance > 0, "instances are counted from 1")
        invariant(hasSlot(for: instance), "an instance that is voted for has a slot")
        if let vote = slots.vote(for: instance) {
            invariant(view >= vote.view, "the views of an instance's votes never go down")
            if vote.view == view && vote.offset == batch.offset && vote.length == batch.length { return }
        }
        if batch.length > 0 { arena.attach(instance, to: batch.offset) }
        let side = slots.sideForVote(instance: instance, floor: floor, epoch: epoch)
        let slot = slots.slot(of: instance)
        pool.storeLine(
            VoteLine(instance: instance, view: view, batch: batch, group: group), to: slots.address(slot, side))
        slots.setCurrent(slot, side: side, epoch: epoch)
        isDirty = true
    }

    /// Everything recorded and sealed so far is durable when this returns. Costs nothing when there is nothing to make
    /// durable.
    package func fence() {
        guard isDirty else { return }
        pool.fence()
        noteFenced()
        epoch += 1
        isDirty = false
        if pendingMirrors != 0 { writeMirrors() }
    }

    /// Behind the fence of a group, so that whoever opens the pool after this process was killed knows what was fenced.
    /// No message rests on it: after a loss of power it may be that of an older group.
    func noteFenced() {
        let place = base + AcceptorGeometry.fencedOffset
        place.storeBytes(of: group, as: CheckedNumber.self)
        pool.flushLater(place, MemoryLayout<CheckedNumber>.size)
    }

    // MARK: Room

    /// Instances from the floor to the floor plus the number of slots have one.
    package func hasSlot(for instance: UInt64) -> Bool { instance < floor + UInt64(geometry.slots) }
    package var slotCount: Int { geometry.slots }
    /// The largest single batch that is sure to find room once older ones can go.
    package var largestBatch: Int { geometry.arenaSize / 4 }
    /// Bytes of the arena in use.
    package var used: Int { Int(arena.used) }
    /// Bytes of the arena.
    package var capacity: Int { geometry.arenaSize }

    /// Batches in the arena.
    package var batchCount: Int { arena.recordCount }

    /// Whether a batch of so many bytes can be reserved at once.
    package func hasRoom(for count: Int) -> Bool { arena.hasRoom(for: count) }

    /// Bytes of the arena from the oldest batch on that `makeRoom` would not drop. What lies between such batches, and
    /// could go, counts as well.
    /// - Parameters: as of `makeRoom`.
    package func liveSpan(executed: UInt64, isReferenced: (UInt64, UInt64) -> Bool) -> Int {
        Int(
            arena.liveSpan { record in
                guard record.instance != ArenaRecord.unknown else { return true }
                guard record.instance >= floor else { return false }
                if let vote = slots.vote(for: record.instance), vote.length > 0, vote.offset == record.offset {
                    return record.instance > executed
                }
                return isReferenced(record.instance, record.offset)
            })
    }

    /// Moves the oldest batch to the tail, with its vote. Durable on return; its old place can be dropped then.
    /// - Parameter decided: only a vote for an instance above it is moved.
    /// - Returns: the instance, and where its batch is now; nil where the oldest is no such vote, or there is no room.
    package func moveOldest(above decided: UInt64) -> (instance: UInt64, batch: Batch)? {
        guard let oldest = arena.oldest, oldest.instance != ArenaRecord.unknown, oldest.instance > decided,
            let vote = slots.vote(for: oldest.instance), vote.offset == oldest.offset, vote.length > 0,
            verify(vote.batch), let place = arena.reserve(Int(vote.length))
        else { return nil }
        // What was voted for in this group is durable before its line is written once more.
        fence()
        place.copyMemory(from: arena.pointer(at: vote.offset), byteCount: Int(vote.length))
        let batch = seal(Int(vote.length), for: oldest.instance)
        record(instance: oldest.instance, view: vote.view, batch: batch)
        fence()
        return (oldest.instance, batch)
    }

    /// Makes room for a batch of `count` bytes (0: none is needed) and for a slot of `instance`, by dropping the oldest
    /// batches that are executed, or that no vote names any more. Drops some in advance, so that this is needed once in
    /// a while only. Raises the floor, and makes the new one durable before anything that it gives up can be
    /// overwritten. It may fall short: look at `hasSlot` and `reserve` after it.
    /// - Parameters:
    ///   - executed: every instance up to it is executed, and its effect is durable in the state pool.
    ///   - isReferenced: whether a batch is in use though no vote names it: (instance, offset). Not asked for batches
    ///     that were sealed for no instance: they are on their way to their vote, or are to be unsealed.
    /// - Returns: the floor.
    package func makeRoom(
        for count: Int, instance: UInt64, executed: UInt64, isReferenced: (UInt64, UInt64) -> Bool
    ) -> UInt64 {
        var newFloor = floor
        if !hasSlot(for: instance) {
            let needed = instance - UInt64(geometry.slots) + 1
            newFloor = max(floor, min(needed + UInt64(geometry.slots / 16), executed + 1))
        }
        let isCrowded = count > 0 && !arena.hasRoom(for: count)
        let target = arena.head + arena.size / 16
        var dropped = false
        while let oldest = arena.oldest {
            if oldest.instance >= newFloor {
                guard isCrowded, arena.head < target || !arena.hasRoom(for: count) else { break }
                if let vote = slots.vote(for: oldest.instance), vote.length > 0, vote.offset == oldest.offset {
                    guard oldest.instance <= executed else { break }
                    newFloor = oldest.instance + 1
                } else if oldest.instance == ArenaRecord.unknown || isReferenced(oldest.instance, oldest.offset) {
                    break
                }
            }
            arena.dropOldest()
            dropped = true
        }
        if newFloor > floor {
            invariant(newFloor <= executed + 1, "the floor stays at or below what is executed")
            write(.floor, first: newFloor, second: 0)
            floor = newFloor
            dropped = true
        }
        // Also where the floor stands: what was dropped may have been superseded by votes that are not fenced yet.
        if dropped { fence() }
        return floor
    }

    /// What holds the room, for traces.
    package var roomInWords: String {
        guard let oldest = arena.oldest else { return "the log is empty" }
        let batch =
            oldest.instance == ArenaRecord.unknown ? "is of no instance yet" : "is of instance \(oldest.instance)"
        let vote = oldest.instance == ArenaRecord.unknown ? nil : slots.vote(for: oldest.instance)
        return
            "the oldest batch of \(arena.recordCount) \(batch) and \(vote?.offset == oldest.offset ? "voted for" : "not voted for"), floor \(floor)"
    }

    /// Gives up everything below an instance, for a replica that received the state in place of the log.
    package func raiseFloor(to instance: UInt64) {
        guard instance > floor else { return }
        write(.floor, first: instance, second: 0)
        floor = instance
        while let oldest = arena.oldest, oldest.instance < floor { arena.dropOldest() }
        fence()
    }

    // MARK: Entries

    /// The votes held, in the order of their instances: (instance, view, batch).
    package func forEachEntry(_ body: (UInt64, UInt64, Batch) -> Void) {
        for instance in floor..<(floor + UInt64(geometry.slots)) {
            if let vote = slots.vote(for: instance) { body(instance, vote.view, vote.batch) }
        }
    }

    // MARK: Peers

    /// The incarnation of a peer as it was recorded last; nil for a peer never met.
    package func incarnation(of peer: UInt16) -> UInt64? {
        place(of: peer).map { cells[RecordCell.peer($0).index].second }
    }

    /// Where in the table of peers this one is.
    func place(of peer: UInt16) -> Int? {
        for index in 0..<RecordCell.peerLimit where cells[RecordCell.peer(index).index].first == UInt64(peer) + 1 {
            return index
        }
        return nil
    }

    /// Counts after the next fence. There is room for 10 peers. A peer may have another incarnation than before as long
    /// as the record of all members is not whole.
    package func record(incarnation: UInt64, of peer: UInt16) {
        invariant(
            founding == .gathering || self.incarnation(of: peer) == incarnation,
            "a record of all members that is whole does not change")
        let wanted = UInt64(peer) + 1
        let free = (0..<RecordCell.peerLimit).first { cells[RecordCell.peer($0).index].first == 0 }
        guard let index = place(of: peer) ?? free else { broken("the table of incarnations has room for each peer") }
        // The lives of other pools are none of these; one that a loss of power left without its incarnation is
        // nobody's.
        for cell in [RecordCell.peerLife(index), .refusedLife(index)] where cells[cell.index].first != 0 {
            write(cell, first: 0, second: 0)
            fence()
        }
        write(.peer(index), first: wanted, second: incarnation)
    }

    /// How far this replica is with the founding of the cluster.
    package var founding: Acquaintances.Founding {
        guard let founding = recordedFounding else { broken("an open looks at the founding that is on record") }
        return founding
    }

    /// Nil when what is on record is none of the stages.
    var recordedFounding: Acquaintances.Founding? {
        UInt8(exactly: cells[RecordCell.founding.index].first).flatMap(Acquaintances.Founding.init)
    }

    /// Durable on return.
    package func record(founding: Acquaintances.Founding) {
        invariant(founding >= self.founding, "a founding goes on, and never back")
        write(.founding, first: UInt64(founding.rawValue), second: 0)
        fence()
    }

    // MARK: Paired records

    func write(_ cell: RecordCell, first: UInt64, second: UInt64) {
        let record = PairedRecord(
            kind: cell.kind, sequence: cells[cell.index].sequence + 1, epoch: epoch, first: first, second: second)
        cells[cell.index] = record
        (base + cell.primary).storeBytes(of: record, as: PairedRecord.self)
        pool.flush(base + cell.primary, AcceptorGeometry.line)
        pendingMirrors |= 1 << UInt64(cell.index)
        isDirty = true
    }

    private func writeMirrors() {
        for cell in RecordCell.all where pendingMirrors & (1 << UInt64(cell.index)) != 0 {
            (base + cell.mirror).storeBytes(of: cells[cell.index], as: PairedRecord.self)
            pool.flush(base + cell.mirror, AcceptorGeometry.line)
        }
        pendingMirrors = 0
        pool.fence()
    }
}

/// The places of the paired records.
struct RecordCell: Equatable {
    static let peerLimit = 10
    static let promise = RecordCell(index: 0)
    static let established = RecordCell(index: 1)
    static let floor = RecordCell(index: 2)
    /// First word 1: the pool was closed in order. Second word: in which run of the machine it was opened last.
    static let shutdown = RecordCell(index: 3)
    /// The boot count and the nonce of this replica's life.
    static let life = RecordCell(index: 4)
    /// The boot count of the start that was begun last; 1 when the pools are never to be started again.
    static let begun = RecordCell(index: 5)
    /// First word: how far the founding of the cluster is.
    static let founding = RecordCell(index: 6)
    private static let own = 7
    /// The peer's id and one, 0 for none, and its incarnation.
    static func peer(_ index: Int) -> RecordCell { RecordCell(index: own + index) }
    /// The boot count and the nonce of the peer at the same place.
    static func peerLife(_ index: Int) -> RecordCell { RecordCell(index: own + peerLimit + index) }
    /// Where the nonce of one of the last 32 lives is: in which word of which record.
    static func nonce(of bootCount: UInt64) -> (cell: RecordCell, isSecond: Bool) {
        let place = Int(bootCount % UInt64(2 * pastLimit))
        return (RecordCell(index: past + place / 2), place % 2 == 1)
    }
    /// The boot count and the nonce of the last life of that peer that was refused.
    static func refusedLife(_ index: Int) -> RecordCell { RecordCell(index: own + 2 * peerLimit + index) }
    private static let past = own + 3 * peerLimit
    private static let pastLimit = 16
    static let count = past + pastLimit
    static var all: some Sequence<RecordCell> { (0..<count).lazy.map { RecordCell(index: $0) } }

    let index: Int

    /// Says in the record itself which one it is.
    var kind: UInt64 { 0x5041_4952 << 8 | UInt64(index) }
    var primary: Int {
        let (start, place) =
            switch index {
            case ..<Self.own: (AcceptorGeometry.recordsOffset, index)
            case ..<Self.past: (AcceptorGeometry.incarnationsOffset, index - Self.own)
            default: (AcceptorGeometry.pastOffset, index - Self.past)
            }
        return start + place * 2 * AcceptorGeometry.line
    }
    var mirror: Int { primary + AcceptorGeometry.line }
}
