import Glibc
import MPaxosInvariants

/// What the current command overwrote of what earlier commands of the same commit had written, newest last, in ordinary
/// memory: commits never need it, only a command that is refused. What was not written since the last commit is at
/// home.
///
/// Each entry is {bytes, offset, length}, so that it is walked backwards; the bytes are padded to 8.
@usableFromInline
struct UndoBuffer {
    @usableFromInline var base: UnsafeMutableRawPointer
    @usableFromInline var used = 0
    @usableFromInline var capacity: Int

    init(capacity: Int) {
        invariant(capacity >= 1024, "an undo buffer has 1 KiB at least")
        self.capacity = capacity
        guard let memory = malloc(capacity) else { halt("out of memory: \(capacity) bytes") }
        base = memory
    }

    func deallocate() { free(base) }

    @inlinable mutating func save(_ offset: UInt64, _ count: Int, from area: UnsafeMutableRawPointer) {
        let padded = (count &+ 7) & ~7
        if used &+ padded &+ 16 > capacity { grow(for: padded &+ 16) }
        let entry = base + used
        entry.copyMemory(from: area + Int(truncatingIfNeeded: offset), byteCount: count)
        (entry + padded).storeBytes(of: offset, as: UInt64.self)
        (entry + padded + 8).storeBytes(of: UInt64(truncatingIfNeeded: count), as: UInt64.self)
        used &+= padded &+ 16
    }

    /// Puts everything back, newest first, and is empty then.
    mutating func restore(into area: UnsafeMutableRawPointer) {
        while used > 0 {
            invariant(used >= 16, "an undo buffer holds whole records")
            let count = Int((base + used - 8).load(as: UInt64.self))
            let offset = Int((base + used - 16).load(as: UInt64.self))
            let padded = (count + 7) & ~7
            invariant(used >= 16 + padded, "an undo buffer holds whole records")
            (area + offset).copyMemory(from: base + (used - 16 - padded), byteCount: count)
            used -= 16 + padded
        }
    }

    @usableFromInline @inline(never)
    mutating func grow(for more: Int) {
        let wanted = max(capacity * 2, used + more)
        guard let memory = realloc(base, wanted) else { halt("out of memory: \(wanted) bytes") }
        base = memory
        capacity = wanted
    }
}
