import MPaxosKeys
import MPaxosTopology

extension ClusterKeys {
    /// The keys of the topology's replicas, for a client with the pair `own`.
    public init(own: KeyPair, topology: Topology) {
        var replicas: [String: [PublicKey]] = [:]
        for member in topology.replicas { replicas[member.client.description] = member.publicKeys }
        self.init(own: own, replicas: replicas)
    }

    /// The same with the pair in the file `keyFile`; nil where the topology's clients have no keys, whatever the file.
    static func read(_ keyFile: String?, for topology: Topology) throws(ClientError) -> ClusterKeys? {
        guard topology.clientsHaveKeys else { return nil }
        guard let keyFile else {
            throw .setUp(
                "clients of \(topology.name) need a key: name the file of one, as `mpaxos keys new` makes it")
        }
        do throws(KeyFileError) {
            return ClusterKeys(own: try KeyFile.read(keyFile), topology: topology)
        } catch {
            throw .setUp(error.description)
        }
    }
}

extension ClientOptions {
    /// These, with the keys for `topology`.
    func withKeys(in keyFile: String?, for topology: Topology) throws(ClientError) -> ClientOptions {
        var options = self
        options.keys = try ClusterKeys.read(keyFile, for: topology)
        return options
    }
}

extension Client {
    /// A client of all the topology's replicas. What `options` has for keys is replaced.
    /// - Parameter keyFile: of the client's key pair, which only its owner may be able to open; needed where the
    ///   topology says that clients have keys, and else not looked at.
    public convenience init(
        topology: Topology, keyFile: String? = nil, options: ClientOptions = ClientOptions()
    ) throws(ClientError) {
        try self.init(
            endpoints: topology.replicas.map(\.client.description),
            options: options.withKeys(in: keyFile, for: topology))
    }
}

extension ClusterClient {
    /// A client of all the topology's replicas. What `options` has for keys is replaced.
    /// - Parameter keyFile: of the client's key pair, which only its owner may be able to open; needed where the
    ///   topology says that clients have keys, and else not looked at.
    public convenience init(
        topology: Topology, keyFile: String? = nil, options: ClientOptions = ClientOptions()
    ) throws(ClientError) {
        try self.init(
            endpoints: topology.replicas.map(\.client.description),
            options: options.withKeys(in: keyFile, for: topology))
    }
}

extension Connection {
    /// Connects to replica `id` of the topology; returns before the connection is made.
    /// - Parameter keyFile: of the client's key pair, which only its owner may be able to open; needed where the
    ///   topology says that clients have keys, and else not looked at.
    public convenience init(
        to id: UInt16, of topology: Topology, keyFile: String? = nil
    ) throws(ClientError) {
        guard let index = topology.index(of: id) else {
            throw .setUp("\(topology.file): there is no replica with id \(id)")
        }
        try self.init(
            to: topology.replicas[index].client.description, keys: ClusterKeys.read(keyFile, for: topology))
    }
}
