import MPaxosConsensus
import MPaxosPersistentMemory

/// The questions that both pools ask of an identity page before they trust the rest.
enum IdentityCheck {
    static func page(
        of pool: Pool, magic: UInt64, version: UInt32, what: String
    ) throws(PoolError) -> IdentityPage {
        let path = pool.path
        let page = try page(at: pool.region.baseAddress!, magic: magic, version: version, what: what, path: path)
        guard page.regionSize == pool.region.count else {
            throw PoolError.damagedPool(path, "its header is that of a pool of another size")
        }
        return page
    }

    /// - Parameter what: which kind of pool, for the sentence.
    static func page(
        at start: UnsafeRawPointer, magic: UInt64, version: UInt32, what: String, path: String
    ) throws(PoolError) -> IdentityPage {
        let found = IdentityPage.version(of: start, magic: magic)
        if let found, found != version {
            throw PoolError(
                .foreign,
                "\(path): \(what) pool of layout version \(found); this program reads version \(version): run the program that made it, or begin a new cluster with new pools on all replicas"
            )
        }
        guard let page = IdentityPage(reading: start, magic: magic) else {
            throw PoolError.damagedPool(path, "its header is damaged, or its format was cut short")
        }
        return page
    }

    /// - Parameter charter: of the topology and the program that open the pool; nil for who only looks at it.
    static func expect(
        _ identity: PoolIdentity, cluster: String, replica: UInt16, charter: Charter?, path: String
    ) throws(PoolError) {
        guard identity.cluster == cluster else {
            throw PoolError(
                .foreign,
                "\(path): belongs to cluster '\(identity.cluster)', not to '\(cluster)'; use that cluster's topology, or another directory"
            )
        }
        guard identity.replica == replica else {
            throw PoolError(
                .foreign,
                "\(path): belongs to replica \(identity.replica), not to replica \(replica); start that replica, or use another directory"
            )
        }
        if let charter { try expect(identity.charter, toBe: charter, path: path) }
    }

    /// A pool goes on under what it was formatted for, or not at all: neither is the pool changed, nor the topology
    /// ignored.
    private static func expect(_ formatted: Charter, toBe wanted: Charter, path: String) throws(PoolError) {
        let terms = formatted.differences(from: wanted)
        guard !terms.isEmpty else { return }
        let facts = terms.map { term in
            let place = term == .machine ? "this program has" : "the topology has"
            return "formatted with \(formatted.statement(of: term)), but \(place) \(wanted.statement(of: term))"
        }
        var advice: [String] = []
        if terms.contains(.members) {
            advice.append(
                "members cannot change under pools that exist, as votes are counted among them: put them back (their endpoints may change)"
            )
        }
        let sizes = terms.filter { $0 != .members && $0 != .machine }.map(\.rawValue)
        if !sizes.isEmpty {
            advice.append(
                "replicas that differ in it would answer differently: put \(sizes.joined(separator: " and ")) back, or begin a new cluster with new pools on all replicas"
            )
        }
        if terms.contains(.machine) {
            advice.append("run the program that the pool was formatted for, or use another directory")
        }
        throw PoolError(
            .foreign, "\(path): \(facts.joined(separator: "; ")): \(advice.joined(separator: "; "))")
    }
}

extension PoolError {
    static func damagedPool(_ path: String, _ what: String) -> PoolError {
        PoolError(
            .damaged,
            "\(path): \(what); this replica must not vote with it: restore the file as it was when it last ran; the others go on without it"
        )
    }
}
