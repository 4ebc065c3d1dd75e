import MPaxosPersistentMemory
import MPaxosStateMachines

/// A heap in ordinary memory, and the runtime's part in executing commands: rollback of what is refused, commit,
/// reopening.
final class TestStore {
    private let pool: Pool
    private(set) var heap: Heap
    private var reply: Reply

    var transaction: Transaction { heap.transaction }

    init(megabytes: Int = 16, maxRequest: Int = 1 << 16, reserve: Int? = nil) throws {
        let size = megabytes << 20
        let image = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { image.deallocate() }
        image.initializeMemory(as: UInt8.self, repeating: 0)
        pool = try Pool(image: UnsafeRawBufferPointer(image))
        try Heap.format(in: pool, progressSize: 4096, reserveSize: reserve)
        heap = try Heap(opening: pool)
        reply = Reply(maxRequest: maxRequest)
    }

    /// Goes on as after a crash: what was not committed is gone.
    func reopen() throws {
        heap = try Heap(opening: pool)
    }

    /// Executes one command as the runtime does.
    func apply<Machine: StateMachine>(_ command: [UInt8], to machine: Machine) throws(Refusal) -> [UInt8] {
        for attempt in 0..<2 {
            transaction.beginCommand()
            reply.removeAll()
            do throws(Refusal) {
                try withBytes(command) { (bytes) throws(Refusal) in
                    try machine.apply(bytes, in: transaction, reply: &reply)
                }
            } catch {
                transaction.rollbackCommand()
                throw error
            }
            if !transaction.overflowed { break }
            transaction.rollbackCommand()
            guard attempt == 0 else { throw .tooLarge }
            transaction.commit()
        }
        let bytes = Array(reply.bytes)
        if let slice = reply.given { transaction.free(slice.block) }
        transaction.endCommand()
        return bytes
    }

    /// Executes a command and takes it back.
    func applyAndRollBack<Machine: StateMachine>(_ command: [UInt8], to machine: Machine) {
        transaction.beginCommand()
        reply.removeAll()
        withBytes(command) { try? machine.apply($0, in: transaction, reply: &reply) }
        transaction.rollbackCommand()
    }

    func query<Machine: StateMachine>(_ query: [UInt8], of machine: Machine) -> [UInt8] {
        transaction.readOnly = true
        defer { transaction.readOnly = false }
        reply.removeAll()
        withBytes(query) { machine.query($0, in: transaction, reply: &reply) }
        return Array(reply.bytes)
    }

    /// The digest of the state as committed now.
    func digest() -> UInt64 {
        transaction.commit()
        return heap.recomputedDigest()
    }

    /// The cache lines that the commit would write.
    func dirtyLines(since room: Int) -> Int { (room - transaction.journalRoom) / 72 }
}

/// `Array.withUnsafeBytes` for closures with typed errors.
func withBytes<Result, Failure: Error>(
    _ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
) throws(Failure) -> Result {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { copy.deallocate() }
    copy.copyBytes(from: bytes)
    return try body(UnsafeRawBufferPointer(copy))
}

/// A random number generator that gives the same numbers in each run: splitmix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

extension FixedWidthInteger {
    var littleEndianBytes: [UInt8] { withUnsafeBytes(of: littleEndian) { Array($0) } }
}
