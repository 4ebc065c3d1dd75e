import MPaxosConsensus
import MPaxosInvariants

/// What the clients see, against the one order of the decided log: the log executed once more, without faults, as the
/// sequential specification, and the positions in the replies as the order that they claim. Replies that agree with the
/// specification at their positions, and positions that respect real time, make the history linearizable.
struct History: ~Copyable {
    struct Operation: BitwiseCopyable {
        var isQuery: Bool
        /// Retried without a session, or given up: may take effect more than once, or not at all.
        var isExactlyOnce: Bool
        /// The highest position that anybody had been told when it began.
        var floor: UInt64
        var effect: UInt64 = 0
    }

    struct Effect: BitwiseCopyable {
        var operation: Int
        var reply: Reply
    }

    struct Version: BitwiseCopyable {
        var position: UInt64
        var value: UInt64
    }

    private var state: ReplicatedState
    private var digests = Buffer<UInt64>()
    private var positions = Buffer<UInt64>(repeating: 0, count: 1)
    /// What took effect at each position; index 0 is not one.
    private var effects = Buffer<Effect>(capacity: 1024)
    private var versions = [[Version]](
        repeating: [Version(position: 0, value: 0)], count: ReplicatedState.registerCount)
    private var operations = Buffer<Operation>(capacity: 1024)
    private(set) var acknowledged: UInt64 = 0
    private(set) var highestAcknowledged: UInt64 = 0
    /// The highest position that each replica told.
    private var told: [UInt64]

    init(replicaCount: Int, sessionCount: Int) {
        state = ReplicatedState(sessionCount: sessionCount)
        digests.append(state.digest)
        effects.append(Effect(operation: -1, reply: Reply(status: .ok)))
        told = [UInt64](repeating: 0, count: replicaCount)
    }

    var executed: Instance { state.executed }

    mutating func begin(isQuery: Bool, isExactlyOnce: Bool) -> Int {
        operations.append(
            Operation(isQuery: isQuery, isExactlyOnce: isExactlyOnce, floor: highestAcknowledged))
        return operations.count - 1
    }

    /// The next instance is decided.
    mutating func extend(_ batch: UInt32, of store: borrowing CommandStore) -> String? {
        for index in 0..<store.count(of: batch) {
            let command = store[store.number(index, of: batch)]
            let before = state.position
            let reply = state.apply(command, bugs: [])
            guard state.position > before else { continue }
            effects.append(Effect(operation: command.operation, reply: reply))
            invariant(UInt64(effects.count) == state.position + 1, "a command takes one position")
            guard command.kind != .query && (reply.status == .ok || reply.status == .full) else { continue }
            if reply.status == .ok && command.kind == .submit {
                versions[command.register].append(Version(position: state.position, value: command.value))
            }
            let earlier = operations[command.operation].effect
            if operations[command.operation].isExactlyOnce && earlier != 0 {
                return "operation \(command.operation) took effect at \(earlier) and at \(state.position)"
            }
            operations[command.operation].effect = state.position
        }
        state.endInstance()
        digests.append(state.digest)
        positions.append(state.position)
        return nil
    }

    /// A replica executed all up to `instance`.
    func compare(_ replica: ReplicaIndex, _ other: ReplicatedState) -> String? {
        let instance = Int(other.executed)
        guard instance < digests.count else { return "replica \(replica) executed \(instance), which nobody decided" }
        guard other.position == positions[instance] else {
            return "replica \(replica) is at position \(other.position) after \(instance), not \(positions[instance])"
        }
        guard other.digest == digests[instance] else {
            return "replica \(replica) has another state at position \(other.position), after instance \(instance)"
        }
        return nil
    }

    /// A reply leaves a replica.
    mutating func replied(_ replica: ReplicaIndex, _ command: Command, _ reply: Reply) -> String? {
        guard reply.status == .ok || reply.status == .full else { return nil }
        guard reply.position <= state.position else {
            return "replica \(replica) answers with position \(reply.position) of \(state.position)"
        }
        told[replica] = max(told[replica], reply.position)
        if command.kind == .query {
            let value = value(of: command.register, at: reply.position)
            guard value == reply.value else {
                return "a query saw \(reply.value) at position \(reply.position), where \(value) was"
            }
            return nil
        }
        let effect = effects[Int(reply.position)]
        guard effect.operation == command.operation else {
            return "operation \(command.operation) did not take effect at \(reply.position), as its reply says"
        }
        guard effect.reply == reply else {
            return "operation \(command.operation) was answered \(reply), the first time \(effect.reply)"
        }
        return nil
    }

    private func value(of register: Int, at position: UInt64) -> UInt64 {
        var low = 0
        var high = versions[register].count
        while high - low > 1 {
            let middle = (low + high) / 2
            if versions[register][middle].position <= position { low = middle } else { high = middle }
        }
        return versions[register][low].value
    }

    /// A reply reached the client that waited for it. `isLocal`: only the client's own past binds it.
    mutating func acknowledge(_ operation: Int, _ reply: Reply, isLocal: Bool, seen: UInt64) -> String? {
        acknowledged += 1
        let floor = isLocal ? seen : operations[operation].floor
        let isInOrder = operations[operation].isQuery ? reply.position >= floor : reply.position > floor
        guard isInOrder else {
            return "operation \(operation) took effect at \(reply.position); when it began, \(floor) had been answered"
        }
        highestAcknowledged = max(highestAcknowledged, reply.position)
        return nil
    }

    /// A replica starts with what its storage kept.
    func recovered(_ replica: ReplicaIndex, _ other: ReplicatedState) -> String? {
        guard other.position >= told[replica] else {
            return "replica \(replica) fell back to position \(other.position), had answered with \(told[replica])"
        }
        return nil
    }

    /// Whatever the replica said was forgotten with its pools.
    mutating func forget(_ replica: ReplicaIndex) { told[replica] = 0 }
}
