import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

@Suite struct SessionRulesTests {
    @Test func everyCaseOfTheTable() {
        func rule(_ kind: OrderedKind, _ session: UInt64, _ sequence: UInt64, _ last: UInt64?) -> SessionRules.Ruling {
            SessionRules.ruling(kind: kind, session: session, sequence: sequence, lastSequence: last)
        }
        #expect(rule(.open, 0, 9, nil) == .open)
        #expect(rule(.close, 5, 9, 3) == .close)
        #expect(rule(.close, 5, 9, nil) == .expired)
        #expect(rule(.submit, 0, 9, nil) == .execute(remembered: false))
        #expect(rule(.submit, 5, 9, nil) == .expired)
        #expect(rule(.submit, 5, 1, 0) == .execute(remembered: true))
        #expect(rule(.submit, 5, 4, 3) == .execute(remembered: true))
        #expect(rule(.submit, 5, 3, 3) == .repeatReply)
        #expect(rule(.submit, 5, 2, 3) == .stale)
        #expect(rule(.submit, 5, 0, 0) == .stale)
        #expect(rule(.submit, 5, .max, .max - 1) == .execute(remembered: true))
    }

    @Test func idsNameTheirSlotAndAreNeverZero() {
        let id = SessionRules.id(opening: 1, slot: 0, seed: 0)
        #expect(id == 1 << 20 && SessionRules.slot(of: id) == 0)
        let last = SessionRules.id(opening: 1 << 43, slot: SessionRules.slotLimit - 1, seed: 0)
        #expect(last == 1 << 63 | 0xF_FFFF && SessionRules.slot(of: last) == SessionRules.slotLimit - 1)
    }

    /// All bits above the slot come from the seed; the same seed makes another id at the next opening.
    @Test func idsOfSeedsCannotBeGuessed() {
        var random = Seeded(seed: 11)
        var ids: Set<UInt64> = []
        var bits: (all: UInt64, common: UInt64) = (0, .max)
        for opening in 1...1_000 as ClosedRange<UInt64> {
            let id = SessionRules.id(opening: opening, slot: 7, seed: random.next())
            #expect(SessionRules.slot(of: id) == 7 && id >> 20 != 0)
            ids.insert(id)
            bits = (bits.all | id, bits.common & id)
        }
        #expect(ids.count == 1_000 && bits.all >> 20 == UInt64.max >> 20 && bits.common >> 20 == 0)
        let same = (1...1_000 as ClosedRange<UInt64>).map { SessionRules.id(opening: $0, slot: 7, seed: .max) }
        #expect(Set(same).count == 1_000)
        // A seed that the count would undo is none.
        let undone = (5 as UInt64) &* 0x9E37_79B9_7F4A_7C15
        #expect(SessionRules.id(opening: 5, slot: 7, seed: undone) == 5 << 20 | 7)
    }
}

@Suite struct FreeSlotsTests {
    @Test func theLowestComesFirst() {
        let free = FreeSlots(capacity: 300_000)
        defer { free.deallocate() }
        var model: Set<Int> = []
        var random = Seeded(seed: 3)
        #expect(free.takeLowest() == nil)
        for _ in 0..<20_000 {
            if random.below(5) < 3 {
                let slot = random.below(300_000)
                free.insert(slot)
                model.insert(slot)
            } else if random.below(100) == 0 {
                #expect(free.takeLowest() == model.min())
                if let lowest = model.min() { model.remove(lowest) }
            }
        }
        for slot in model.sorted().prefix(2000) { #expect(free.takeLowest() == slot) }
    }
}

@Suite struct StatePoolTests {
    @Test func formatsAndOpensAFile() throws {
        let folder = Folder()
        let path = folder.file("state.pool")
        try StatePool.format(path: path, identity: identity, size: 32 << 20, sessions: 65536)
        var session: UInt64 = 0
        do {
            let pool = try StatePool(opening: path, expecting: "test cluster", replica: 7)
            #expect(pool.position == 0 && pool.executed == 0 && pool.sessionCount == 0)
            // The table of sessions, 192 bytes each, and what the allocator rounds it up by.
            #expect(pool.sessionCapacity == 65536 && pool.used > 65536 * 192 && pool.used < 65536 * 200)
            guard case .answer(let answer) = pool.begin(kind: .open, session: 0, sequence: 1) else {
                Issue.record("OPEN is wholly the pool's")
                return
            }
            session = answer.session
            #expect(answer.status == .ok && answer.position == 1 && session != 0)
            pool.endInstance(1)
            pool.close()
        }
        let pool = try StatePool(opening: path, expecting: "test cluster", replica: 7)
        #expect(pool.position == 1 && pool.executed == 1 && pool.sessionCount == 1 && pool.executedCommands == 0)
        #expect(pool.heap.replayedCommits == 0)
        _ = try pool.verify()
        guard case .execute = pool.begin(kind: .submit, session: session, sequence: 1) else {
            Issue.record("the session is there after a restart")
            return
        }
        _ = pool.finish(reply: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    @Test func moreSessionsThanFitAreRefusedInASentence() throws {
        let folder = Folder()
        let refusal = error(of: {
            try StatePool.format(path: folder.file("state.pool"), identity: identity, size: 32 << 20, sessions: 1 << 20)
        })
        #expect(refusal?.kind == .noSpace && refusal!.description.contains("1048576 sessions"))
    }

    /// Long random runs against the model, through restarts.
    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func sessionsDoAsTheModel(seed: UInt64) throws {
        var rig = try StateRig(sessions: 8)
        var model = SessionModel(capacity: 8)
        var source = CommandSource(seed: seed)
        var counts: [OrderedStatus: Int] = [:]
        var repeats = 0
        var (given, spared) = (0, 0)
        for number in 0..<4000 {
            let command = source.next(model)
            let before = model.position
            let got = rig.execute(command)
            let expected: SessionModel.Expected
            switch model.begin(command.kind, command.session, command.sequence, newID: got.session) {
            case .done(let done): expected = done
            case .run:
                expected = model.end(command.session, command.sequence, command.refuses ? .full : got.status, got.body)
            }
            if command.kind == .open {
                source.opened(got.session)
                #expect(model.sessions.count <= 8)
            }
            try #require(got == expected, "command \(number): \(command)")
            try #require(rig.pool.position == model.position)
            if model.position == before { repeats += 1 }
            counts[got.status, default: 0] += 1
            try #require(rig.pool.sessionCount == model.sessions.count)
            switch source.random.below(40) {
            case 0..<8: rig.pool.commit()
            case 8:
                rig.pool.commit()
                _ = try rig.pool.verify()
                (given, spared) = (given + rig.given, spared + rig.spared)
                rig = try rig.reopened()
                _ = try rig.pool.verify()
                #expect(rig.pool.position == model.position)
            default: break
            }
        }
        // Every kind of answer came up.
        for status in [.ok, .stale, .expired, .full] as [OrderedStatus] { #expect(counts[status, default: 0] > 20) }
        #expect(repeats > 100 && model.evicted > 20)
        #expect(given > 20 && spared > 20)
    }

    @Test func aRepeatedReplyIsTheSameBytesAfterARestart() throws {
        let rig = try StateRig(sessions: 4)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        for (index, size) in [0, 1, 16, 17, 80, 81, 144, 145, 64, 300, 24, 2000, 300, 1].enumerated() {
            let command = TestCommand(
                kind: .submit, session: session, sequence: UInt64(index + 1), size: 10, fill: UInt8(index),
                replySize: size)
            let first = rig.execute(command)
            #expect(first.status == .ok && first.body.count == max(size, index == 0 ? 0 : 1))
            rig.pool.commit()
            let position = rig.pool.position
            #expect(rig.execute(command) == first)
            #expect(try rig.reopened().execute(command) == first)
            #expect(rig.pool.position == position, "a duplicate takes no position")
        }
    }

    /// The reply of a rig's command that gives up a block.
    private func given(_ fill: UInt8, _ count: Int) -> [UInt8] { (16..<16 + count).map { StateRig.byte($0, of: fill) } }

    /// A block that the machine gives up becomes the kept reply, and the one before it serves the next command: once
    /// both are there, nothing is allocated or freed, and the reply is not written again.
    @Test func aGivenBlockIsKeptWhereItLies() throws {
        let rig = try StateRig(sessions: 4)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        func put(_ sequence: UInt64) -> SessionModel.Expected {
            rig.execute(
                TestCommand(
                    kind: .submit, session: session, sequence: sequence, size: 4000, fill: UInt8(sequence), gives: true)
            )
        }
        #expect(put(1).body == [])
        for sequence in 2...3 as ClosedRange<UInt64> { #expect(put(sequence).body.count >= 3984) }
        rig.pool.commit()
        let used = rig.pool.used
        for sequence in 4...20 as ClosedRange<UInt64> {
            let room = rig.pool.heap.transaction.journalRoom
            let reply = put(sequence)
            #expect(reply.status == .ok && reply.body == given(UInt8(sequence - 1), reply.body.count))
            #expect((room - rig.pool.heap.transaction.journalRoom) / 72 < 4000 / 64 + 16, "the value alone is written")
            if sequence % 2 == 0 { rig.pool.commit() }
            #expect(rig.pool.used == used)
            #expect(put(sequence) == reply)
        }
        #expect(used == rig.pool.used)
        rig.pool.commit()
        _ = try rig.pool.verify()
        let again = try rig.reopened()
        let last = again.execute(TestCommand(kind: .submit, session: session, sequence: 20)).body
        #expect(last.count >= 3984 && last == given(19, last.count))
        #expect(rig.spared >= 17)
    }

    /// What is given up and short lies in the session's slot, and outside of sessions nowhere: the block is free.
    @Test(arguments: [true, false])
    func aBlockGivenForNothingIsFree(inSession: Bool) throws {
        let rig = try StateRig(sessions: 4)
        let session = inSession ? rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session : 0
        let size = inSession ? 100 : 1000
        var command = TestCommand(kind: .submit, session: session, sequence: 1, size: size, gives: true)
        _ = rig.execute(command)
        let used = rig.pool.used
        for sequence in 2...9 as ClosedRange<UInt64> {
            command.sequence = sequence
            command.fill = UInt8(sequence)
            let body = rig.execute(command).body
            #expect(body.count >= size - 16 && body == given(sequence == 2 ? 0 : UInt8(sequence - 1), body.count))
            #expect(rig.pool.used == used)
        }
    }

    /// A refused command leaves the spare that it took, and the block that it gave up, as they were.
    @Test func aRefusalGivesBackWhatWasGiven() throws {
        let rig = try StateRig(sessions: 4)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        var command = TestCommand(kind: .submit, session: session, sequence: 0, size: 4000, gives: true)
        for sequence in 1...3 as ClosedRange<UInt64> {
            command.sequence = sequence
            command.fill = UInt8(sequence)
            _ = rig.execute(command)
        }
        rig.pool.commit()
        let kept = rig.execute(command)
        command.sequence = 4
        command.refuses = true
        #expect(rig.execute(command).status == .full)
        rig.pool.commit()
        _ = try rig.pool.verify()
        #expect(kept.body == given(2, kept.body.count))
        command.sequence = 5
        command.refuses = false
        #expect(rig.execute(command).body == given(3, kept.body.count))
        _ = try rig.pool.verify()
    }

    @Test func aRefusedCommandLeavesNothingButItsRefusal() throws {
        let rig = try StateRig(sessions: 4)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        _ = rig.execute(TestCommand(kind: .submit, session: session, sequence: 1, cell: 1, size: 100, fill: 7))
        let used = rig.pool.used
        var command = TestCommand(
            kind: .submit, session: session, sequence: 2, cell: 1, size: 200, fill: 8, replySize: 100)
        command.refuses = true
        let refused = rig.execute(command)
        #expect(refused.status == .full && refused.body == bytes("the store is full") && refused.position == 3)
        #expect(rig.pool.used == used)
        command.refuses = false
        #expect(rig.execute(command) == refused, "the sequence is used up")
        command.sequence = 3
        #expect(rig.execute(command).body.first == 7)
    }

    @Test func aFullStoreRefusesAndGoesOn() throws {
        let rig = try StateRig(sessions: 4, pages: 64)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        var sequence: UInt64 = 0
        var full = 0
        for cell in 0..<StateRig.cells {
            sequence += 1
            let answer = rig.execute(
                TestCommand(kind: .submit, session: session, sequence: sequence, cell: cell, size: 8000, replySize: 1))
            rig.pool.commit()
            if answer.status == .full { full += 1 }
        }
        #expect(full > 0 && full < StateRig.cells)
        // Overwrites of the same size go on, and so do deletes and OPENs.
        for sequence in (sequence + 1)..<(sequence + 20) {
            let answer = rig.execute(
                TestCommand(kind: .submit, session: session, sequence: sequence, cell: 0, size: 8000, replySize: 200))
            #expect(answer.status == .ok)
            rig.pool.commit()
        }
        #expect(rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).status == .ok)
        _ = try rig.pool.verify()
    }

    /// A reply for which not even the reserve has room is refused, and its command undone.
    @Test func aReplyWithoutRoomRefusesItsCommand() throws {
        let rig = try StateRig(sessions: 16, pages: 64, reserveSize: 4096)
        var sessions: [UInt64] = []
        for _ in 0..<16 { sessions.append(rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session) }
        for cell in 0..<StateRig.cells {
            _ = rig.execute(TestCommand(kind: .submit, session: 0, sequence: 0, cell: cell, size: 6000))
            rig.pool.commit()
        }
        var refused = 0
        for session in sessions {
            let command = TestCommand(
                kind: .submit, session: session, sequence: 1, cell: 0, size: 16, fill: 3, replySize: 5000)
            let answer = rig.execute(command)
            rig.pool.commit()
            if answer.status == .full {
                refused += 1
                #expect(rig.execute(command) == answer)
            }
        }
        #expect(refused > 0)
        _ = try rig.pool.verify()
    }

    @Test(arguments: [false, true])
    func aCommandThatDoesNotFitTheRestOfTheJournalIsTriedAgain(gives: Bool) throws {
        let rig = try StateRig(sessions: 4, pages: 128, journalSize: 32 << 10)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        // Blocks are given up in a second round over the cells: then the reply before is each command's spare.
        let last: UInt64 = gives ? 40 : 20
        for sequence in 1...last {
            let answer = rig.execute(
                TestCommand(
                    kind: .submit, session: session, sequence: sequence, cell: Int(sequence % 20), size: 8000,
                    fill: UInt8(sequence), replySize: 5, gives: gives))
            #expect(answer.status == .ok && answer.position == sequence + 1)
        }
        #expect(rig.repetitions > 3 && (rig.spared > 10) == gives)
        #expect(rig.pool.executedCommands == Int(last) + 1)
        // One that would not fit into an empty journal either is refused.
        let large = TestCommand(kind: .submit, session: session, sequence: 100, cell: 9, size: 40_000)
        let answer = rig.execute(large)
        #expect(answer.status == .full && answer.body == bytes("too large for a commit"))
        #expect(rig.execute(large) == answer)
        _ = try rig.pool.verify()
    }

    /// What needs no state machine never outgrows the journal, however long nobody commits.
    @Test func sessionsComeAndGoWithoutACommit() throws {
        let rig = try StateRig(sessions: 1024, pages: 256, journalSize: 20 << 10)
        var random = Seeded(seed: 5)
        var sessions: [UInt64] = []
        for _ in 0..<1200 { sessions.append(rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session) }
        for round in 1...3000 as ClosedRange<UInt64> {
            let session = sessions.randomElement(using: &random) ?? 0
            switch random.below(8) {
            case 0, 1: sessions.append(rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session)
            case 2: _ = rig.execute(TestCommand(kind: .close, session: session, sequence: 0))
            case 3: rig.pool.passRecord()
            case 4: rig.pool.endInstance(rig.pool.executed + 1)
            default:
                // New, or a duplicate, or stale.
                _ = rig.execute(
                    TestCommand(
                        kind: .submit, session: session, sequence: round / 100 + UInt64(random.below(2)),
                        replySize: random.below(400), refuses: random.below(4) == 0))
            }
        }
        rig.pool.commit()
        #expect(rig.pool.sessionCount > 8 && rig.pool.executed > 100)
        _ = try rig.pool.verify()
        _ = try rig.reopened().pool.verify()
    }

    @Test func progressSaysWhereInAnInstanceItStands() throws {
        let rig = try StateRig(sessions: 4)
        _ = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0))
        rig.pool.passRecord()
        rig.pool.endInstance(1)
        rig.pool.endInstance(2)
        _ = rig.execute(TestCommand(kind: .submit, session: 0, sequence: 0))
        rig.pool.passRecord()
        rig.pool.commit()
        _ = rig.execute(TestCommand(kind: .submit, session: 0, sequence: 0))
        let again = try rig.reopened()
        #expect(again.pool.executed == 2 && again.pool.executedCommands == 2 && again.pool.position == 2)
    }

    /// Duplicates and empty instances change the progress, not the digest; whatever takes a position changes the
    /// digest.
    @Test func theDigestIsThatOfThePosition() throws {
        let rig = try StateRig(sessions: 4)
        let session = rig.execute(TestCommand(kind: .open, session: 0, sequence: 0)).session
        let command = TestCommand(kind: .submit, session: session, sequence: 1, size: 50, replySize: 100)
        _ = rig.execute(command)
        let digest = rig.pool.currentDigest()
        #expect(digest.position == 2)
        _ = rig.execute(command)
        rig.pool.endInstance(1)
        #expect(rig.pool.currentDigest() == digest)
        _ = rig.execute(TestCommand(kind: .submit, session: 999, sequence: 1))
        #expect(rig.pool.currentDigest().value != digest.value)
    }

    /// The same commands give the same digests at the same positions, however they are cut into commits and through
    /// whatever restarts.
    @Test(arguments: 1...3 as ClosedRange<UInt64>)
    func replicasAgreeHoweverTheyCommit(seed: UInt64) throws {
        var first = try StateRig(sessions: 8, journalSize: 32 << 10)
        var second = try StateRig(sessions: 8, journalSize: 32 << 10)
        var model = SessionModel(capacity: 8)
        var source = CommandSource(seed: seed)
        source.largest = 3000
        source.largestReply = 1500
        var random = Seeded(seed: seed + 100)
        var compared = 0
        for number in 0..<3000 {
            let command = source.next(model)
            let a = first.execute(command)
            let b = second.execute(command)
            try #require(a == b, "command \(number)")
            if case .run = model.begin(command.kind, command.session, command.sequence, newID: a.session) {
                _ = model.end(command.session, command.sequence, a.status, a.body)
            }
            if command.kind == .open { source.opened(a.session) }
            if number % 3 == 0 { first.pool.commit() }
            if random.below(50) == 0 {
                second.pool.commit()
                second = try second.reopened()
            }
            if random.below(200) == 0 {
                first.pool.commit()
                first = try first.reopened()
            }
            if random.below(20) == 0 {
                try #require(first.pool.currentDigest() == second.pool.currentDigest(), "after command \(number)")
                for pool in [first.pool, second.pool] { try pool.verifyDigest() }
                compared += 1
            }
        }
        #expect(compared > 100 && model.evicted > 10)
    }

    /// A crash leaves a prefix of whole commits: state, sessions, replies and position together.
    @Test func aCrashLeavesAWholeCommit() throws {
        let rig = try StateRig(sessions: 4, pages: 48, journalSize: 20 << 10)
        // Commits after every command, and so knows the digest of every position.
        let twin = try StateRig(sessions: 4, pages: 48, journalSize: 20 << 10)
        var model = SessionModel(capacity: 4)
        var source = CommandSource(seed: 9)
        var random = Seeded(seed: 10)
        let crash = CrashModel(of: rig.region)
        let image = UnsafeMutableRawBufferPointer.allocate(byteCount: rig.region.region.count, alignment: 4096)
        defer { image.deallocate() }
        // Digests that a recovery may find, by position.
        var allowed: [UInt64: UInt64] = [0: rig.pool.currentDigest().value]
        var committed: UInt64 = 0
        var images = 0
        var distinct: Set<UInt64> = []
        var wrong: [String] = []
        crash.atEvent = { [unowned rig] in
            for kind in [.lines, .words] as [CrashModel.ImageKind] where random.below(4) == 0 && wrong.isEmpty {
                distinct.insert(crash.makeImage(kind, open: crash.openLines, into: image, random: &random))
                images += 1
                do {
                    let recovered = try StatePool(in: Pool(image: UnsafeRawBufferPointer(image)))
                    _ = try recovered.verify()
                    try recovered.verifyDigest()
                    let digest = recovered.currentDigest()
                    if digest.position < committed || digest.position > rig.pool.position {
                        wrong.append("position \(digest.position) of \(committed)")
                    }
                    if allowed[digest.position] != digest.value { wrong.append("digest at \(digest.position)") }
                } catch {
                    wrong.append("\(error)")
                }
            }
        }
        rig.region.crashRecorder = crash
        for _ in 0..<crashCommits(usually: 150) {
            for _ in 0..<1 + random.below(5) {
                let command = source.next(model)
                let expected = twin.execute(command)
                allowed[twin.pool.position] = twin.pool.currentDigest().value
                let got = rig.execute(command)
                try #require(got == expected)
                if case .run = model.begin(command.kind, command.session, command.sequence, newID: got.session) {
                    _ = model.end(command.session, command.sequence, got.status, got.body)
                }
                if command.kind == .open { source.opened(got.session) }
            }
            rig.pool.commit()
            committed = rig.pool.position
        }
        rig.region.crashRecorder = nil
        #expect(wrong.isEmpty, "\(wrong.first ?? "")")
        print("crash images of a state pool: \(images), \(distinct.count) distinct")
        #expect(images > 500)
    }
}
