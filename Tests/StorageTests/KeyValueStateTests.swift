import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStateMachines
import Testing

@testable import MPaxosStorage

/// The key-value service on a state pool, as the executor runs it.
private final class KeyValueRig {
    private(set) var pool: StatePool
    private var region: Pool
    private var service: KeyValueService
    private var reply: Reply
    private let viewLimit: Int
    /// Commands tried again, commands that took the spare, and replies given up.
    private(set) var (repetitions, spared, given) = (0, 0, 0)

    init(
        sessions: Int, pages: Int, journalSize: Int, reserveSize: Int? = nil, maxRequest: Int,
        viewLimit: Int = 256 << 20
    ) throws {
        region = try emptyPool(pages: pages)
        try StatePool.format(
            in: region, identity: identity, sessions: sessions, journalSize: journalSize, reserveSize: reserveSize)
        pool = try StatePool(in: region, viewLimit: viewLimit)
        service = KeyValueService(in: pool.heap.transaction)
        reply = Reply(maxRequest: maxRequest)
        self.viewLimit = viewLimit
    }

    /// As after a crash: what was not committed is gone.
    func crash() throws {
        region = try copy(of: region)
        pool = try StatePool(in: region, viewLimit: viewLimit)
        service = KeyValueService(in: pool.heap.transaction)
    }

    func execute(_ command: KeyValueStep) -> SessionModel.Expected {
        switch pool.begin(kind: command.kind, session: command.session, sequence: command.sequence) {
        case .answer(let answer): return read(answer)
        case .skip: return read(pool.refuse(.skipped))
        case .execute:
            while true {
                let spare = pool.heap.transaction.spare
                if let refusal = apply(command.body) { return read(pool.refuse(refusal)) }
                if spare != 0, pool.heap.transaction.spare == 0 { spared += 1 }
                if reply.given != nil { given += 1 }
                if case .done(let answer) = pool.finish(reply: reply.bytes, in: reply.given) { return read(answer) }
                repetitions += 1
            }
        }
    }

    private func apply(_ body: [UInt8]) -> Refusal? {
        reply.removeAll()
        return body.withUnsafeBytes { body in
            do throws(Refusal) {
                try service.apply(body, in: pool.heap.transaction, reply: &reply)
            } catch {
                return error
            }
            return reply.overflowed ? .replyTooLarge : nil
        }
    }

    private func read(_ answer: Answer) -> SessionModel.Expected {
        SessionModel.Expected(
            status: answer.status, session: answer.session, position: answer.position, body: Array(answer.body))
    }
}

private struct KeyValueStep {
    var kind = OrderedKind.submit
    var session: UInt64 = 0
    var sequence: UInt64 = 0
    var body: [UInt8] = []

    static func body(_ operation: Character, _ key: [UInt8], _ rest: [UInt8] = []) -> [UInt8] {
        let length = withUnsafeBytes(of: UInt32(key.count).littleEndian) { Array($0) }
        return [operation.asciiValue!] + length + key + rest
    }
}

@Suite struct KeyValueStateTests {
    private static let keys = (0..<10).map { Array("key \($0)".utf8) } + [[1], [UInt8](repeating: 7, count: 1024)]
    private static let sizes = [0, 1, 100, 200, 255, 256, 300, 300, 1000, 1000, 4000, 4000, 4000, 8000, 10_900]

    /// Replicas that commit at other times, crash and execute again what they lost, and have no room for pages of their
    /// own, answer alike and arrive at the same bytes: also with a store that is nearly full, and a journal too small
    /// for what gathers.
    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func replicasAgreeHoweverTheyCommit(seed: UInt64) throws {
        var random = Seeded(seed: seed)
        func rig(viewLimit: Int = 256 << 20) throws -> KeyValueRig {
            try KeyValueRig(
                sessions: 6, pages: [36, 56, 90][Int(seed % 3)], journalSize: seed % 2 == 0 ? 24 << 10 : 64 << 10,
                reserveSize: seed % 2 == 0 ? 4096 : nil, maxRequest: 12_000, viewLimit: viewLimit)
        }
        let (often, rarely, crashing) = (try rig(), try rig(), try rig(viewLimit: 8 * 4096))
        var values: [[UInt8]: [UInt8]] = [:]
        var sessions: [(id: UInt64, sequence: UInt64, last: SessionModel.Expected?)] = []
        var sinceCommit: [KeyValueStep] = []
        for number in 0..<1500 {
            var step = KeyValueStep()
            let chosen = sessions.isEmpty ? 0 : random.below(sessions.count)
            var isRepeated = false
            switch random.below(60) {
            case _ where sessions.count < 3, 0: step.kind = .open
            case 1..<8: break
            default:
                isRepeated = sessions[chosen].last != nil && random.below(6) == 0
                step.session = sessions[chosen].id
                step.sequence = sessions[chosen].sequence + (isRepeated ? 0 : 1)
            }
            let key = Self.keys[random.below(Self.keys.count)]
            let value = (0..<Self.sizes[random.below(Self.sizes.count)] + random.below(20)).map {
                UInt8(truncatingIfNeeded: $0 / 97 &* 31 &+ number)
            }
            let operation: Character = ["P", "P", "P", "D", "G", "A"][random.below(6)]
            step.body = KeyValueStep.body(operation, key, operation == "P" || operation == "A" ? value : [])

            let answer = often.execute(step)
            try #require(rarely.execute(step) == answer, "command \(number)")
            sinceCommit.append(step)
            try #require(crashing.execute(step) == answer, "command \(number)")
            if step.kind == .open {
                sessions.append((answer.session, 0, nil))
                sessions.removeAll { often.pool.table.find($0.id, root: often.pool.root) == nil }
            } else if isRepeated {
                try #require(answer == sessions[chosen].last, "command \(number), repeated")
            } else {
                if step.session != 0 { (sessions[chosen].sequence, sessions[chosen].last) = (step.sequence, answer) }
                let old = values[key]
                if answer.status == .ok {
                    if operation != "A" { try #require(answer.body == (old.map { [1] + $0 } ?? [0]), "\(number)") }
                    switch operation {
                    case "P": values[key] = value
                    case "D": values[key] = nil
                    case "A" where answer.body[0] == 1: values[key] = (old ?? []) + value
                    default: break
                    }
                }
            }

            often.pool.commit()
            if random.below(seed % 3 == 0 ? 100 : 6) == 0 { rarely.pool.commit() }
            if random.below(25) == 0 {
                crashing.pool.commit()
                sinceCommit = []
            }
            if random.below(40) == 0 {
                let (position, executed) = (crashing.pool.position, crashing.pool.executedCommands)
                try crashing.crash()
                // A full journal may have made it commit by itself: what came before that is there.
                for lost in sinceCommit.suffix(executed - crashing.pool.executedCommands) {
                    _ = crashing.execute(lost)
                }
                try #require(crashing.pool.position == position)
            }
            guard random.below(100) == 0 || number == 1499 else { continue }
            let digest = often.pool.currentDigest()
            for other in [rarely, crashing] { try #require(other.pool.currentDigest() == digest, "command \(number)") }
            sinceCommit = []
            _ = try often.pool.verify()
            _ = try crashing.pool.verify()
        }
        #expect(often.given > 50 && often.spared > 3)

        // Without keys and sessions nothing is left but the index and the table.
        for key in Self.keys { _ = often.execute(KeyValueStep(body: KeyValueStep.body("D", key))) }
        for session in sessions { _ = often.execute(KeyValueStep(kind: .close, session: session.id)) }
        often.pool.commit()
        let census = try often.pool.verify()
        #expect(census.reserveBytes == 0 && census.allocatedBlocks <= 3)
    }

    /// What is kept of a value is worth its block: long keys, and room that appends left, do not use up the reserve
    /// that replies have when the store is full.
    @Test(arguments: [(1024, 256, 0), (1024, 200, 100), (1, 2000, 20), (1, 2000, 0)])
    func keptRepliesTakeNoMoreThanCopies(keySize: Int, size: Int, appended: Int) throws {
        let key = [UInt8](repeating: 1, count: keySize)
        let put = KeyValueStep.body("P", key, [UInt8](repeating: 3, count: size))
        /// How many sessions find room for the reply of a PUT, or for that of a GET, which is a copy.
        func served(byPut: Bool) throws -> Int {
            let rig = try KeyValueRig(
                sessions: 1000, pages: 300, journalSize: 64 << 10, reserveSize: 128 << 10, maxRequest: 20_000)
            let sessions = (0..<1000).map { _ in rig.execute(KeyValueStep(kind: .open)).session }
            _ = rig.execute(KeyValueStep(body: put))
            let heap = rig.pool.heap
            var filler = 0
            while heap.transaction.dataLimit - heap.transaction.dataBytes > 8000 {
                filler += 1
                let body = KeyValueStep.body("P", Array("filler \(filler)".utf8), [UInt8](repeating: 9, count: 200))
                try #require(rig.execute(KeyValueStep(body: body)).status == .ok)
            }
            return sessions.count { session in
                if appended > 0 {
                    let body = KeyValueStep.body("A", key, [UInt8](repeating: 4, count: appended))
                    _ = rig.execute(KeyValueStep(body: body))
                }
                let body = byPut ? put : KeyValueStep.body("G", key)
                let isServed = rig.execute(KeyValueStep(session: session, sequence: 1, body: body)).status == .ok
                if appended > 0, !byPut { _ = rig.execute(KeyValueStep(body: put)) }
                return isServed
            }
        }
        let (given, copied) = (try served(byPut: true), try served(byPut: false))
        #expect(copied < 1000 && 5 * given >= 4 * copied)
    }
}
