import Glibc
import Testing

@testable import MPaxosPersistentMemory

/// Runs a load on a heap and, at its flushes and fences, recovers from memory as a crash there may leave it. What is
/// recovered must be the state before the commit under way or the state after it; and after it, once `commit` has
/// returned.
final class CrashRun {
    typealias Seeded = CrashModel.Seeded

    struct Outcome {
        var commits = 0
        var events = 0
        var images = 0
        var distinct = 0
        var inRecovery = 0
        var wrong = 0
        var replayed = 0
        var firstWrong: String?
    }

    private let pool: Pool
    private let model: CrashModel
    private let heap: Heap
    private var random: Seeded
    private var outcome = Outcome()
    private var seen: Set<UInt64> = []
    /// Images of crashes, and of crashes in recovery: made in place in pools that are used again and again.
    private let image: Pool
    private let nested: Pool
    /// Data areas that recovery may find.
    private var allowed: [[UInt8]] = []
    private var eventsOfCommit = 0
    private let imagesPerEvent: Int
    private let stopsAtWrong: Bool

    static let regionSize = 160 << 10
    static let journalSize = 24 << 10
    static let dataOffset = 4096 + journalSize

    init(seed: UInt64, imagesPerEvent: Int, stopsAtWrong: Bool = false, plant: (CrashModel) -> Void = { _ in }) throws {
        pool = try CrashRun.emptyPool(size: CrashRun.regionSize)
        try Heap.format(in: pool, progressSize: 4096, journalSize: CrashRun.journalSize, reserveSize: 12 << 10)
        heap = try Heap(opening: pool)
        model = CrashModel(of: pool)
        plant(model)
        random = Seeded(seed: seed)
        image = try CrashRun.emptyPool(size: CrashRun.regionSize)
        nested = try CrashRun.emptyPool(size: CrashRun.regionSize)
        self.imagesPerEvent = imagesPerEvent
        self.stopsAtWrong = stopsAtWrong
    }

    static func emptyPool(size: Int) throws -> Pool {
        let zeros = [UInt8](repeating: 0, count: size)
        return try zeros.withUnsafeBytes { try Pool(image: $0) }
    }

    /// The region as it is now, in a pool of its own.
    static func copyOf(_ pool: Pool) throws -> Pool { try Pool(image: UnsafeRawBufferPointer(pool.region)) }

    func run(commits: Int) throws -> Outcome {
        var load = Workload()
        allowed = [copy(heap.transaction.committed)]
        pool.crashRecorder = model
        // The model lives as long as the run; the event must not keep the run alive.
        model.atEvent = { [unowned self] in crash() }
        for number in 0..<commits where !(stopsAtWrong && outcome.wrong > 0) {
            // Small commits, and now and then one that nearly fills the journal.
            let commands = number % 16 == 15 ? 60 : 1 + random.below(6)
            for _ in 0..<commands where heap.transaction.journalRoom > 6 << 10 {
                load.command(on: heap, random: &random, largest: 3000)
            }
            if heap.transaction.overflowed { throw PoolError(.io, "the load overflowed the journal") }
            // Part of the commit; here, so that the state after it is known before.
            heap.transaction.storeAllocatorSum()
            allowed.append(copy(heap.transaction.bytes(0, allowed[0].count)))
            eventsOfCommit = 0
            heap.transaction.commit()
            allowed.removeFirst()
            outcome.commits += 1
        }
        crash()
        pool.crashRecorder = nil
        outcome.distinct = seen.count
        return outcome
    }

    private func crash() {
        outcome.events += 1
        // A large commit has hundreds of events that are alike.
        if eventsOfCommit > 8, random.below(16) != 0 { return }
        eventsOfCommit += 1
        let open = model.openLines
        for number in 0..<imagesPerEvent where !(stopsAtWrong && outcome.wrong > 0) {
            let kind: CrashModel.ImageKind = [.nothing, .everything, .lines, .words][min(number, 2 + number % 2)]
            let fingerprint = model.makeImage(kind, open: open, into: image.region, random: &random)
            outcome.images += 1
            guard seen.insert(fingerprint).inserted else { continue }
            recover()
        }
    }

    private func recover() {
        do {
            // Some recoveries are themselves cut short, a few times each.
            if outcome.images % 8 == 0 { try crashRecovery() }
            let thorough = outcome.images % 16 == 0
            check(try Heap(opening: image), thorough: thorough, "after a crash at event \(outcome.events)")
        } catch {
            fail("\(error)")
        }
    }

    private func crashRecovery() throws {
        let model = CrashModel(of: image)
        image.crashRecorder = model
        model.atEvent = { [unowned self, unowned model] in
            guard model.flushes == 2 || random.below(64) == 0 else { return }
            let kind: CrashModel.ImageKind = random.below(2) == 0 ? .lines : .words
            model.makeImage(kind, open: model.openLines, into: nested.region, random: &random)
            outcome.inRecovery += 1
            do {
                check(
                    try Heap(opening: nested), thorough: false, "after a crash in recovery from event \(outcome.events)"
                )
            } catch {
                fail("\(error)")
            }
        }
        _ = try Heap(opening: image)
        image.crashRecorder = nil
    }

    private func check(_ recovered: Heap, thorough: Bool, _ moment: String) {
        outcome.replayed += recovered.replayedCommits
        guard allowed.contains(where: { areEqual(recovered.transaction.committed, $0) }) else {
            fail("\(moment) the state is none of the \(allowed.count) allowed")
            return
        }
        guard thorough else { return }
        do {
            _ = try recovered.verify()
            // It must be able to go on, and to find that again.
            recovered.transaction.write(outcome.events, to: PersistentPointer(offset: 8))
            recovered.transaction.commit()
            let expected = copy(recovered.transaction.committed)
            let again = try Heap(opening: recovered.pool)
            if !areEqual(again.transaction.committed, expected) { fail("\(moment) a commit after recovery is lost") }
        } catch {
            fail("\(moment): \(error)")
        }
    }

    private func fail(_ reason: String) {
        outcome.wrong += 1
        if outcome.firstWrong == nil { outcome.firstWrong = reason }
    }
}

@Suite struct CrashImageTests {
    /// `CRASH_COMMITS` and `CRASH_SEED` in the environment make a longer run of other commits.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func everyImageRecoversToBeforeOrAfter(number: UInt64) throws {
        let commits = getenv("CRASH_COMMITS").flatMap { Int(String(cString: $0)) } ?? 40
        let seed = number + (getenv("CRASH_SEED").flatMap { UInt64(String(cString: $0)) } ?? 0)
        let outcome = try CrashRun(seed: seed, imagesPerEvent: 5).run(commits: commits)
        print("crash images, seed \(seed): \(outcome)")
        #expect(outcome.wrong == 0, "\(outcome.firstWrong ?? "")")
        #expect(outcome.commits == commits)
        #expect(outcome.distinct > 20 * commits)
        #expect(outcome.inRecovery > 2 * commits)
        #expect(outcome.replayed > outcome.distinct, "recovery had too little to do")
    }

    private static let journal = 4096..<CrashRun.dataOffset
    private static let firstCommit = 128

    /// Ways to get the flushes and fences of a commit wrong.
    enum Plant: CaseIterable {
        case recordNotFlushed, headNotFlushed, homeNotFlushed, firstCommitNotFlushed
        case commitNotFenced, homesNotFencedAtCheckpoint, firstCommitNotFenced

        func apply(to model: CrashModel) {
            let journal = CrashImageTests.journal
            let firstCommit = CrashImageTests.firstCommit
            switch self {
            case .recordNotFlushed: model.forgetsFlush = { journal.contains($0.lowerBound) && $0.count > 64 }
            case .headNotFlushed: model.forgetsFlush = { journal.contains($0.lowerBound) && $0.count == 64 }
            case .homeNotFlushed: model.forgetsFlush = { $0.lowerBound >= journal.upperBound }
            case .firstCommitNotFlushed: model.forgetsFlush = { $0.lowerBound == firstCommit }
            case .commitNotFenced: model.forgetsFence = { $0.contains(where: journal.contains) }
            case .homesNotFencedAtCheckpoint:
                model.forgetsFence = { !$0.contains(where: journal.contains) && !$0.contains(firstCommit) }
            case .firstCommitNotFenced:
                model.forgetsFence = { $0.contains(firstCommit) && !$0.contains(where: journal.contains) }
            }
        }
    }

    @Test(arguments: Plant.allCases)
    func plantedBugsAreFound(plant: Plant) throws {
        var found: UInt64?
        for seed in 1...20 as ClosedRange<UInt64> where found == nil {
            let outcome = try CrashRun(seed: seed, imagesPerEvent: 5, stopsAtWrong: true, plant: plant.apply).run(
                commits: 60)
            if outcome.wrong > 0 {
                found = seed
                print(
                    "planted \(plant): found with seed \(seed) after \(outcome.commits) commits, \(outcome.images) images"
                )
            }
        }
        #expect(found != nil, "the bug was not found")
    }

    @Test func formatIsAllOrNothing() throws {
        let size = CrashRun.regionSize
        let pool = try CrashRun.emptyPool(size: size)
        let model = CrashModel(of: pool)
        var random = CrashModel.Seeded(seed: 7)
        let image = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { image.deallocate() }
        var (refused, opened) = (0, 0)
        var problems: [String] = []
        let attempt = {
            let open = model.openLines
            for kind in [.nothing, .everything, .lines, .words] as [CrashModel.ImageKind] {
                model.makeImage(kind, open: open, into: image, random: &random)
                do {
                    let heap = try Heap(opening: Pool(image: UnsafeRawBufferPointer(image)))
                    if try heap.verify().allocatedBlocks != 0 { problems.append("blocks in a new heap") }
                    opened += 1
                } catch {
                    if (error as? PoolError)?.kind != .damaged { problems.append("\(error)") }
                    refused += 1
                }
            }
        }
        model.atEvent = attempt
        pool.crashRecorder = model
        try Heap.format(in: pool, progressSize: 4096)
        model.atEvent = nil
        pool.crashRecorder = nil
        attempt()
        #expect(problems.isEmpty)
        #expect(refused > 10)
        #expect(opened >= 4)
    }
}
