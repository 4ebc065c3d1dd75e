extension Topology {
    /// Where this host keeps what HTTP shows and asks for. Only names of files: a replica that serves HTTP reads them.
    public struct HTTPOptions: Sendable {
        /// The certificate and its private key, both PEM; nil for plain HTTP.
        public let certificate: (chain: String, privateKey: String)?
        /// The file of the token that requests must have; nil when nobody is asked for one.
        public let token: String?

        /// Whether there is a file to be read at all.
        public var hasFiles: Bool { certificate != nil || token != nil }
    }

    /// In a cluster with keys nobody reads what a replica tells over HTTP, unless on its own host or with a token that
    /// nobody else has read.
    static func checkHTTP(
        of members: [Member], _ readers: [TableReader], _ http: HTTPOptions, hasKeys: Bool
    ) throws(TopologyError) {
        guard hasKeys, http.certificate == nil || http.token == nil else { return }
        for (member, reader) in zip(members, readers) {
            guard let address = member.http, !address.isLoopback else { continue }
            throw reader.error(
                "http", "\"\(address)\" can be reached from other hosts, while replicas have keys",
                expected: "127.0.0.1, or `certificate`, `private_key` and `token` under [http]")
        }
    }
}

extension Topology.HTTPOptions {
    init(_ table: TableReader) throws(TopologyError) {
        try table.allowOnly(["certificate", "private_key", "token"])
        let (chain, privateKey) = (try table.filePath("certificate"), try table.filePath("private_key"))
        switch (chain, privateKey) {
        case (let chain?, let privateKey?): certificate = (chain, privateKey)
        case (nil, nil): certificate = nil
        case (nil, _): throw table.missing("certificate", expected: "it beside private_key, or neither")
        case (_, nil): throw table.missing("private_key", expected: "it beside certificate, or neither")
        }
        token = try table.filePath("token")
    }
}

extension TableReader {
    /// Where HTTP is served. A port alone is at the loopback interface.
    func httpAddress(_ key: String) throws(TopologyError) -> Address? {
        guard let text = try string(key) else { return nil }
        guard let address = Address(text.contains(":") ? text : "127.0.0.1:\(text)") else {
            throw error(key, "\"\(text)\" is not an address", expected: "HOST:PORT, or PORT for one of 127.0.0.1")
        }
        return address
    }
}
