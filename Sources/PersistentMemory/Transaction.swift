import Glibc
import MPaxosCSupport
import MPaxosInvariants

/// Reads and writes of a heap's data area, gathered into one failure-atomic commit.
///
/// All addresses are offsets from the start of the data area; memory that is read or written lies in a private view of
/// it. A write must be declared, by `write` or `mutableBytes`, before the memory changes. After a crash the heap is as
/// it was before the commit or after it, never between.
///
/// Threading: one for a heap, used by the lane that executes commands.
public final class Transaction {
    @usableFromInline let state: UnsafeMutablePointer<TransactionState>
    /// The private view; the same for as long as the heap is open.
    @usableFromInline let view: UnsafeMutableRawPointer
    /// Bytes of the data area.
    @usableFromInline let size: UInt64
    let layout: HeapLayout

    private let home: UnsafeMutableRawPointer
    private var journal: Journal
    private let journalSize: Int
    private var pages: TouchedPages

    init(
        view: UnsafeMutableRawPointer, home: UnsafeMutableRawPointer, layout: HeapLayout, journal: Journal,
        viewLimit: Int
    ) {
        self.view = view
        self.home = home
        self.layout = layout
        self.journal = journal
        journalSize = journal.size
        size = layout.dataSize
        let lines = Int(layout.dataSize) / DirtyLines.lineSize
        let capacity = min(Journal.capacity(size: journal.size), lines)
        pages = TouchedPages(pages: Int(layout.dataSize) / Pool.pageSize, limit: viewLimit / Pool.pageSize)
        state = .allocate(capacity: 1)
        state.initialize(
            to: TransactionState(
                dirty: DirtyLines(lines: lines, capacity: capacity), undo: UndoBuffer(capacity: 1 << 20),
                digest: Digest(first: layout.progressSize / UInt64(DirtyLines.lineSize)), mostLines: capacity))
    }

    deinit {
        state.pointee.dirty.deallocate()
        state.pointee.undo.deallocate()
        state.deallocate()
        pages.deallocate()
    }

    // MARK: Reading

    /// The value at a place of the heap.
    @inlinable public func read<T: BitwiseCopyable>(_ pointer: PersistentPointer<T>) -> T {
        checkRange(pointer.offset, MemoryLayout<T>.size)
        return (view + Int(truncatingIfNeeded: pointer.offset)).loadUnaligned(as: T.self)
    }

    /// `count` bytes of the heap, where they lie: they change with the next write to them.
    @inlinable public func bytes(_ offset: UInt64, _ count: Int) -> UnsafeRawBufferPointer {
        checkRange(offset, count)
        return UnsafeRawBufferPointer(start: view + Int(truncatingIfNeeded: offset), count: count)
    }

    /// Begins to fetch bytes of the heap into the processor's cache, and does not wait for them: a hint, for what will
    /// soon be read or written. Offsets outside of the heap are ignored.
    @inlinable public func prefetch(_ offset: UInt64, _ count: Int) {
        guard offset < size, count > 0 else { return }
        // What will be written will be marked.
        csupport_prefetch(state.pointee.dirty.bitmap + Int(truncatingIfNeeded: offset >> 12))
        let first = offset & ~63
        let end = min(size, offset &+ UInt64(truncatingIfNeeded: count))
        var line = first
        while line < end {
            csupport_prefetch(view + Int(truncatingIfNeeded: line))
            line &+= 64
        }
    }

    // MARK: Writing

    /// Stores a value at a place of the heap.
    @inlinable public func write<T: BitwiseCopyable>(_ value: T, to pointer: PersistentPointer<T>) {
        declareWrite(pointer.offset, MemoryLayout<T>.size)
        (view + Int(truncatingIfNeeded: pointer.offset)).storeBytes(of: value, as: T.self)
    }

    /// `count` bytes of the heap to be changed in place, until the end of the command.
    @inlinable public func mutableBytes(_ offset: UInt64, _ count: Int) -> UnsafeMutableRawBufferPointer {
        declareWrite(offset, count)
        return UnsafeMutableRawBufferPointer(start: view + Int(truncatingIfNeeded: offset), count: count)
    }

    /// The machine's own 256 bytes, zero at format: where it keeps the offsets of what it allocates.
    public var root: UInt64 { layout.machineRoot }

    @inlinable @inline(__always)
    func checkRange(_ offset: UInt64, _ count: Int) {
        invariant(count >= 0 && offset <= size, "what is accessed begins within the data area")
        invariant(UInt64(truncatingIfNeeded: count) <= size &- offset, "what is accessed ends within the data area")
    }

    @inlinable @inline(__always)
    func declareWrite(_ offset: UInt64, _ count: Int) {
        checkRange(offset, count)
        if count == 0 { return }
        invariant(!state.pointee.readOnly, "only apply writes to the heap, a query never")
        if count > 256 { declareLongWrite(offset, count) } else { mark(offset, count) }
    }

    @inlinable @inline(__always)
    func mark(_ offset: UInt64, _ count: Int) {
        let lines = state.pointee.dirty.count
        let isKnown = state.pointee.dirty.mark(offset, count)
        if state.pointee.dirty.count != lines { leaveDigest(from: lines) }
        // What a line held before the commit that gathers is at home: only what was written since then must be kept.
        if isKnown, state.pointee.inCommand {
            state.pointee.undo.save(offset, count, from: view)
        }
    }

    /// The lines that were just marked, and still hold what was committed.
    @usableFromInline @inline(never)
    func leaveDigest(from first: Int) {
        let (list, count) = (state.pointee.dirty.list, state.pointee.dirty.count)
        state.pointee.digest.leave(list + first, count - first, view: view)
    }

    /// Its first and last lines may hold something else that was written since the last commit, which must not have all
    /// of it kept.
    @usableFromInline @inline(never)
    func declareLongWrite(_ offset: UInt64, _ count: Int) {
        invariant(count > 128, "a long write has a line of its own")
        let end = offset + UInt64(count)
        let second = (offset | 63) + 1
        let last = (end - 1) & ~63
        mark(offset, Int(second - offset))
        mark(second, Int(last - second))
        mark(last, Int(end - last))
    }

    // MARK: Commands and commits

    /// A block of the reserve that will be free when the command is done: `allocate` takes it for data of just its
    /// size, which saves the way over the free lists. 0: none, or taken. It belongs to the command: whoever sets it
    /// takes it back at the end.
    package var spare: UInt64 {
        get { state.pointee.spare }
        set { state.pointee.spare = newValue }
    }

    /// Of the allocator's records, as they are in the view.
    var allocatorSum: UInt64 {
        get { state.pointee.allocatorSum }
        set { state.pointee.allocatorSum = newValue }
    }

    /// Set while a query runs: then a write is a fault of the state machine and stops the process.
    package var readOnly: Bool {
        get { state.pointee.readOnly }
        set { state.pointee.readOnly = newValue }
    }

    /// From here on writes can be undone by `rollbackCommand`. Ends the command before it.
    @inlinable package func beginCommand() {
        invariant(!state.pointee.readOnly, "no command begins while a query runs")
        state.pointee.allocatorSumBefore = state.pointee.allocatorSum
        state.pointee.digest.beginCommand()
        state.pointee.undo.used = 0
        state.pointee.linesBefore = state.pointee.dirty.count
        state.pointee.inCommand = true
    }

    /// Undoes every write since `beginCommand`, byte for byte; the command is over.
    package func rollbackCommand() {
        invariant(state.pointee.inCommand, "a command is rolled back while it runs")
        invariant(state.pointee.linesBefore <= state.pointee.dirty.count, "dirty lines grow within a command")
        state.pointee.undo.restore(into: view)
        state.pointee.allocatorSum = state.pointee.allocatorSumBefore
        state.pointee.digest.rollback()
        // Lines that only this command touched are again what is at home. Their private pages stay until dropped.
        for index in state.pointee.linesBefore..<state.pointee.dirty.count {
            let line = state.pointee.dirty.list[index]
            let place = Int(line) * DirtyLines.lineSize
            (view + place).copyMemory(from: home + place, byteCount: DirtyLines.lineSize)
            pages.touch(page: line >> 6)
        }
        state.pointee.dirty.truncate(to: state.pointee.linesBefore)
        state.pointee.inCommand = false
    }

    /// The command's writes stay; they can no longer be undone.
    @inlinable package func endCommand() {
        state.pointee.undo.used = 0
        state.pointee.inCommand = false
    }

    /// Whether what is to be committed has outgrown the journal. The owner looks after every command: if so it rolls
    /// the command back, commits what came before, and applies it again; a command that overflows alone is refused with
    /// `Refusal.tooLarge`. To commit while it is set is a fault.
    @inlinable package var overflowed: Bool { state.pointee.dirty.count > state.pointee.mostLines }

    /// Bytes of journal that this commit may still fill. A further line of 64 takes 72 on average and never more than
    /// 128; a write of n bytes dirties up to n / 64 + 2 lines. Commit before a command that may need more.
    package var journalRoom: Int {
        max(0, journalSize - Journal.recordSize(lines: state.pointee.dirty.count))
    }

    /// Whether something was written since the last commit.
    package var isDirty: Bool { state.pointee.dirty.count > 0 }

    /// Makes everything written since the last commit durable, all or nothing. Durable on return.
    /// - Parameter store: given the digest of what is committed, once nothing of that changes any more; called when
    ///   something is. It may write to lines of the progress that are part of the commit already.
    package func commit(storingDigest store: (_ digest: UInt64) -> Void = { _ in }) {
        invariant(!state.pointee.readOnly, "nothing is committed while a query runs")
        invariant(!overflowed, "a commit fits the journal, since a command that does not fit is rolled back")
        endCommand()
        guard state.pointee.dirty.count > 0 else { return }
        storeAllocatorSum()
        let (list, count) = (state.pointee.dirty.list, state.pointee.dirty.count)
        state.pointee.digest.settle(list, count, view: view)
        store(state.pointee.digest.committed)
        invariant(state.pointee.dirty.count == count, "a digest is stored in a line that is part of the commit")
        journal.commit(state.pointee.dirty, from: view, to: home)
        state.pointee.dirty.removeAll { page in pages.touch(page: page) }
        pages.dropIfMany(of: view)
    }

    /// Makes the homes of all commits durable and empties the journal, so that the next open has nothing to replay.
    package func checkpoint() { journal.checkpoint() }

    /// Pages of the view that have a private copy, an upper bound.
    package var privatePages: Int { pages.count }

    /// The committed bytes of the data area, without what is being written.
    package var committed: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: home, count: Int(size)) }
}

/// The part of a transaction that the hot path touches; behind a pointer, so that it costs no exclusivity checks.
@usableFromInline
struct TransactionState {
    @usableFromInline var dirty: DirtyLines
    @usableFromInline var undo: UndoBuffer
    @usableFromInline var digest: Digest
    @usableFromInline var inCommand = false
    @usableFromInline var readOnly = false
    var spare: UInt64 = 0
    @usableFromInline var allocatorSum: UInt64 = 0
    /// That when the command began.
    @usableFromInline var allocatorSumBefore: UInt64 = 0
    /// Dirty lines when the command began.
    @usableFromInline var linesBefore = 0
    /// Dirty lines that one commit can hold.
    @usableFromInline let mostLines: Int

    init(dirty: DirtyLines, undo: UndoBuffer, digest: Digest, mostLines: Int) {
        self.dirty = dirty
        self.undo = undo
        self.digest = digest
        self.mostLines = mostLines
    }
}
