import MPaxosCSupport
import MPaxosInvariants

/// Lines whose first word tells what is happening to them. After a process was killed memory is as its last instruction
/// left it, so a line that it was in the middle of has the first word of the new content; after a loss of power any
/// words may be missing.
extension Pool {
    /// Stores a line of 64 bytes, its first word before the others, and flushes it.
    @inlinable @inline(__always)
    package func storeLine<T: BitwiseCopyable>(_ line: T, to target: UnsafeMutableRawPointer) {
        invariant(MemoryLayout<T>.size == 64, "a line has 64 bytes")
        var line = line
        csupport_store_line(target, &line)
        flush(target, 64)
    }

    /// Fills a line with zeros, its first word after the others, and flushes it.
    package func clearLine(_ target: UnsafeMutableRawPointer) {
        csupport_clear_line(target)
        flush(target, 64)
    }
}
