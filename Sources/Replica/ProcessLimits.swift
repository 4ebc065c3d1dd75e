import Glibc
import MPaxosTopology

/// The limits of what this process may map (`ulimit -v`) and open (`ulimit -n`). What a replica needs is looked at
/// before it opens anything: the libraries end the process where they get none.
enum ProcessLimits {
    /// Descriptors of a replica alone: pools, lanes, sockets, links to eight others, and some clients.
    private static let fewestDescriptors = 64

    static func require(for member: Topology.Member) throws(ReplicaError) {
        try requireAddressSpace(for: member)
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0,
            limit.rlim_cur < UInt64(fewestDescriptors)
        else { return }
        throw ReplicaError(
            .refused,
            "a replica takes \(fewestDescriptors) open files at least, besides those of its clients, and this process may have \(limit.rlim_cur): raise the limit (ulimit -n)"
        )
    }

    /// For rings, the stacks of threads, and all else but pools.
    private static let own = 256 << 20

    private static func requireAddressSpace(for member: Topology.Member) throws(ReplicaError) {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0, limit.rlim_cur != UInt64.max else {
            return
        }
        // The state is mapped twice.
        let needed = used + own + size(of: member.acceptorPool) + 2 * size(of: member.statePool)
        guard limit.rlim_cur < UInt64(needed) else { return }
        throw ReplicaError(
            .refused,
            "\(member.folder): a replica with these pools takes \(needed >> 20) MiB of address space, and this process may have \(limit.rlim_cur >> 20): raise the limit (ulimit -v), or lift it"
        )
    }

    private static func size(of path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }

    /// Bytes that are mapped already.
    private static var used: Int {
        let pages = HostMemory.text(of: "/proc/self/statm").split(separator: " ").first.flatMap { Int($0) } ?? 0
        return pages * sysconf(Int32(_SC_PAGESIZE))
    }
}
