/// Why a replica does not run. The text is for the person at the terminal.
public struct ReplicaError: Error, CustomStringConvertible {
    public enum Kind: Sendable {
        /// Something in the topology, or an endpoint in it that cannot be used.
        case configuration
        /// Refused for safety: a pool is missing, damaged, somebody else's or in use.
        case refused
    }

    public let kind: Kind
    public let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }

    package static func noSuchReplica(_ id: UInt16, _ topology: Topology) -> ReplicaError {
        let ids = topology.replicas.map { String($0.id) }.joined(separator: ", ")
        return ReplicaError(.configuration, "\(topology.file): there is no replica with id \(id); it has \(ids)")
    }
}
