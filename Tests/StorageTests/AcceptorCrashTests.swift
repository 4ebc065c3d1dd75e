import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// Runs an acceptor's load on a small pool and, at its flushes and fences, recovers from memory as a crash there may
/// leave it. What was fenced must be found: the promise, the floor, every vote at or above the floor with its bytes;
/// and nothing may be found that was never recorded.
private final class AcceptorCrashRun {
    struct Outcome {
        var events = 0
        var images = 0
        var distinct = 0
        var inRecovery = 0
        var discarded = 0
        var floorRises = 0
        var supersededVotes = 0
        /// Batches that were moved, since they had to stay.
        var moves = 0
        var wrong = 0
        var firstWrong: String?
    }

    /// What the pool has been told.
    private struct Told {
        var promised: UInt64 = 0
        var established: (view: UInt64, base: UInt64) = (0, 0)
        var floor: UInt64 = 1
        var votes: [UInt64: UInt64] = [:]
    }

    private struct Vote: Hashable {
        var instance: UInt64
        var view: UInt64
    }

    private let pool: AcceptorPool
    private let region: Pool
    private let model: CrashModel
    private var random: Seeded
    private let image: UnsafeMutableRawBufferPointer
    private let nested: UnsafeMutableRawBufferPointer
    private var outcome = Outcome()
    private var seen: Set<UInt64> = []

    private var fenced = Told()
    private var told = Told()
    private var executed: UInt64 = 0
    /// All votes ever recorded.
    private var contents: [Vote: [UInt8]] = [:]

    static let geometry = AcceptorGeometry(slots: 16, arenaSize: 4096)
    static let pages = 6

    init(seed: UInt64, plant: (CrashModel) -> Void = { _ in }) throws {
        region = try emptyPool(pages: Self.pages)
        AcceptorPool.write(identity: identity, geometry: Self.geometry, to: region)
        pool = try Self.open(region)
        model = CrashModel(of: region)
        plant(model)
        random = Seeded(seed: seed)
        image = .allocate(byteCount: Self.pages * Pool.pageSize, alignment: Pool.pageSize)
        nested = .allocate(byteCount: Self.pages * Pool.pageSize, alignment: Pool.pageSize)
    }

    deinit {
        image.deallocate()
        nested.deallocate()
    }

    /// The machine's run in which the load is.
    private static let boot: UInt64 = 7

    private static func open(_ pool: Pool, boot: UInt64 = AcceptorCrashRun.boot) throws -> AcceptorPool {
        try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica, boot: boot)
    }

    /// An image with all that was stored is what a process leaves that is killed: then the machine runs on, and nothing
    /// is torn.
    private static func bootAfter(_ kind: CrashModel.ImageKind) -> UInt64 { kind == .everything ? boot : boot + 1 }

    func run(steps: Int) -> Outcome {
        region.crashRecorder = model
        model.atEvent = { [unowned self] in crash() }
        for _ in 0..<steps where outcome.wrong < 100 { step() }
        region.crashRecorder = nil
        return outcome
    }

    // MARK: Load

    private func step() {
        switch random.below(20) {
        case 0:
            told.promised += UInt64(1 + random.below(3))
            pool.record(promise: told.promised)
        case 1:
            guard told.promised > told.established.view else { return }
            told.established = (told.promised, executed)
            pool.record(establishedView: told.established.view, base: told.established.base)
        case 2..<7:
            pool.fence()
            fenced = told
        case 7..<10:
            // Only what is fenced can have been decided.
            if fenced.votes[executed + 1] != nil { executed += 1 }
        default:
            vote()
        }
    }

    private func vote() {
        let highest = told.votes.keys.max() ?? 0
        // Mostly the next instance, sometimes one in flight again in a higher view, or learnt as decided.
        let isNew = highest == executed || random.below(4) > 0
        let instance = isNew ? highest + 1 : executed + 1 + UInt64(random.below(Int(highest - executed)))
        if told.promised == 0 { return }
        let before = told.votes[instance]
        var view = told.promised
        if let before, before >= view {
            guard before != .max, random.below(3) == 0 else { return }
            view = .max
        }
        if before != nil { outcome.supersededVotes += 1 }
        let content =
            random.below(8) == 0
            ? [] : (0..<1 + random.below(600)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        guard instance >= told.floor, let batch = store(content, for: instance) else { return }
        // Bytes are in the pool before the vote that names them is known here.
        contents[Vote(instance: instance, view: view)] = content
        told.votes[instance] = view
        pool.record(instance: instance, view: view, batch: batch)
        // Sometimes two votes for one instance gather in one group.
        if view != .max, random.below(3) == 0 { decide(instance) }
    }

    private func decide(_ instance: UInt64) {
        guard pool.makeRoom(for: 100, instance: instance, executed: 0, isReferenced: { _, _ in false }) == told.floor,
            let batch = pool.store(Array(repeating: 7, count: 100), for: instance)
        else { return }
        contents[Vote(instance: instance, view: .max)] = Array(repeating: 7, count: 100)
        told.votes[instance] = .max
        pool.record(instance: instance, view: .max, batch: batch)
    }

    private func store(_ content: [UInt8], for instance: UInt64) -> Batch? {
        if !pool.hasSlot(for: instance) || !content.isEmpty && pool.reserve(content.count) == nil {
            makeRoom(for: content.count, instance)
            var left = pool.batchCount
            while !content.isEmpty, left > 0, !pool.hasRoom(for: content.count), let moved = moveOldest() {
                if told.votes[moved] == nil { fail("what was moved for \(moved) was no vote") }
                makeRoom(for: content.count, instance)
                left -= 1
            }
        }
        guard pool.hasSlot(for: instance) else { return nil }
        return content.isEmpty ? .noop : pool.store(content, for: instance)
    }

    private func makeRoom(for count: Int, _ instance: UInt64) {
        // The floor is on its way from here on.
        let before = told.floor
        let epoch = pool.epoch
        told.floor = executed + 1
        let floor = pool.makeRoom(for: count, instance: instance, executed: executed, isReferenced: { _, _ in false })
        told.floor = floor
        if floor > before { outcome.floorRises += 1 }
        told.votes = told.votes.filter { $0.key >= floor }
        if pool.epoch != epoch { fenced = told }
    }

    private func moveOldest() -> UInt64? {
        guard let moved = pool.moveOldest(above: executed) else { return nil }
        // All that was recorded before is durable with it.
        fenced = told
        outcome.moves += 1
        return moved.instance
    }

    // MARK: Crashes

    private func crash() {
        outcome.events += 1
        let open = model.openLines
        for number in 0..<4 {
            let kind: CrashModel.ImageKind = [.nothing, .everything, .lines, .words][number]
            let fingerprint = model.makeImage(kind, open: open, into: image, random: &random)
            outcome.images += 1
            if seen.insert(fingerprint).inserted { outcome.distinct += 1 }
            recover(kind)
        }
    }

    private func recover(_ kind: CrashModel.ImageKind) {
        do {
            let copied = try Pool(image: UnsafeRawBufferPointer(image))
            defer { copied.close() }
            if outcome.images % 3 == 0 { crashRecovery(of: copied, boot: Self.bootAfter(kind)) }
            let recovered = try Self.open(copied, boot: Self.bootAfter(kind))
            copied.crashRecorder = nil
            outcome.discarded += recovered.torn.count
            if kind == .everything && !recovered.torn.isEmpty { fail("torn without a loss of power") }
            try check(recovered)
            try goOn(recovered)
        } catch {
            fail("\(error)")
        }
    }

    private func crashRecovery(of copied: Pool, boot: UInt64) {
        let model = CrashModel(of: copied)
        copied.crashRecorder = model
        model.atEvent = { [unowned self, unowned model] in
            let kind: CrashModel.ImageKind = [.lines, .words, .everything][random.below(3)]
            model.makeImage(kind, open: model.openLines, into: nested, random: &random)
            outcome.inRecovery += 1
            do {
                let again = try Pool(image: UnsafeRawBufferPointer(nested))
                defer { again.close() }
                // In the run of the machine in which the recovery was, or the next.
                try check(try Self.open(again, boot: kind == .everything ? boot : boot + 1))
            } catch {
                fail("in recovery: \(error)")
            }
        }
    }

    /// What was recovered must also carry further votes: they may not fall over what the crash left behind.
    private func goOn(_ recovered: AcceptorPool) throws {
        let entries = recovered.entries
        let next = (entries.keys.max() ?? max(executed, recovered.floor)) + 1
        _ = recovered.makeRoom(for: 100, instance: next, executed: executed, isReferenced: { _, _ in false })
        guard recovered.hasSlot(for: next), let batch = recovered.store(Array(repeating: 9, count: 100)) else { return }
        recovered.record(instance: next, view: 1 << 40, batch: batch)
        recovered.fence()
        let again = try Self.open(copy(of: recovered.pool))
        if again.entries[next]?.view != 1 << 40 { fail("a vote after recovery is lost") }
        try check(again, beyond: next)
    }

    private func check(_ recovered: AcceptorPool, beyond: UInt64 = .max) throws {
        try recovered.settle(executed: executed)
        let entries = recovered.entries
        let implied = entries.values.map(\.view).filter { $0 != .max }.max() ?? 0
        if recovered.promised < max(fenced.promised, implied) || recovered.promised > max(told.promised, implied) {
            fail("promise \(recovered.promised), by the votes at least \(implied)")
        }
        let view = recovered.established.view
        if view != fenced.established.view && view != told.established.view
            && (view < fenced.established.view || view > told.promised)
        {
            fail("established \(view)")
        }
        // `settle` may raise the floor over holes, but not above what is executed.
        if recovered.floor < fenced.floor || recovered.floor > max(told.floor, executed + 1) {
            fail("floor \(recovered.floor)")
        }
        for (instance, view) in fenced.votes where instance >= recovered.floor {
            guard let entry = entries[instance] else {
                fail("the vote for \(instance) in \(view) is lost")
                continue
            }
            if entry.view < view { fail("the vote for \(instance) went back from \(view) to \(entry.view)") }
        }
        for (instance, entry) in entries where instance < beyond {
            guard let content = contents[Vote(instance: instance, view: entry.view)] else {
                fail("a vote for \(instance) in \(entry.view) was never recorded")
                continue
            }
            if recovered.content(of: entry.batch) != content { fail("wrong bytes for \(instance) in \(entry.view)") }
        }
    }

    private func fail(_ what: String) {
        outcome.wrong += 1
        if outcome.firstWrong == nil {
            outcome.firstWrong = "event \(outcome.events), image \(outcome.images): \(what)"
        }
    }
}

/// Notes the lines that are flushed.
private final class FlushedLines: CrashRecorder {
    let start: UnsafeRawPointer
    var lines: Set<Int> = []

    init(of pool: Pool) { start = UnsafeRawPointer(pool.region.baseAddress!) }

    func flushed(_ place: UnsafeRawPointer, _ count: Int) {
        lines.formUnion((place - start) / 64...(place - start + count - 1) / 64)
    }

    func fenced() {}
}

@Suite struct AcceptorCrashTests {
    /// After the process died, not the machine, what it stored is seen, though it may not be flushed: recovery takes it
    /// for recorded, so it must flush it.
    @Test func recoveryFlushesWhatItFindsOfTheLastGroup() throws {
        let pool = try emptyPool(pages: AcceptorCrashRun.pages)
        AcceptorPool.write(identity: identity, geometry: AcceptorCrashRun.geometry, to: pool)
        let acceptor = try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica)
        acceptor.record(promise: 4)
        let batch = try #require(acceptor.store(Array(repeating: 1, count: 300)))
        acceptor.record(instance: 5, view: 4, batch: batch)
        let image = try copy(of: pool)
        let recorder = FlushedLines(of: image)
        image.crashRecorder = recorder
        _ = try AcceptorPool(in: image, expecting: identity.cluster, replica: identity.replica)
        image.crashRecorder = nil
        let first = AcceptorCrashRun.geometry.arenaOffset / 64
        #expect(recorder.lines.isSuperset(of: first..<first + 5))
        #expect(recorder.lines.contains(AcceptorGeometry.slotsOffset / 64 + 2 * 5))
        #expect(recorder.lines.contains(RecordCell.promise.primary / 64))
    }

    /// A crash may spare a vote and lose the promise before it. Whoever has the vote goes on in its view: so the
    /// promise is recorded anew, and stays when the vote is dropped. (Simulator, seed 34224 of five replicas.)
    @Test func aVoteBringsItsPromiseBack() throws {
        let pool = try emptyPool(pages: AcceptorCrashRun.pages)
        AcceptorPool.write(identity: identity, geometry: AcceptorCrashRun.geometry, to: pool)
        do {
            let acceptor = try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica)
            acceptor.record(promise: 4)
            acceptor.fence()
            let batch = try #require(acceptor.store(Array(repeating: 1, count: 300)))
            acceptor.record(instance: 1, view: 9, batch: batch)
            acceptor.fence()
        }
        let image = try copy(of: pool)
        let acceptor = try AcceptorPool(in: image, expecting: identity.cluster, replica: identity.replica)
        #expect(acceptor.promised == 9)
        acceptor.raiseFloor(to: 2)
        let again = try AcceptorPool(in: copy(of: image), expecting: identity.cluster, replica: identity.replica)
        #expect(again.entries.isEmpty)
        #expect(again.promised == 9)
    }

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func nothingFencedIsLost(seed: UInt64) throws {
        let outcome = try AcceptorCrashRun(seed: seed).run(steps: crashCommits(usually: 400))
        print("crash images of an acceptor pool, seed \(seed): \(outcome)")
        #expect(outcome.wrong == 0, "\(outcome.firstWrong ?? "")")
        // The run must have been one that could find something.
        #expect(outcome.floorRises > 5 && outcome.supersededVotes > 10 && outcome.discarded > 50)
        #expect(outcome.moves > 5, "votes that had to stay were moved")
        #expect(outcome.inRecovery > 100)
    }

    /// The harness sees what a forgotten flush does, in each kind of line.
    @Test(arguments: ["votes", "batches", "promise", "floor"])
    func aForgottenFlushIsFound(of what: String) throws {
        let arena = AcceptorCrashRun.geometry.arenaOffset
        let lines: Range<Int> =
            switch what {
            case "votes": AcceptorGeometry.slotsOffset..<arena
            case "batches": arena..<arena + AcceptorCrashRun.geometry.arenaSize
            case "promise": RecordCell.promise.primary..<RecordCell.promise.primary + 64
            default: RecordCell.floor.primary..<RecordCell.floor.primary + 64
            }
        let found = try (1...4 as ClosedRange<UInt64>).contains { seed in
            let run = try AcceptorCrashRun(seed: seed) { $0.forgetsFlush = { lines.contains($0.lowerBound) } }
            return run.run(steps: 400).wrong > 0
        }
        #expect(found)
    }

    @Test func aForgottenFenceIsFound() throws {
        let found = try (1...4 as ClosedRange<UInt64>).contains { seed in
            let run = try AcceptorCrashRun(seed: seed) { model in
                var fences = 0
                model.forgetsFence = { _ in
                    fences += 1
                    return fences % 5 == 0
                }
            }
            return run.run(steps: 400).wrong > 0
        }
        #expect(found)
    }
}
