import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory
import MPaxosStateMachines
import MPaxosStorage
import MPaxosWire

/// The decided log, executed once more, command by command and without faults: what each replica's state must be, and
/// each reply.
final class Reference<Machine: StateMachine> {
    /// What took effect at a position, or was refused there.
    struct Effect: Equatable {
        let status: UInt8
        let session: UInt64
        let body: [UInt8]
        /// The request, as its client knows it: session and sequence, or for one without a session, its body.
        let request: Request
    }

    struct Request: Hashable {
        let kind: UInt8
        let session: UInt64
        let sequence: UInt64
        let body: [UInt8]
    }

    /// By position, from 1.
    private(set) var effects: [Effect] = []
    /// After each instance, from 0.
    private(set) var digests: [UInt64] = []
    private(set) var positions: [UInt64] = []
    /// How often what was sent without a session took effect.
    private(set) var unsessioned: [[UInt8]: Int] = [:]

    private let pool: StatePool
    private let machine: Machine
    private var reply: Reply

    /// - Parameter pool: as those of the replicas when they began.
    init(of pool: StatePool, maxRequest: Int) throws(Refusal) {
        self.pool = pool
        machine = try Machine(in: pool.heap.transaction)
        reply = Reply(maxRequest: maxRequest)
        pool.commit()
        digests = [pool.heap.digest]
        positions = [0]
    }

    deinit { pool.close() }

    var executed: UInt64 { pool.executed }
    var position: UInt64 { pool.position }

    /// Executes the next instance.
    func extend(_ batch: UnsafeRawBufferPointer) {
        var records = CommandRecords(batch)
        while let record = records.next() {
            guard record.kind != .query else {
                pool.passRecord()
                continue
            }
            let before = pool.position
            let answer = execute(record)
            guard pool.position > before else { continue }
            invariant(pool.position == before + 1, "a command takes one position")
            effects.append(
                Effect(
                    status: answer.status.rawValue, session: answer.session, body: Array(answer.body),
                    request: Request(
                        kind: record.kind.rawValue, session: record.kind == .open ? 0 : record.session,
                        sequence: record.sequence, body: Array(record.body))))
            if record.kind == .submit, record.session == 0 { unsessioned[Array(record.body), default: 0] += 1 }
        }
        invariant(!records.isDamaged, "a decided batch is a run of whole command records")
        pool.endInstance(pool.executed + 1)
        pool.commit()
        digests.append(pool.heap.digest)
        positions.append(pool.position)
    }

    private func execute(_ record: CommandRecord) -> Answer {
        let kind = OrderedKind(rawValue: record.kind.rawValue)!
        switch pool.begin(kind: kind, session: record.session, sequence: record.sequence) {
        case .answer(let answer): return answer
        case .skip: return pool.refuse(.skipped)
        case .execute:
            while true {
                if let refusal = apply(record.body) { return pool.refuse(refusal) }
                if case .done(let answer) = pool.finish(reply: reply.bytes, in: reply.given) { return answer }
            }
        }
    }

    private func apply(_ command: UnsafeRawBufferPointer) -> Refusal? {
        reply.removeAll()
        guard command.count <= reply.maxRequest, Machine.validate(command, as: .submit) == nil else {
            return .malformed
        }
        do throws(Refusal) {
            try machine.apply(command, in: pool.heap.transaction, reply: &reply)
        } catch {
            return error
        }
        return reply.overflowed ? .replyTooLarge : nil
    }
}
