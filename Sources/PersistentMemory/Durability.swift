import Glibc
import MPaxosCPersistentMemory
import MPaxosInvariants

/// What a fence of a pool survives. Decided when the pool is opened.
public enum Durability: String, Sendable {
    /// Persistent memory behind DAX: stores are flushed by cache line; survives everything.
    case pmem
    /// Ordinary memory behind a file (tmpfs, or flushes forced by `PMEM_IS_PMEM_FORCE`): the same instructions, which
    /// survive the process but not the machine.
    case emulated
    /// A file on a disk: every fence is an msync; survives everything, slowly.
    case msync

    /// - Parameters:
    ///   - region: the pool's mapping by libpmemobj, whose kind libpmem knows.
    static func of(region: UnsafeRawBufferPointer, file: Int32) -> Durability {
        invariant(region.count > 0, "a region that is made durable has bytes")
        invariant(file >= 0, "a file that is made durable is open")
        if cpm_is_tmpfs(file) == 1 { return .emulated }
        // Asked first, since pmem_is_pmem only repeats what the variable says.
        if let forced = getenv("PMEM_IS_PMEM_FORCE"), String(cString: forced) == "1" { return .emulated }
        return pmem_is_pmem(region.baseAddress, region.count) != 0 ? .pmem : .msync
    }
}
