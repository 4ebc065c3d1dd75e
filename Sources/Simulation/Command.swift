import Consensus

/// A command as it travels: each attempt of a client is one of its own, with the replica that is to answer.
struct Command {
    enum Kind: UInt8 {
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

struct Reply: Hashable {
    var status: OrderedStatus
    var session: UInt64 = 0
    var position: UInt64 = 0
    var value: UInt64 = 0
}

/// All commands and the batches made of them, by number. What is in a batch never changes: so one copy serves all replicas,
/// each of which knows the batch by a handle of its own.
struct CommandStore {
    private(set) var commands: [Command] = []
    private var batches: [Range<Int>] = [0..<0]
    private var members: [Int32] = []

    /// The number of the next batch. 0 is the no-op.
    var nextBatch: UInt32 { UInt32(batches.count) }

    subscript(_ number: Int) -> Command { commands[number] }

    mutating func add(_ command: Command) -> Int {
        commands.append(command)
        return commands.count - 1
    }

    mutating func makeBatch(of numbers: ArraySlice<Int>) -> UInt32 {
        precondition(!numbers.isEmpty, "a batch has commands")
        let first = members.count
        for number in numbers { members.append(Int32(number)) }
        batches.append(first..<members.count)
        return UInt32(batches.count - 1)
    }

    func count(of batch: UInt32) -> Int { batches[Int(batch)].count }

    func number(_ index: Int, of batch: UInt32) -> Int { Int(members[batches[Int(batch)].lowerBound + index]) }
}
