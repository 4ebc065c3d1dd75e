@testable import MPaxosTopology

/// What holds of any bytes that are read as a topology: whole and in range, or refused in one line that names the file.
/// Used by the tests and by `scripts/fuzz`.
enum TopologyProperties {
    static func check(_ input: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        let topology: Topology
        do throws(TopologyError) {
            topology = try Topology(parsing: Array(input), file: "t.toml")
        } catch {
            let line = error.description
            try hold(line.hasPrefix("t.toml") && !line.contains { $0.isNewline }, "refused in these lines: \(line)")
            return false
        }
        let ids = topology.replicas.map(\.id)
        let rise = zip(ids, ids.dropFirst()).allSatisfy { $0 < $1 }
        try hold((1...9).contains(ids.count) && rise, "the replicas \(ids)")
        try hold((1...255).contains(topology.name.utf8.count), "a name of \(topology.name.utf8.count) bytes")
        try hold((1...1024).contains(topology.protocol.window), "a window of \(topology.protocol.window)")
        try hold(topology.client.maxRequest <= topology.storage.logSize / 8, "requests too large for the log")
        return true
    }
}
