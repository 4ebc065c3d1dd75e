import Logging
import MPaxosConsensus
import MPaxosInvariants
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosQueues
import MPaxosStateMachines
import MPaxosStateTransfer
import MPaxosStorage
import MPaxosWire

/// The stage that owns the replicated state: executes decided batches in order, commits, and answers.
///
/// State, sessions, kept replies and position of a run of batches become durable in one commit; only then do their
/// replies leave. Queries are answered between commits, from the same thread. The digest of the state is stated at
/// fixed instances and in quiet times; and all of the state is read again and again, a slice at a time, to see whether
/// it is still what commits have made.
package final class Executor<Machine: StateMachine>: Stage {
    private let index: Int
    private let machine: Machine
    private let pool: StatePool
    private let heap: Heap
    private let transaction: Transaction
    private let clock: Clock
    private let progress: Progress
    private let board: StatusBoard
    private let decided: SPSCRing<DecidedBatch>
    private let localQueries: SPSCRing<LocalQuery>
    private let completions: SPSCRing<Completion>
    private let digests: SPSCRing<DigestComparison.Standing>
    private let queryBodies: ByteRing
    private let replyBodies: ByteRing
    private let gateway: Parker
    private let engine: Parker
    private let snapshotOrder: SnapshotOrder
    private let alarm: Alarm
    private let logger: Logger
    private let breadcrumbs: Breadcrumbs
    /// The epoch that the tags of this process carry.
    private let epoch: UInt64
    /// The snapshot that is being made for another replica.
    private var snapshot: StateSnapshot?
    /// Since when a snapshot waits to be begun.
    @exclusivity(unchecked) private var snapshotWaitsSince: UInt64?

    /// Behind a pointer, as it is changed for every command: a class's own storage would be checked for exclusive
    /// access each time.
    private let reply: UnsafeMutablePointer<Reply>
    /// Replies that wait for the commit that makes them true.
    private let held: UnsafeMutablePointer<Completion>
    @exclusivity(unchecked) private var heldCount = 0
    /// Commands whose memory is fetched ahead, each with the machine's hint.
    private let ahead: UnsafeMutablePointer<(session: UInt64, body: UnsafeRawBufferPointer, hint: UInt64)>
    /// A batch that took too long for one turn: the state holds its first records.
    @exclusivity(unchecked) private var interrupted: DecidedBatch?
    /// The room that the ring of completions had at the last commit: so many of the held replies may leave.
    @exclusivity(unchecked) private var completionRoom = 0
    /// The last instance whose digest was stated.
    @exclusivity(unchecked) private var statedInstance: UInt64 = .max
    @exclusivity(unchecked) private var lastBatch: UInt64 = 0
    @exclusivity(unchecked) private var verification: Verification
    /// Bytes of the state are not what commits have made of them: nothing is executed or answered any more.
    @exclusivity(unchecked) private var isDamaged = false

    /// Most replies of one commit.
    private static var mostHeld: Int { 4096 }
    /// Commands whose memory is fetched ahead: as many as the processor can have misses under way.
    private static var commandsAhead: Int { 16 }
    /// Microseconds after which a turn ends, lest the other stages of the lane wait: at the end of a query or a batch.
    private static var longestTurn: UInt64 { 5_000 }
    /// Bytes of a snapshot copied at a time: some tenths of a millisecond, in which nothing else on this lane moves.
    private static var snapshotSlice: Int { 1 << 20 }
    /// Microseconds for which a snapshot waits for a good moment at most.
    private static var longestWaitOfSnapshot: UInt64 { 2_000_000 }
    /// Microseconds without commands after which the digest is stated, at whatever instance that is.
    private static var quiet: UInt64 { 50_000 }

    package init(
        index: Int, machine: Machine, pool: StatePool, maximumRequest: Int, clock: Clock, progress: Progress,
        board: StatusBoard, rings: Rings, parkers: Parkers, snapshotOrder: SnapshotOrder, alarm: Alarm,
        isVerified: Bool, epoch: UInt64,
        logger: Logger
    ) {
        self.logger = logger
        self.epoch = epoch
        breadcrumbs = pool.breadcrumbs
        self.snapshotOrder = snapshotOrder
        self.alarm = alarm
        verification = Verification(of: pool.heap, board: board, isFirst: !isVerified)
        self.index = index
        self.machine = machine
        self.pool = pool
        heap = pool.heap
        transaction = heap.transaction
        self.clock = clock
        self.progress = progress
        self.board = board
        decided = rings.decided
        localQueries = rings.localQueries
        completions = rings.completions
        digests = rings.digests
        queryBodies = rings.queryBodies
        replyBodies = rings.replyBodies
        gateway = parkers.gateway
        engine = parkers.engine
        reply = .allocate(capacity: 1)
        reply.initialize(to: Reply(maxRequest: maximumRequest))
        held = .allocate(capacity: Self.mostHeld)
        ahead = .allocate(capacity: Self.commandsAhead)
        progress.executed = pool.executed
        board.executed.store(pool.executed)
        super.init()
        publish()
    }

    override package func close() { pool.close() }

    deinit {
        held.deallocate()
        ahead.deallocate()
        reply.deinitialize(count: 1)
        reply.deallocate()
    }

    override package func poll(budget: Int, now: UInt64) -> Bool {
        if isDamaged { return false }
        let isPaused = snapshotOrder.isPlaced && (snapshot != nil || beginsSnapshot(now: now))
        if isPaused { copySnapshot(now: now) }
        let end = clock.now + Self.longestTurn
        var batches = 0
        while !isPaused, batches < budget, heldCount < Self.mostHeld / 2, let batch = nextBatch() {
            execute(batch, until: end)
            batches += 1
            // What is compared is the state after just this instance.
            if isAtInterval || interrupted != nil || clock.now >= end { break }
        }
        if batches > 0 {
            commit()
            if isAtInterval { stateDigest() }
            engine.wake()
            lastBatch = now
        }
        var queries = 0
        while queries < budget, let query = localQueries.pop() {
            answer(query)
            queries += 1
            if clock.now >= end { break }
        }
        if queries > 0 { breadcrumbs.clear() }
        if batches + queries > 0 {
            publish()
            if completions.publish() { gateway.wake() }
            verify(isBusy: true, now: now)
            return true
        }
        if isPaused { return true }
        if canStateDigest, now >= lastBatch + Self.quiet {
            stateDigest()
            engine.wake()
        }
        return verify(isBusy: false, now: now)
    }

    override package var nextDeadline: UInt64 {
        if isDamaged { return .max }
        let waitsForQuiet = canStateDigest || snapshotOrder.isPlaced && isBetweenInstances
        return min(waitsForQuiet ? lastBatch + Self.quiet : .max, verification.nextDeadline)
    }

    // MARK: Batches

    private func nextBatch() -> DecidedBatch? {
        guard let batch = interrupted else { return decided.pop() }
        interrupted = nil
        return batch
    }

    /// Executes a batch, or as much of it as there is time for: queries may take long. The rest is for the next turn.
    private func execute(_ batch: DecidedBatch, until end: UInt64) {
        invariant(batch.instance == pool.executed + 1, "decided batches are executed in order, without a gap")
        var records = CommandRecords(UnsafeRawBufferPointer(start: batch.bytes, count: batch.count))
        // After a crash or a pause in the middle of a long batch its first records are part of the state already.
        var skip = pool.executedCommands
        var fetched = 0
        while true {
            if fetched == 0 { fetched = fetchAhead(records) }
            guard let record = records.next() else { break }
            fetched -= 1
            if skip > 0 {
                skip -= 1
                continue
            }
            execute(record)
            if record.kind == .query, records.offset < batch.count, clock.now >= end {
                interrupted = batch
                return
            }
        }
        invariant(!records.isDamaged, "a decided batch is a run of whole command records")
        invariant(skip == 0, "the state holds no more commands of a batch than the batch has")
        pool.endInstance(batch.instance)
    }

    /// Begins to fetch what the next commands will touch. The state is larger than the caches: so their misses overlap,
    /// where otherwise each command would wait for its own.
    /// - Returns: how many records ahead that was.
    private func fetchAhead(_ records: CommandRecords) -> Int {
        var walk = records
        var count = 0
        var read = 0
        while read < Self.commandsAhead, let record = walk.next() {
            read += 1
            guard record.kind == .submit else { continue }
            ahead[count] = (record.session, record.body, 0)
            count += 1
        }
        for step in 0...2 {
            for i in 0..<count {
                pool.prefetch(session: ahead[i].session, step: step)
                machine.prefetch(ahead[i].body, step: step, hint: &ahead[i].hint, in: transaction)
            }
        }
        return read
    }

    private func execute(_ record: CommandRecord) {
        let isOwn = Int(record.origin) == index
        switch record.kind {
        case .query:
            // Nobody waits for the answer to a query of the process before; and one that has stopped it must not stop
            // this one, too.
            if isOwn, PendingTable.isTag(record.tag, of: epoch) {
                let status = runOrderedQuery(record.body)
                hold(
                    record.tag, status, session: 0, position: status == .ok ? pool.position : 0,
                    body: reply.pointee.bytes)
            }
            pool.passRecord()
        case .open, .submit, .close:
            let kind = OrderedKind(rawValue: record.kind.rawValue)!
            let answer = execute(kind, record)
            if isOwn {
                hold(
                    record.tag, StatusCode(rawValue: answer.status.rawValue)!, session: answer.session,
                    position: answer.position, body: answer.body)
            }
        }
    }

    private func execute(_ kind: OrderedKind, _ record: CommandRecord) -> Answer {
        switch pool.begin(kind: kind, session: record.session, sequence: record.sequence) {
        case .answer(let answer):
            if kind == .submit { board.commandsRepeated.add(1) }
            return answer
        case .skip:
            return skip()
        case .execute:
            board.commandsExecuted.add(1)
            while true {
                if let refusal = apply(record.body) { return pool.refuse(refusal) }
                let outcome = pool.finish(reply: reply.pointee.bytes, in: reply.pointee.given)
                if case .done(let answer) = outcome { return answer }
            }
        }
    }

    /// A command that an operator has named is skipped, by all replicas alike, since each has the position from its
    /// operator.
    @inline(never) private func skip() -> Answer {
        board.recordsSkipped.add(1)
        let answer = pool.refuse(.skipped)
        logger.warning(
            "skipped the command at position \(answer.position) (instance \(pool.executed + 1)): its client gets FULL"
        )
        return answer
    }

    /// Runs the machine on a command; says why if it refused.
    ///
    /// What is decided was validated by the gateway that took it, and that may have been another program than this one.
    private func apply(_ command: UnsafeRawBufferPointer) -> Refusal? {
        reply.pointee.removeAll()
        guard command.count <= reply.pointee.maxRequest, Machine.validate(command, as: .submit) == nil else {
            return .malformed
        }
        do throws(Refusal) {
            try machine.apply(command, in: transaction, reply: &reply.pointee)
        } catch {
            return error
        }
        return reply.pointee.overflowed ? .replyTooLarge : nil
    }

    private func commit() {
        pool.commit()
        breadcrumbs.clear()
        pool.assertFlushed()
        board.stateCommits.add(1)
        for i in 0..<heldCount { complete(held[i]) }
        heldCount = 0
        completionRoom = completions.free
        if completions.publish() { gateway.wake() }
        // The engine may overwrite the batches in the log from here on.
        progress.executed = pool.executed
        board.executed.store(pool.executed)
    }

    // MARK: Snapshots

    /// Where others tell the digest of just this state, so that the receiver can compare; or when that does not come
    /// for too long.
    private func beginsSnapshot(now: UInt64) -> Bool {
        guard isBetweenInstances else { return false }
        if snapshotWaitsSince == nil { snapshotWaitsSince = now }
        return pool.executed % DigestComparison.ordinaryInterval == 0 || now >= lastBatch + Self.quiet
            || now >= (snapshotWaitsSince ?? now) + Self.longestWaitOfSnapshot
    }

    /// Copies the next piece of the state. Until the whole is copied nothing is executed.
    private func copySnapshot(now: UInt64) {
        do throws(PoolError) {
            let snapshot: StateSnapshot
            if let begun = self.snapshot {
                snapshot = begun
            } else {
                snapshotOrder.begin(at: now)
                snapshot = try StateSnapshot(of: pool)
            }
            self.snapshot = snapshot
            try snapshot.copy(atMost: Self.snapshotSlice)
            snapshotOrder.advance()
            guard snapshot.isWhole else { return }
            snapshotOrder.deliver(.success(snapshot))
        } catch {
            snapshotOrder.deliver(.failure(error))
        }
        snapshot = nil
        snapshotWaitsSince = nil
        engine.wake()
    }

    // MARK: Queries

    private func answer(_ query: LocalQuery) {
        defer { query.body.release(to: queryBodies) }
        guard pool.position >= query.position else {
            var milliseconds: UInt32 = UInt32(2).littleEndian
            withUnsafeBytes(of: &milliseconds) { complete(completion(query.tag, .busy, body: $0)) }
            return
        }
        pool.assertFlushed()
        let status = runQuery(query.body.bytes)
        complete(
            completion(query.tag, status, position: status == .ok ? pool.position : 0, body: reply.pointee.bytes))
    }

    /// As `runQuery`, for one out of a batch, which another replica put together.
    private func runOrderedQuery(_ query: UnsafeRawBufferPointer) -> StatusCode {
        guard query.count <= reply.pointee.maxRequest, Machine.validate(query, as: .query) == nil else {
            reply.pointee.removeAll()
            return .malformed
        }
        return runQuery(query)
    }

    /// Leaves the answer in `reply`.
    private func runQuery(_ query: UnsafeRawBufferPointer) -> StatusCode {
        reply.pointee.removeAll()
        breadcrumbs.leave(queryAt: pool.position)
        transaction.readOnly = true
        machine.query(query, in: transaction, reply: &reply.pointee)
        transaction.readOnly = false
        progress.served += 1
        board.queriesServed.add(1)
        guard reply.pointee.overflowed else { return .ok }
        let limit = UInt32(clamping: reply.pointee.maxRequest)
        reply.pointee.removeAll()
        reply.pointee.append(littleEndian: limit)
        return .tooLarge
    }

    // MARK: Replies

    private func hold(
        _ tag: UInt64, _ status: StatusCode, session: UInt64, position: UInt64, body: UnsafeRawBufferPointer
    ) {
        let completion = completion(tag, status, session: session, position: position, body: body)
        // Long batches: what is executed so far is made durable, and its replies leave.
        if heldCount == Self.mostHeld { commit() }
        held[heldCount] = completion
        heldCount += 1
    }

    private func completion(
        _ tag: UInt64, _ status: StatusCode, session: UInt64 = 0, position: UInt64 = 0, body: UnsafeRawBufferPointer
    ) -> Completion {
        // Bodies are released in order: that of a completion which may find no room must not lie in the ring.
        if heldCount == 0 { completionRoom = completions.free }
        let body = Body(copying: body, into: replyBodies, isOutside: heldCount >= completionRoom)
        return Completion(tag: tag, status: status.rawValue, session: session, position: position, body: body)
    }

    private func complete(_ completion: Completion) {
        if completions.push(completion) { return }
        // The ring has room for the replies of all that wait; late ones, for requests that were given up, may take
        // their place. A retry finds the reply.
        completion.body.takeBack(from: replyBodies)
        board.repliesLost.add(1)
    }

    // MARK: What others see

    private func publish() {
        if interrupted == nil {
            board.digest = isBetweenInstances ? (pool.position, pool.executed, heap.digest) : nil
        }
        progress.position = pool.position
        board.position.store(pool.position)
        board.sessions.store(UInt64(pool.sessionCount))
        board.statePoolUsed.store(UInt64(pool.used))
        board.statePoolSize.store(UInt64(pool.size))
    }

    /// In the middle of an instance, after a crash or a pause, it is the digest of nothing that others have.
    private var isBetweenInstances: Bool { pool.executedCommands == 0 }

    private var isAtInterval: Bool {
        isBetweenInstances && pool.executed % DigestComparison.ordinaryInterval == 0
    }

    private var canStateDigest: Bool { isBetweenInstances && pool.executed != statedInstance }

    private func stateDigest() {
        // One that finds no room is as good as lost: the next follows, or in quiet times the same.
        guard digests.push(.init(executed: pool.executed, value: heap.digest)) else { return }
        statedInstance = pool.executed
        digests.publish()
    }

    // MARK: Verification

    /// - Returns: whether there is more to be read at once.
    @discardableResult
    private func verify(isBusy: Bool, now: UInt64) -> Bool {
        guard now >= verification.nextDeadline else { return false }
        if let found = verification.read(isBusy: isBusy, now: now) {
            isDamaged = true
            alarm.raise(
                .init(
                    text:
                        "\(StatePool.digestsDiffer(found: found, stored: heap.digest)). The replica serves and votes no more: keep its pools, see mpaxos dump --verify, and restore the file as it was when it last ran; the others go on without it"
                ))
        }
        return now >= verification.nextDeadline
    }
}
