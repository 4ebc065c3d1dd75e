import Glibc
import MPaxosTopology

/// The DRAM that a replica may take for changed pages of its state. Where the pages in use are more than that, commands
/// wait for page faults, which cost several times what else they do.
struct PrivateMemory: CustomStringConvertible {
    /// Bytes.
    let limit: Int
    private let reason: String

    /// What a replica takes at least, where the memory is not so small that it would be more than half of it.
    private static let usual = 256 << 20
    private static let least = 16 << 20

    init(topology: Topology, index: Int) {
        if let given = topology.limits.privateMemory {
            self.init(limit: given, reason: "as the topology has it")
            return
        }
        let host = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
        self.init(host: host, cgroup: HostMemory.limitOfControlGroup(), replicas: topology.replicasOnHost(of: index))
    }

    private init(limit: Int, reason: String) {
        self.limit = limit
        self.reason = reason
    }

    /// An eighth of the memory; half of it at most for all replicas of the host together.
    /// - Parameters:
    ///   - cgroup: bytes; nil where it has no limit.
    ///   - replicas: that share the memory.
    init(host: Int, cgroup: Int?, replicas: Int) {
        let memory = min(host, cgroup ?? .max)
        let limit = max(Self.least, min(max(Self.usual, memory / 8), memory / 2 / replicas))
        let owner = (cgroup ?? .max) < host ? "that its cgroup allows" : "of the host"
        let reason = "of \(memory >> 20) MiB \(owner)" + (replicas > 1 ? ", for \(replicas) replicas" : "")
        self.init(limit: limit, reason: reason)
    }

    var description: String { "\(limit >> 20) MiB for changed pages, \(reason)" }
}

/// What the kernel says of the memory of this process.
enum HostMemory {
    /// Bytes that the control group of this process may have, by itself or by one above it; nil where none has a limit.
    /// - Parameter root: of the file system, for tests.
    static func limitOfControlGroup(root: String = "") -> Int? {
        var limits: [Int] = []
        for line in text(of: root + "/proc/self/cgroup").split(separator: "\n") {
            // ID:CONTROLLERS:PATH, where version 2 has no controllers.
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isFirst = parts[1].split(separator: ",").contains("memory")
            guard isFirst || parts[1].isEmpty else { continue }
            let (mount, file) =
                isFirst ? ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") : ("/sys/fs/cgroup", "memory.max")
            var group = Substring(parts[2] == "/" ? "" : parts[2])
            while true {
                let found = text(of: "\(root)\(mount)\(group)/\(file)").split(separator: "\n").first
                if let limit = found.flatMap({ Int($0) }) { limits.append(limit) }
                guard let end = group.lastIndex(of: "/") else { break }
                group = group[..<end]
            }
        }
        return limits.min()
    }

    /// Empty where it cannot be read.
    static func text(of path: String) -> String {
        guard let file = fopen(path, "re") else { return "" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 14)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
