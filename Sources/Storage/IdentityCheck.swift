import PersistentMemory

/// The questions that both pools ask of an identity page before they trust the rest.
enum IdentityCheck {
    static func page(
        of pool: Pool, magic: UInt64, version: UInt32, what: String
    ) throws(PoolError) -> IdentityPage {
        let path = pool.path
        guard let page = IdentityPage(reading: pool.region.baseAddress!, magic: magic) else {
            throw PoolError.damagedPool(path, "its header is damaged, or its format was cut short")
        }
        guard page.version == version else {
            throw PoolError(
                .foreign,
                "\(path): an \(what) pool of layout version \(page.version); this program reads version \(version): run the program that made it"
            )
        }
        guard page.regionSize == pool.region.count else {
            throw PoolError.damagedPool(path, "its header is that of a pool of another size")
        }
        return page
    }

    static func expect(_ identity: PoolIdentity, cluster: String, replica: UInt16, path: String) throws(PoolError) {
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
