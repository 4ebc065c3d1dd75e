import Testing

@testable import MPaxosPersistentMemory

/// A process that is killed leaves all that it stored, in caches too; then the power is lost. What a recovery between
/// the two has shown must still be there.
@Suite struct KilledProcessTests {
    /// Commits, is killed before anything of that commit is fenced, recovers, and loses power at any moment of that or
    /// after it.
    /// - Parameter plant: what the recovery does wrong.
    /// - Returns: how many images were looked at, and what is wrong with the first that is.
    private func run(seed: UInt64, plant: (CrashModel) -> Void = { _ in }) throws -> (images: Int, wrong: String?) {
        let pool = try CrashRun.emptyPool(size: CrashRun.regionSize)
        try Heap.format(in: pool, progressSize: 4096, journalSize: CrashRun.journalSize, reserveSize: 12 << 10)
        let heap = try Heap(opening: pool)
        let (killed, after) = (
            try CrashRun.emptyPool(size: CrashRun.regionSize), try CrashRun.emptyPool(size: CrashRun.regionSize)
        )
        var random = CrashModel.Seeded(seed: seed)
        let block = try heap.transaction.allocate(8 << 10)
        func write(_ value: UInt64) {
            for place in 0..<16 {
                heap.transaction.write(value, to: PersistentPointer(offset: block + 512 * UInt64(place)))
            }
        }
        write(1)
        heap.transaction.commit()
        let before = copy(heap.transaction.committed)

        let model = CrashModel(of: pool)
        pool.crashRecorder = model
        var recovery: CrashModel?
        model.atEvent = {
            // The first fence of the commit: the record is stored.
            guard recovery == nil, model.fences == 1 else { return }
            model.makeImage(.nothing, open: model.openLines, into: killed.region, random: &random)
            recovery = CrashModel(of: killed)
            killed.region.copyMemory(from: UnsafeRawBufferPointer(pool.region))
        }
        write(2)
        heap.transaction.commit()
        pool.crashRecorder = nil
        let committed = copy(heap.transaction.committed)

        let loss = try #require(recovery)
        plant(loss)
        var (images, wrong) = (0, nil as String?)
        func losePower(_ allowed: [[UInt8]], _ moment: String) {
            let open = loss.openLines
            for kind in [.nothing, .lines, .words, .lines, .words] as [CrashModel.ImageKind] {
                loss.makeImage(kind, open: open, into: after.region, random: &random)
                images += 1
                do {
                    let found = copy(try Heap(opening: after).transaction.committed)
                    if wrong == nil, !allowed.contains(found) { wrong = "\(moment) the state is none of the allowed" }
                } catch {
                    wrong = wrong ?? "\(moment): \(error)"
                }
            }
        }
        killed.crashRecorder = loss
        loss.atEvent = { losePower([before, committed], "in the recovery") }
        let recovered = try Heap(opening: killed)
        loss.atEvent = nil
        killed.crashRecorder = nil
        #expect(recovered.replayedCommits > 0 && copy(recovered.transaction.committed) == committed)
        losePower([committed], "after the recovery")
        return (images, wrong)
    }

    private func copy(_ bytes: UnsafeRawBufferPointer) -> [UInt8] { Array(bytes) }

    @Test func whatARecoveryHasShownStays() throws {
        for seed in 1...6 as ClosedRange<UInt64> {
            let outcome = try run(seed: seed)
            #expect(outcome.images > 10 && outcome.wrong == nil, "seed \(seed): \(outcome.wrong ?? "")")
        }
    }

    /// The flush of the records that are replayed, forgotten.
    @Test func aRecoveryThatTrustsTheCacheIsFound() throws {
        let journal = 4096..<CrashRun.dataOffset
        let found = try (1...10 as ClosedRange<UInt64>).contains {
            try run(seed: $0) { $0.forgetsFlush = { journal.contains($0.lowerBound) } }.wrong != nil
        }
        #expect(found)
    }
}
