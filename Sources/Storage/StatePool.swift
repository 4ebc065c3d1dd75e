import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// The end of an ordered command, as far as the state is concerned: what the client is to be told.
package struct Answer: BitwiseCopyable {
    package var status: OrderedStatus
    /// The session of the command; for OPEN the new one.
    package var session: UInt64
    /// The position at which the command took effect; 0 for statuses other than OK and FULL.
    package var position: UInt64
    /// Valid until the next change of the pool.
    package var body: UnsafeRawBufferPointer
}

/// What an ordered command is to become.
package enum Verdict: BitwiseCopyable {
    /// Run the state machine on it in `heap.transaction`, then call `finish`, or `refuse` when it refused.
    case execute
    /// Its position is one that an operator has named: call `refuse`, and do not run the state machine.
    case skip
    /// Nothing to run: it is done.
    case answer(Answer)
}

/// What became of a command that ran.
package enum Outcome: BitwiseCopyable {
    case done(Answer)
    /// There was too little room left in the journal. What came before is committed now, the command is undone: run the
    /// state machine on it again, then call `finish` or `refuse` again.
    case again
}

/// The replicated state of one replica: the state machine's heap, the sessions with their kept replies, the position;
/// and how far this replica has executed. All of it changes in the same failure-atomic commits.
///
/// Use, by the one lane that owns it: for each ordered command `begin`, then perhaps the state machine and `finish` or
/// `refuse`; after the last of an instance `endInstance`; now and then `commit`. An answer may be given once the commit
/// that follows it has returned; `begin` and `finish` commit by themselves when the journal gets full, also in the
/// middle of an instance. Nothing here allocates, but the first eviction and the first reuse of a slot after an open.
package final class StatePool {
    package let identity: PoolIdentity
    package let heap: Heap
    package var path: String { pool.path }
    package var durability: Durability { pool.durability }

    let pool: Pool
    let transaction: Transaction
    let table: SessionTable
    // One lane owns the pool, and no access to these overlaps another: the checks of that would be a good part of a
    // command's cost.
    @exclusivity(unchecked) private(set) var root: StateRoot
    @exclusivity(unchecked) private(set) var progress: Progress

    /// Whether the lines of root and progress are part of the commit that gathers.
    @exclusivity(unchecked) private var groupIsOpen = false
    /// Records executed since the last commit.
    @exclusivity(unchecked) private var recordsInGroup = 0
    @exclusivity(unchecked) private var current: (session: UInt64, sequence: UInt64, slot: Int)?
    @exclusivity(unchecked) private var isRunning = false
    /// Positions whose commands are not to be run, ascending, as far as they are not passed; and the first of them.
    @exclusivity(unchecked) private var skips: [UInt64] = []
    @exclusivity(unchecked) private var nextSkip = UInt64.max
    /// What the next start finds of this one.
    package let breadcrumbs: Breadcrumbs

    // MARK: Format and open

    /// - Parameters:
    ///   - size: of the file, in bytes.
    ///   - sessions: most that can be open at once.
    ///   - journalSize: bytes; the largest command with its reply must fit. Chosen by the size when nil.
    ///   - reserveSize: bytes kept for replies and the like, which data may not use. An eighth when nil.
    package static func format(
        path: String, identity: PoolIdentity, size: Int, sessions: Int, journalSize: Int? = nil, reserveSize: Int? = nil
    ) throws(PoolError) {
        invariant(sessions > 0 && sessions <= SessionRules.slotLimit, "a pool has 1 to 1,048,576 sessions")
        try Pool.create(path: path, layout: StateLayout.poolLayout, size: size & ~(Pool.pageSize - 1))
        let pool = try Pool(opening: path, layout: StateLayout.poolLayout)
        defer { pool.close() }
        try format(in: pool, identity: identity, sessions: sessions, journalSize: journalSize, reserveSize: reserveSize)
    }

    package static func format(
        in pool: Pool, identity: PoolIdentity, sessions: Int, journalSize: Int? = nil, reserveSize: Int? = nil
    ) throws(PoolError) {
        let journal = journalSize ?? StateLayout.journalSize(regionSize: pool.region.count)
        invariant(journal >= 4 * StateLayout.sessionRoom, "a journal takes at least some sessions and a command")
        let tableSize = StateLayout.tableSize(sessions: sessions)
        let progressSize = StateLayout.progressSize(sessions: sessions)
        guard tableSize + progressSize + journal < pool.region.count / 4 * 3 else {
            throw tooManySessions(sessions, tableSize + progressSize, in: pool.path)
        }
        try Heap.format(
            in: pool, regionOffset: StateLayout.heapOffset, progressSize: progressSize, journalSize: journal,
            reserveSize: reserveSize)
        let heap = try Heap(opening: pool, regionOffset: StateLayout.heapOffset)
        heap.trust(digest: heap.recomputedDigest())
        let transaction = heap.transaction
        var root = StateRoot()
        root.capacity = UInt32(sessions)
        do throws(Refusal) {
            root.tableBlock = try transaction.allocate(tableSize + StateLayout.lineSize)
        } catch {
            throw tooManySessions(sessions, tableSize, in: pool.path)
        }
        // The region is zero, and zero is a free slot: nothing needs to be written.
        root.table = (root.tableBlock + UInt64(StateLayout.lineSize) - 1) & ~(UInt64(StateLayout.lineSize) - 1)
        transaction.write(root.sealed, to: PersistentPointer(offset: heap.systemRoot))
        var progress = Progress()
        transaction.write(progress, to: PersistentPointer(offset: heap.progressRoot))
        transaction.commit { digest in
            progress.digest = digest
            transaction.write(progress.sealed, to: PersistentPointer(offset: heap.progressRoot))
        }
        transaction.checkpoint()
        // The identity comes last: a pool whose format was cut short has none and is refused.
        write(identity, to: pool)
    }

    /// Makes a pool that is otherwise whole that of a replica. Durable on return.
    static func write(_ identity: PoolIdentity, to pool: Pool) {
        let page = pool.region.baseAddress!
        IdentityPage(
            magic: StateLayout.magic, version: StateLayout.version, identity: identity, regionSize: pool.region.count,
            geometry: []
        ).write(to: page)
        pool.flush(page, IdentityPage.size)
        pool.fenceAll()
    }

    private static func tooManySessions(_ sessions: Int, _ bytes: Int, in path: String) -> PoolError {
        PoolError(
            .noSpace,
            "\(path): a table of \(sessions) sessions takes \(bytes >> 10) KiB and leaves too little room for the state; raise state_size, or lower sessions"
        )
    }

    /// Opens the pool of this replica, and brings it to the end of its last commit.
    /// - Parameters:
    ///   - charter: what it must have been formatted for; nil for who only looks at it.
    ///   - viewLimit: bytes of DRAM for pages that were changed; above it they are given back.
    package convenience init(
        opening path: String, expecting cluster: String, replica: UInt16, charter: Charter? = nil,
        viewLimit: Int = 256 << 20
    ) throws(PoolError) {
        try self.init(
            in: Pool(opening: path, layout: StateLayout.poolLayout), viewLimit: viewLimit,
            expecting: (cluster, replica, charter))
    }

    /// Opens any replica's pool, to look at it.
    package convenience init(openingAny path: String) throws(PoolError) {
        try self.init(in: Pool(opening: path, layout: StateLayout.poolLayout))
    }

    /// - Parameter isMoving: as of `Heap`.
    package init(
        in pool: Pool, viewLimit: Int = 256 << 20,
        expecting owner: (cluster: String, replica: UInt16, charter: Charter?)? = nil, isMoving: Bool = false
    ) throws(PoolError) {
        self.pool = pool
        identity = try IdentityCheck.page(
            of: pool, magic: StateLayout.magic, version: StateLayout.version, what: "state"
        ).identity
        // Before anything is replayed: a pool that is not this replica's is left as it is.
        if let owner {
            try IdentityCheck.expect(
                identity, cluster: owner.cluster, replica: owner.replica, charter: owner.charter, path: pool.path)
        }
        heap = try Heap(
            opening: pool, regionOffset: StateLayout.heapOffset, viewLimit: viewLimit, isMoving: isMoving)
        transaction = heap.transaction
        breadcrumbs = Breadcrumbs(at: heap.ownerLine)
        root = transaction.read(PersistentPointer(offset: heap.systemRoot))
        progress = transaction.read(PersistentPointer(offset: heap.progressRoot))
        let data = UnsafeRawPointer(transaction.committed.baseAddress!) - UnsafeRawPointer(pool.region.baseAddress!)
        guard progress.isIntact else {
            throw PoolError.damagedPool(
                pool.path,
                "the record of how far it has executed, at offset \(data + Int(heap.progressRoot)) of the region, is damaged"
            )
        }
        guard root.isSound(dataSize: UInt64(transaction.committed.count), progressSize: heap.progressSize) else {
            throw PoolError.damagedPool(
                pool.path,
                "the description of its sessions, at offset \(data + Int(heap.systemRoot)) of the region, is damaged")
        }
        heap.trust(digest: progress.digest)
        table = SessionTable(in: transaction, root: root)
        if let slot = table.slotOfDamagedStamp {
            throw PoolError.damagedPool(
                pool.path, "the record of the last use of the session in slot \(slot) is damaged")
        }
    }

    /// Commits, and leaves nothing to be replayed at the next open.
    package func close() {
        commit()
        transaction.checkpoint()
        pool.close()
    }

    // MARK: Where it stands

    /// Ordered commands executed, counted from 1 as the client protocol says.
    package var position: UInt64 { root.position }
    /// All instances up to it are executed.
    package var executed: UInt64 { progress.executed }
    /// Records of instance `executed + 1` that are executed already: after a crash the executor skips so many.
    package var executedCommands: Int { Int(progress.records) }
    /// All instances up to it came in a snapshot of another replica's state, 0 for none: what votes the log holds for
    /// them may be for values that were not chosen, and must be given up before the log is used.
    package var installed: UInt64 { progress.installed }
    /// How often this replica was started on it.
    package var bootCount: UInt64 { progress.bootCount }
    package var sessionCount: Int { Int(root.sessions) }
    package var sessionCapacity: Int { Int(root.capacity) }
    /// Bytes of the heap in use, the session table included.
    package var used: Int { Int(heap.usedBytes) }
    /// Bytes of the heap.
    package var size: Int { Int(heap.capacity) }

    // MARK: Commands

    /// A hint that a command of this session will begin in a moment: fetches what `begin` and `finish` will touch,
    /// first its slot (step 0), then its kept reply (step 1); nothing in other steps.
    package func prefetch(session: UInt64, step: Int) {
        if session != 0 { table.prefetch(session, step: step) }
    }

    /// Takes up the next ordered command. Its sequence is ignored where the protocol says so.
    /// - Parameter session: of OPEN the seed of the id of the new one.
    package func begin(kind: OrderedKind, session: UInt64, sequence: UInt64) -> Verdict {
        invariant(!isRunning, "a command begins after the one before it has ended")
        openGroup()
        let slot = kind == .open ? nil : table.find(session, root: root)
        let ruling = SessionRules.ruling(
            kind: kind, session: session, sequence: sequence, lastSequence: slot.map { table.sequence(of: $0) })
        switch ruling {
        case .execute(let remembered):
            current = (session, sequence, remembered ? slot! : -1)
            isRunning = true
            beginRun()
            return root.position &+ 1 >= nextSkip && reachesSkip() ? .skip : .execute
        case .open:
            progress.useClock += 1
            let id = table.open(root: &root, seed: session, clock: progress.useClock)
            return .answer(ended(.ok, session: id, position: takePosition()))
        case .close:
            table.close(slot!, root: &root)
            return .answer(ended(.ok, session: session, position: takePosition()))
        case .repeatReply:
            return .answer(repeatReply(of: slot!, session: session))
        case .stale:
            use(slot!)
            _ = takePosition()
            return .answer(ended(.stale, session: session, position: 0))
        case .expired:
            _ = takePosition()
            return .answer(ended(.expired, session: session, position: 0))
        }
    }

    /// The state machine has run: keeps its reply. A reply that finds no room is refused like a command that finds
    /// none.
    ///
    /// - Parameters:
    ///   - reply: its bytes; they are those of the answer, too.
    ///   - slice: where they lie, if in a block that the machine gives up: then they are kept where they are.
    package func finish(reply: UnsafeRawBufferPointer, in slice: BlockSlice? = nil) -> Outcome {
        invariant(isRunning, "a command that ends has begun")
        guard let command = current else { broken("a command that ends has begun") }
        let blockIsTaken = takeBackSpare(of: command.slot)
        do throws(Refusal) {
            if command.slot >= 0 {
                progress.useClock += 1
                try keep(reply, in: slice, of: command, blockIsTaken: blockIsTaken)
            } else if let slice {
                transaction.free(slice.block)
            }
        } catch {
            progress.useClock -= 1
            return .done(refuse(.full))
        }
        if transaction.overflowed {
            if command.slot >= 0 { progress.useClock -= 1 }
            guard recordsInGroup > 0 else { return .done(refuse(.tooLarge)) }
            transaction.rollbackCommand()
            commit()
            openGroup()
            beginRun()
            return .again
        }
        transaction.endCommand()
        isRunning = false
        return .done(
            Answer(status: countRecord(.ok), session: command.session, position: takePosition(), body: reply))
    }

    /// The state machine has refused: undoes all that the command did, and keeps the refusal as its reply.
    package func refuse(_ refusal: Refusal) -> Answer {
        invariant(isRunning, "a command that is refused has begun")
        guard let command = current else { broken("a command that is refused has begun") }
        transaction.spare = 0
        transaction.rollbackCommand()
        isRunning = false
        let position = takePosition()
        let text = refusal.reason
        let body = UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        if command.slot >= 0 {
            progress.useClock += 1
            do throws(Refusal) {
                try table.keep(
                    .bytes(body), status: .full, sequence: command.sequence, position: position,
                    clock: progress.useClock,
                    in: command.slot)
            } catch {
                broken("the reasons of refusals are short enough for the slot")
            }
        }
        return Answer(status: countRecord(.full), session: command.session, position: position, body: body)
    }

    /// A record of the instance that is not a command, such as a read marker: it changes nothing, but is not met again
    /// after a crash.
    package func passRecord() {
        openGroup()
        _ = countRecord(.ok)
    }

    /// The last record of the instance is executed, or it had none.
    package func endInstance(_ instance: UInt64) {
        invariant(!isRunning, "an instance ends between commands")
        invariant(instance == progress.executed + 1, "instances are executed in order, without a gap")
        openGroup()
        progress.executed = instance
        progress.records = 0
        breadcrumbs.enter(instance: instance + 1)
    }

    /// Makes everything since the last commit durable, all or nothing. Durable on return.
    package func commit() {
        // What the machine wrote when it was made has a digest, too.
        if !groupIsOpen, transaction.isDirty { openGroup() }
        if groupIsOpen { transaction.write(root.sealed, to: PersistentPointer(offset: heap.systemRoot)) }
        transaction.commit { digest in
            progress.digest = digest
            transaction.write(progress.sealed, to: PersistentPointer(offset: heap.progressRoot))
        }
        groupIsOpen = false
        recordsInGroup = 0
    }

    /// Durable on return.
    package func record(bootCount: UInt64) {
        openGroup()
        progress.bootCount = bootCount
        commit()
    }

    /// The state came from another replica, whose own boot count is none of this one.
    func markInstalled(bootCount: UInt64) {
        openGroup()
        progress.installed = progress.executed
        progress.bootCount = bootCount
        commit()
        transaction.checkpoint()
    }

    // MARK: Breadcrumbs and skips

    /// What the process before this one left, if it ended while it executed something. To be called once, by the
    /// replica whose pool it is, before anything is executed. Durable on return.
    package func takeUpBreadcrumb() -> Breadcrumbs.End? {
        let end = breadcrumbs.takeUp(at: root.position)
        breadcrumbs.enter(instance: progress.executed + 1)
        flushBreadcrumbs()
        return end
    }

    /// The snapshot came with what its giver has skipped, which is part of the state; where the giver ended is not.
    func forgetBreadcrumb() {
        breadcrumbs.forgetEnd()
        flushBreadcrumbs()
    }

    private func flushBreadcrumbs() {
        pool.flush(heap.ownerLine, StateLayout.lineSize)
        pool.fence()
    }

    /// From here on the commands at these positions, and at those that were skipped before and are not passed, are not
    /// run.
    /// - Returns: those of them that are passed already.
    package func skip(_ positions: [UInt64]) -> [UInt64] {
        skips = Set(positions + breadcrumbs.skipped).filter { $0 > root.position }.sorted()
        nextSkip = skips.first ?? .max
        return positions.filter { $0 <= root.position }
    }

    /// The first position that was named is reached, or was passed by what is no command of the machine. It is put on
    /// record before the refusal is committed: what another start does at this position is then the same.
    @inline(never) private func reachesSkip() -> Bool {
        let position = root.position + 1
        skips.removeAll { $0 < position }
        let isNamed = skips.first == position
        if isNamed {
            skips.removeFirst()
            breadcrumbs.note(skipped: position)
            flushBreadcrumbs()
        }
        nextSkip = skips.first ?? .max
        return isNamed
    }

    // MARK: Parts

    /// The machine is about to run. The block of the reply that the command's will replace serves it as spare.
    private func beginRun() {
        invariant(transaction.spare == 0, "the spare of the command before is taken back")
        guard let slot = current?.slot else { broken("a machine runs for a command") }
        transaction.beginCommand()
        if slot >= 0 { transaction.spare = table.block(of: slot) }
        breadcrumbs.leave(position: root.position &+ 1)
    }

    /// - Returns: whether the machine took it.
    private func takeBackSpare(of slot: Int) -> Bool {
        guard slot >= 0 else { return false }
        defer { transaction.spare = 0 }
        return transaction.spare == 0 && table.block(of: slot) != 0
    }

    private func keep(
        _ reply: UnsafeRawBufferPointer, in slice: BlockSlice?,
        of command: (session: UInt64, sequence: UInt64, slot: Int), blockIsTaken: Bool
    ) throws(Refusal) {
        // A short one lies better in the session's slot.
        let isShort = reply.count <= KeptReply.inlineLimit
        let new: SessionTable.NewReply = if let slice, !isShort { .slice(slice) } else { .bytes(reply) }
        try table.keep(
            new, blockIsTaken: blockIsTaken, status: .ok, sequence: command.sequence, position: root.position + 1,
            clock: progress.useClock, in: command.slot)
        if let slice, isShort { transaction.free(slice.block) }
    }

    /// Makes sure that what belongs to every commit is part of this one, and that sessions can be opened and closed
    /// without a look at the journal. The lines are marked before any command begins, so that a rollback leaves them
    /// marked.
    private func openGroup() {
        if groupIsOpen, transaction.journalRoom < StateLayout.sessionRoom { commit() }
        guard !groupIsOpen else { return }
        _ = transaction.mutableBytes(heap.systemRoot, MemoryLayout<StateRoot>.size)
        _ = transaction.mutableBytes(heap.progressRoot, MemoryLayout<Progress>.size)
        groupIsOpen = true
    }

    private func takePosition() -> UInt64 {
        root.position += 1
        return root.position
    }

    private func countRecord(_ status: OrderedStatus) -> OrderedStatus {
        progress.records += 1
        recordsInGroup += 1
        return status
    }

    private func use(_ slot: Int) {
        progress.useClock += 1
        table.touch(slot, clock: progress.useClock)
    }

    private func ended(_ status: OrderedStatus, session: UInt64, position: UInt64) -> Answer {
        Answer(
            status: countRecord(status), session: session, position: position,
            body: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    private func repeatReply(of slot: Int, session: UInt64) -> Answer {
        use(slot)
        let kept = table.read(slot)
        guard let status = OrderedStatus(rawValue: kept.status) else {
            broken("a kept reply has a valid status; else the pool is damaged, see mpaxos dump --verify")
        }
        return Answer(
            status: countRecord(status), session: session, position: kept.position, body: table.reply(of: slot))
    }
}

extension StateRoot {
    /// Whether the numbers are possible for a data area of this size.
    func isSound(dataSize: UInt64, progressSize: Int) -> Bool {
        guard isIntact, magic == StateRoot.magic, capacity > 0, capacity <= UInt32(SessionRules.slotLimit) else {
            return false
        }
        guard sessions <= usedSlots, usedSlots <= UInt64(capacity), openings >= usedSlots, position >= openings else {
            return false
        }
        guard table % UInt64(StateLayout.lineSize) == 0, tableBlock <= table, table < dataSize else { return false }
        return UInt64(StateLayout.tableSize(sessions: Int(capacity))) <= dataSize - table
            && StateLayout.progressSize(sessions: Int(capacity)) <= progressSize
    }
}

extension Refusal {
    /// The body of the FULL that a refused command is answered with: the same on every replica, and short enough to be
    /// kept in a slot.
    package var reason: StaticString {
        switch self {
        case .full: "the store is full"
        case .tooLarge: "too large for a commit"
        case .replyTooLarge: "the reply is too large"
        case .malformed: "no command of this service"
        case .skipped: "skipped by the operator"
        }
    }
}
