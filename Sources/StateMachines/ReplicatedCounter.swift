/// A number that clients add to: a whole replicated service in twenty lines, to start your own from.
///
/// SUBMIT an `Int64`: adds it, replies the sum (wrapping around). QUERY with an empty body: replies the sum.
/// Little-endian.
public struct ReplicatedCounter: StateMachine {
    private let sum: PersistentCounter

    public init(in transaction: Transaction) {
        sum = PersistentCounter(at: transaction.rootSlot(0))
    }

    public static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? {
        body.count == (kind == .submit ? 8 : 0) ? nil : "submit 8 bytes to add, or query with none"
    }

    public func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        let delta = Int64(littleEndian: command.loadUnaligned(as: Int64.self))
        reply.append(littleEndian: sum.add(delta, in: transaction))
    }

    public func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        reply.append(littleEndian: sum.value(in: transaction))
    }
}
