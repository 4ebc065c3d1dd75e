/// The keys that a client of a cluster needs: its own pair, and the public keys by which it knows the replicas.
public struct ClusterKeys: Sendable {
    /// Who the client is.
    public var own: KeyPair
    /// By client endpoint, as in "tcp://127.0.0.1:7200": one key, or two while the replica's is rotated. Endpoints that
    /// are not among them are not connected to.
    public var replicas: [String: [PublicKey]]

    public init(own: KeyPair, replicas: [String: [PublicKey]]) {
        self.own = own
        self.replicas = replicas
    }
}
