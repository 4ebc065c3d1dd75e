import MPaxosConsensus
import MPaxosInvariants

/// A command as it travels: each attempt of a client is one of its own, with the replica that is to answer.
struct Command: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        case open
        case submit
        case close
        /// Ordered, but answered by its origin only.
        case query
    }

    var kind: Kind
    /// -1: nobody waits for an answer.
    var client: Int32
    /// The operation of the client that this is an attempt at.
    var operation: Int
    var session: UInt64 = 0
    var sequence: UInt64 = 0
    var register = 0
    /// A submit puts it into the register, and replies what was there. No two operations have the same.
    var value: UInt64 = 0
    /// Room that the register's new value takes in the store.
    var size: UInt32 = 0
    var origin: ReplicaIndex = 0
}

struct Reply: BitwiseCopyable, Hashable {
    var status: OrderedStatus
    var session: UInt64 = 0
    var position: UInt64 = 0
    var value: UInt64 = 0
}

/// A reply, and to which command.
struct Answer: BitwiseCopyable {
    var command: Int
    var reply: Reply
}

/// All commands and the batches made of them, by number. What is in a batch never changes: so one copy serves all
/// replicas, each of which knows the batch by a handle of its own.
struct CommandStore: ~Copyable {
    private var commands = Buffer<Command>(capacity: 1024)
    /// Where the members of each batch begin; where those of the next will.
    private var firsts = Buffer<Int32>(repeating: 0, count: 2)
    private var members = Buffer<Int32>(capacity: 1024)

    /// The number of the next batch. 0 is the no-op.
    var nextBatch: UInt32 { UInt32(firsts.count - 1) }

    subscript(_ number: Int) -> Command { commands[number] }

    mutating func add(_ command: Command) -> Int {
        commands.append(command)
        return commands.count - 1
    }

    /// Of the first `count` of `numbers`.
    mutating func makeBatch(of numbers: borrowing Buffer<Int>, count: Int) -> UInt32 {
        invariant(count > 0, "a batch has commands")
        for index in 0..<count { members.append(Int32(numbers[index])) }
        firsts.append(Int32(members.count))
        return nextBatch - 1
    }

    func count(of batch: UInt32) -> Int { Int(firsts[Int(batch) + 1] - firsts[Int(batch)]) }

    func number(_ index: Int, of batch: UInt32) -> Int { Int(members[Int(firsts[Int(batch)]) + index]) }
}
