import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// A command of the test's own state machine: writes some of its 64 cells, each of which may have a block, and replies
/// with what was there.
struct TestCommand: Equatable {
    var kind: OrderedKind
    var session: UInt64
    var sequence: UInt64
    var cell = 0
    var size = 0
    var fill: UInt8 = 0
    var replySize = 0
    var refuses = false
    /// The reply is what the cell's block holds from byte 16 on, where it lies.
    var gives = false
}

/// A state pool with a small state machine on it.
final class StateRig {
    private(set) var pool: StatePool
    let region: Pool

    static let cells = 32

    init(sessions: Int, pages: Int = 64, journalSize: Int? = nil, reserveSize: Int? = nil) throws {
        region = try emptyPool(pages: pages)
        try StatePool.format(
            in: region, identity: identity, sessions: sessions, journalSize: journalSize, reserveSize: reserveSize)
        pool = try StatePool(in: region)
    }

    private init(region: Pool) throws {
        self.region = region
        pool = try StatePool(in: region)
    }

    /// What a process would find that opens the pool now.
    func reopened() throws -> StateRig { try StateRig(region: copy(of: region)) }

    private(set) var repetitions = 0
    /// Commands that gave up a block for their reply, and commands that took the block of the reply before as spare.
    private(set) var given = 0
    private(set) var spared = 0

    /// What a block holds, so that each place is another.
    static func byte(_ index: Int, of fill: UInt8) -> UInt8 { fill &+ UInt8(truncatingIfNeeded: index &* 7) }

    /// Executes a command as the executor does.
    func execute(_ command: TestCommand) -> SessionModel.Expected {
        switch pool.begin(kind: command.kind, session: command.session, sequence: command.sequence) {
        case .answer(let answer): return read(answer)
        case .skip: return read(pool.refuse(.skipped))
        case .execute:
            while true {
                var reply: [UInt8] = []
                var slice: BlockSlice?
                let spare = pool.heap.transaction.spare
                do throws(Refusal) {
                    slice = try apply(command, reply: &reply)
                } catch {
                    return read(pool.refuse(error))
                }
                let wasTaken = pool.heap.transaction.spare == 0
                let outcome = reply.withUnsafeBytes { bytes -> SessionModel.Expected? in
                    let given = slice.map { pool.heap.transaction.bytes($0) }
                    guard case .done(let answer) = pool.finish(reply: given ?? bytes, in: slice) else { return nil }
                    return read(answer)
                }
                if spare != 0, wasTaken, outcome?.status == .ok { spared += 1 }
                if slice != nil, outcome?.status == .ok {
                    precondition(outcome!.body == reply, "what was given is what the answer says")
                    given += 1
                }
                if let outcome { return outcome }
                repetitions += 1
            }
        }
    }

    private func read(_ answer: Answer) -> SessionModel.Expected {
        SessionModel.Expected(
            status: answer.status, session: answer.session, position: answer.position, body: Array(answer.body))
    }

    private func apply(_ command: TestCommand, reply: inout [UInt8]) throws(Refusal) -> BlockSlice? {
        let transaction = pool.heap.transaction
        let place = PersistentPointer<UInt64>(offset: transaction.root + UInt64(8 * (command.cell % Self.cells)))
        let old = transaction.read(place)
        var slice: BlockSlice?
        if old != 0 {
            if command.gives {
                let given = BlockSlice(of: old, start: 16, count: transaction.size(of: old) - 16)
                reply += transaction.bytes(given)
                slice = given
            } else {
                reply += transaction.bytes(old, 1)
                transaction.free(old)
            }
            transaction.write(0, to: place)
        }
        if command.size > 0 {
            let block = try transaction.allocate(command.size)
            let bytes = transaction.mutableBytes(block, transaction.size(of: block))
            for index in bytes.indices { bytes[index] = Self.byte(index, of: command.fill) }
            transaction.write(block, to: place)
        }
        if command.refuses { throw .full }
        if let slice { return slice }
        while reply.count < command.replySize { reply.append(UInt8(truncatingIfNeeded: reply.count) ^ command.fill) }
        return nil
    }
}

/// Random commands over the sessions that the model knows.
struct CommandSource {
    var random: Seeded
    var largest = 400
    var largestReply = 300
    private var ever: [UInt64] = []

    init(seed: UInt64) { random = Seeded(seed: seed) }

    mutating func opened(_ session: UInt64) { ever.append(session) }

    mutating func next(_ model: SessionModel) -> TestCommand {
        var command = TestCommand(kind: .submit, session: 0, sequence: 0)
        command.cell = random.below(StateRig.cells)
        command.size = random.below(3) == 0 ? 0 : random.below(largest)
        command.fill = UInt8(truncatingIfNeeded: random.next())
        command.replySize = [0, 1, random.below(26), random.below(largestReply)][random.below(4)]
        command.refuses = random.below(12) == 0
        command.gives = random.below(3) == 0
        // Often of one size, so that the block of a kept reply can serve the next command.
        if random.below(2) == 0 { command.size = 320 }
        switch random.below(20) {
        case 0, 1:
            command.kind = .open
        case 2:
            command.kind = .close
            command.session = someSession(model)
        case 3:
            command.session = 0
        default:
            command.session = someSession(model)
        }
        if command.kind == .submit, let kept = model.sessions[command.session] {
            let last = kept?.sequence ?? 0
            // Mostly new, sometimes repeated, sometimes long past.
            command.sequence =
                [last + 1, last + 1, last + 1 + UInt64(random.below(5)), last, last / 2][random.below(5)]
        }
        return command
    }

    private mutating func someSession(_ model: SessionModel) -> UInt64 {
        if random.below(10) == 0 || model.order.isEmpty {
            return ever.randomElement(using: &random) ?? 12345
        }
        return model.order[random.below(model.order.count)]
    }
}
