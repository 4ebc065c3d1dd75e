import Foundation
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// What a process leaves of the command that it was executing, and what it has skipped.
@Suite struct BreadcrumbsTests {
    /// A command is begun in a later instance, and the process ends: what the next one finds.
    private func ended(_ rig: StateRig) throws -> StateRig {
        guard case .execute = rig.pool.begin(kind: .submit, session: 0, sequence: 1) else {
            throw Unexpected(description: "a command without a session is executed")
        }
        return try rig.reopened()
    }

    private struct Unexpected: Error { var description: String }

    private func run(_ rig: StateRig) -> SessionModel.Expected {
        rig.execute(TestCommand(kind: .submit, session: 0, sequence: 1, cell: 1, size: 100))
    }

    @Test func theNextStartFindsTheCommandThatWasExecuted() throws {
        var rig = try StateRig(sessions: 8)
        #expect(rig.pool.takeUpBreadcrumb() == nil)
        _ = run(rig)
        rig.pool.endInstance(1)
        rig.pool.commit()
        // Committed to its end, though there was no time to take the crumb away.
        rig = try rig.reopened()
        #expect(rig.pool.breadcrumbs.crumb(at: rig.pool.position) == nil && rig.pool.takeUpBreadcrumb() == nil)
        // Two commands of a run that was not committed: the second was executed.
        let crumb = Breadcrumbs.Crumb(position: 3, instance: 2, isQuery: false)
        for times in 1...3 as ClosedRange<UInt64> {
            _ = run(rig)
            rig = try ended(rig)
            #expect(rig.pool.position == 1 && rig.pool.breadcrumbs.crumb(at: 1) == crumb)
            #expect(rig.pool.takeUpBreadcrumb() == .init(crumb: crumb, times: times))
            #expect(rig.pool.breadcrumbs.crumb(at: 1) == nil)
        }
        // Another command: counted anew.
        rig = try ended(rig)
        #expect(rig.pool.takeUpBreadcrumb()?.times == 1)
        // A start that left none: the next is the first again.
        rig = try rig.reopened()
        #expect(rig.pool.takeUpBreadcrumb() == nil && rig.pool.breadcrumbs.lastEnd == nil)
        rig = try ended(rig)
        #expect(rig.pool.takeUpBreadcrumb()?.times == 1)
    }

    @Test func aQueryIsToldFromACommand() throws {
        var rig = try StateRig(sessions: 8)
        #expect(rig.pool.takeUpBreadcrumb() == nil)
        _ = run(rig)
        rig.pool.commit()
        rig.pool.breadcrumbs.clear()
        rig.pool.breadcrumbs.leave(queryAt: 1)
        rig = try rig.reopened()
        #expect(rig.pool.takeUpBreadcrumb()?.crumb == .init(position: 1, instance: 1, isQuery: true))
        #expect(rig.pool.breadcrumbs.lastEnd! == (1, true, 1))
    }

    /// It is refused like any other, once, also where the process ends between its note and the commit; others run.
    @Test func aNamedPositionIsSkipped() throws {
        var rig = try StateRig(sessions: 8)
        #expect(rig.pool.skip([2, 4]) == [])
        #expect(run(rig).status == .ok)
        rig.pool.commit()
        guard case .skip = rig.pool.begin(kind: .submit, session: 0, sequence: 1) else {
            Issue.record("position 2 is to be skipped")
            return
        }
        // Killed here; the next start has no option.
        rig = try rig.reopened()
        #expect(rig.pool.position == 1 && rig.pool.breadcrumbs.skipped == [2])
        #expect(rig.pool.skip([]) == [])
        guard case .skip = rig.pool.begin(kind: .submit, session: 0, sequence: 1) else {
            Issue.record("position 2 is to be skipped again")
            return
        }
        let answer = rig.pool.refuse(.skipped)
        #expect(answer.status == .full && answer.position == 2)
        #expect(String(decoding: answer.body, as: UTF8.self) == "skipped by the operator")
        #expect(run(rig).status == .ok)
        rig.pool.commit()
        #expect(rig.pool.skip([2, 5]) == [2], "passed already")
        // What is no command of the machine takes the position: nothing is skipped, then or later.
        guard case .answer = rig.pool.begin(kind: .open, session: 0, sequence: 0),
            case .answer = rig.pool.begin(kind: .open, session: 0, sequence: 0)
        else {
            Issue.record("an OPEN runs no machine")
            return
        }
        #expect(rig.pool.position == 5 && run(rig).status == .ok)
        #expect(rig.pool.breadcrumbs.skipped == [2])
    }

    @Test func theLastFourAreKept() throws {
        var rig = try StateRig(sessions: 8)
        _ = rig.pool.skip(Array(2...7))
        _ = run(rig)
        for _ in 2...7 {
            guard case .skip = rig.pool.begin(kind: .submit, session: 0, sequence: 1) else {
                Issue.record("all of them are skipped")
                return
            }
            _ = rig.pool.refuse(.skipped)
        }
        rig.pool.commit()
        rig = try rig.reopened()
        #expect(rig.pool.breadcrumbs.skipped == [7, 6, 5, 4])
        #expect(run(rig).status == .ok)
    }

    /// No reason to refuse a start, nor to skip what nobody has named.
    @Test func damageIsOfNoConsequence() throws {
        var rig = try StateRig(sessions: 8)
        _ = rig.pool.skip([2])
        _ = run(rig)
        _ = rig.pool.begin(kind: .submit, session: 0, sequence: 1)
        _ = rig.pool.refuse(.skipped)
        rig.pool.commit()
        rig = try ended(rig)
        _ = rig.pool.takeUpBreadcrumb()
        rig = try ended(rig)
        let line = StateLayout.heapOffset + 256
        for bit in 8 * line..<8 * (line + 64) {
            let region = try copy(of: rig.region)
            region.region[bit / 8] ^= 1 << UInt8(bit % 8)
            let pool = try StatePool(in: region)
            _ = try pool.verify()
            try pool.verifyDigest()
            #expect(pool.breadcrumbs.skipped == [2] || pool.breadcrumbs.skipped == [])
            _ = pool.takeUpBreadcrumb()
            #expect(pool.skip([]) == [] && pool.position == 2)
        }
        for fill in [0x00, 0x5A, 0xFF] as [UInt8] {
            let region = try copy(of: rig.region)
            for at in line..<line + 64 { region.region[at] = fill }
            let pool = try StatePool(in: region)
            #expect(pool.breadcrumbs.skipped == [] && pool.takeUpBreadcrumb() == nil)
        }
    }

    @Test func aDumpTellsOfIt() throws {
        let folder = Folder()
        let path = folder.file("state.pool")
        try StatePool.format(path: path, identity: identity, size: 32 << 20, sessions: 16)
        let pool = try StatePool(openingAny: path)
        _ = pool.skip([1])
        _ = pool.begin(kind: .submit, session: 0, sequence: 1)
        _ = pool.refuse(.skipped)
        pool.endInstance(1)
        pool.commit()
        _ = pool.begin(kind: .submit, session: 0, sequence: 1)
        let report = try PoolInspection.report(path: path, verify: true)
        #expect(report.damage.isEmpty)
        #expect(report.state?.executing == .init(position: 2, instance: 2, isQuery: false))
        #expect(report.state?.skipped == [1] && report.state?.lastEnd == nil)
        let words = "at the command at position 2, instance 2"
        #expect(report.description.contains(words) && report.description.contains("skipped positions"))
        _ = pool.takeUpBreadcrumb()
        let later = try PoolInspection.report(path: path, verify: false)
        #expect(later.state?.executing == nil && later.state?.lastEnd?.position == 2)
        #expect(later.state?.lastEnd?.times == 1)
    }
}
