import MPaxosInvariants
// An author's module needs `Transaction`, `PersistentPointer` and `Refusal` in every signature: one import brings them
// along.
@_exported import MPaxosPersistentMemory

/// How a command reached the machine.
public enum CommandKind: UInt8, Sendable, BitwiseCopyable {
    /// Ordered through the log and given to ``StateMachine/apply(_:in:reply:)`` on every replica, exactly once for a
    /// session's sequence.
    case submit
    /// A read: given to ``StateMachine/query(_:in:reply:)`` on the one replica that answers it.
    case query
}

/// The service that a cluster replicates: what the library's user writes.
///
/// A machine is a *handle*. Its state lives in persistent memory, reached through the `Transaction`: the 256 bytes at
/// `transaction.root` (zero when the pools were formatted) and whatever hangs off them: ``PersistentDictionary``,
/// ``PersistentArray``, ``PersistentQueue``, ``PersistentCounter``, or structs of your own behind a
/// `PersistentPointer`. The Swift value itself is made anew at every start of a replica and should hold nothing but
/// where things are. ``ReplicatedCounter`` is a whole one in twenty lines.
///
/// ## Determinism
///
/// Every replica applies the same commands in the same order and has to arrive at the same bytes: clients are told so,
/// and the digests of replicas are compared. What `apply` does may therefore depend on two things only: the command,
/// and the state it reads through the transaction. It must not look at
/// - time, randomness, the environment, files, the network, the replica's identity, other threads, global variables;
/// - Swift's `Hasher`, and so the order of a `Set` or `Dictionary`: both are seeded anew in each process;
/// - addresses: persistent memory is mapped elsewhere in each process. Keep offsets (`PersistentPointer`), never
///   pointers;
/// - state outside persistent memory: it is not replicated, not rolled back, and gone after a restart.
///
/// Fill every byte of what you store: a struct with padding bytes stores whatever was on the stack, and the digests
/// differ. Give the padding a name and set it to zero.
///
/// ## Failure
///
/// A batch of commands commits as a whole: a crash at any point leaves the state before or after it, never one between,
/// and each command is executed exactly once. There is nothing to do for this but to declare every write, which `write`
/// and `mutableBytes` do.
///
/// When `apply` throws a `Refusal`, or its reply outgrows ``Reply/capacity``, all that the command wrote and allocated
/// is rolled back and the client gets FULL with the reason: ordered, refused, nothing changed, on every replica alike.
/// `allocate` throws when the store is full; let that pass through. A refusal that is part of your service ("no such
/// account") is a reply, not an error. A trap (`fatalError`, a failed precondition, an overflow) stops every replica,
/// at once and again after each restart, since the command is in the log: reject in ``validate(_:as:)`` what cannot be
/// executed. Where one got through, each start says at which position the last process ended, and an operator has that
/// command refused on all replicas: `mpaxos run --skip-record`, or `skipping` of a `ReplicaNode`.
///
/// ## Name and version
///
/// Pools record ``name`` and ``version`` of the machine that they are formatted for, and open under no other; replicas
/// tell them to each other, and do not link where they differ. So neither does a program answer from another service's
/// memory, nor do two versions of one service run in one cluster and come apart. Both have defaults, the name of the
/// type and 1. Write a name down before you rename the type. Raise the version with every change of what the machine
/// does with a command or of what it keeps: other replies and refusals, too, since they are kept with the sessions. A
/// change that leaves all of that to the byte (a faster way, another hint) needs no other version, and can be rolled
/// out one replica after another.
///
/// Pools of one version are not taken over by another. A service that changes begins with new pools, and is filled
/// through its clients.
///
/// ## Threads
///
/// One thread, the executor's, makes the machine and calls `apply` and `query`, one at a time: no locks are needed.
/// ``validate(_:as:)`` is called on another thread at the same time, and is `static` for that reason. All of them run
/// between a client's request and its reply, and delay all clients: keep them short, and do not block.
public protocol StateMachine: SendableMetatype {
    /// What the service is called in pools and between replicas: 1 to 255 bytes of UTF-8 without control characters. By
    /// default the name of the type, without that of its module: two types of one name are told apart by nothing else.
    static var name: String { get }

    /// Of what the machine does and keeps; any number. By default 1.
    static var version: Int { get }

    /// Finds the state in persistent memory; at the first start after the pools were formatted, makes it.
    ///
    /// Runs at every start of a replica, before any command, in a transaction of its own. Most machines make nothing
    /// here: all collections of this library are empty when their memory is zero, and the root is zero at format. What
    /// it writes at the first start must be the same on every replica; at later starts it must write nothing.
    init(in transaction: Transaction) throws(Refusal)

    /// Why a body that a client sent is no command of this machine; `nil` when it is one.
    ///
    /// A pure function of its arguments. It runs before a command is ordered; a reason goes to the client as MALFORMED
    /// and the command never reaches ``apply(_:in:reply:)`` or ``query(_:in:reply:)``. It runs again before an ordered
    /// command is executed, since another replica's program may have let it in: what it rejects there is refused on all
    /// replicas alike, so what it rejects is part of ``version``. Bodies come from anyone who can reach the port: check
    /// every length against `body.count` before you trust it. `body` is valid during the call only, and not aligned.
    static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String?

    /// Executes an ordered command: changes the state and writes the reply. See the rules above.
    ///
    /// Not `mutating`, on purpose: a change of the Swift value would be neither persistent nor rolled back.
    ///
    /// - Parameters:
    ///   - command: a body that ``validate(_:as:)`` of this very program passed as `.submit`, of `max_request` bytes at
    ///     most. Valid during the call only, not aligned, never in the store's memory.
    ///   - transaction: the way to the state. Do not keep it.
    ///   - reply: empty at the call. Append what the client shall get; what is there when `apply` throws is dropped.
    func apply(_ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) throws(Refusal)

    /// Answers a read. It must not write, allocate or free: a query leaves no trace, and is executed on one replica
    /// only.
    ///
    /// - Parameters:
    ///   - query: a body that ``validate(_:as:)`` of this very program passed as `.query`. Valid during the call only,
    ///     not aligned.
    ///   - transaction: the way to the state, as of a point that makes the read linearizable.
    ///   - reply: empty at the call. A query whose reply outgrows ``Reply/capacity`` gets an error in its place.
    func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply)

    /// A hint that a command will be applied in a moment: begin to fetch the memory that it will touch
    /// (`Transaction.prefetch`), wait for nothing, change nothing. Large states are bound by cache misses; this lets
    /// those of several commands overlap.
    ///
    /// Called for up to 16 commands ahead, for all of them with step 0, then for all with step 1, when what step 0
    /// fetched is there to be followed, then for all with step 2. Unlike the other calls it may meet a body that
    /// ``validate(_:as:)`` rejects. It must not trap on any: no start would name the command, and `--skip-record` does
    /// not pass it; only a program whose `prefetch` is mended does. The default does nothing.
    ///
    /// - Parameter hint: the command's own word: 0 at step 0, then what the step before left there.
    func prefetch(_ command: UnsafeRawBufferPointer, step: Int, hint: inout UInt64, in transaction: Transaction)
}

extension StateMachine {
    public static var name: String { String(describing: Self.self) }

    public static var version: Int { 1 }

    public func prefetch(
        _ command: UnsafeRawBufferPointer, step: Int, hint: inout UInt64, in transaction: Transaction
    ) {}
}

extension Transaction {
    /// Where one of the four 64-byte places of the machine's 256-byte root begins: each holds one collection, or 64
    /// bytes of your own.
    ///
    /// - Parameter index: 0 to 3. Which place holds what is part of your data's layout: it must not change under pools
    ///   that exist.
    @inlinable
    public func rootSlot(_ index: Int) -> UInt64 {
        invariant(0 <= index && index < 4, "the machine's root has four slots of 64 bytes, 0 to 3")
        return root + UInt64(index) * 64
    }
}
