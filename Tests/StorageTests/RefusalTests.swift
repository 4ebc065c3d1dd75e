import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// Each pool refuses what is not its own, with the kind of reason that the command line turns into an exit code and a
/// sentence that names the file.
@Suite struct RefusalTests {
    enum Which: String, CaseIterable {
        case acceptor
        case state

        func format(_ path: String) throws(PoolError) {
            switch self {
            case .acceptor: try AcceptorPool.format(path: path, identity: identity, size: 8 << 20)
            case .state: try StatePool.format(path: path, identity: identity, size: 32 << 20, sessions: 1024)
            }
        }

        func open(
            _ path: String, cluster: String = "test cluster", replica: UInt16 = 7, charter: Charter? = charter
        ) throws(PoolError) {
            switch self {
            case .acceptor:
                try AcceptorPool(opening: path, expecting: cluster, replica: replica, charter: charter).close()
            case .state: try StatePool(opening: path, expecting: cluster, replica: replica, charter: charter).close()
            }
        }

        var layout: String { self == .acceptor ? AcceptorGeometry.poolLayout : StateLayout.poolLayout }

        func regionOffset(_ path: String) throws(PoolError) -> Int {
            let pool = try Pool(opening: path, layout: layout)
            defer { pool.close() }
            return pool.fileOffsetOfRegion
        }
    }

    private func expect(_ kind: PoolError.Kind, _ path: String, saying words: String..., in body: () throws -> Void) {
        guard let refusal = error(of: body) else {
            Issue.record("not refused")
            return
        }
        #expect(refusal.kind == kind)
        #expect(refusal.description.contains(path))
        for word in words { #expect(refusal.description.contains(word), "\(refusal)") }
    }

    @Test(arguments: Which.allCases) func aMissingPool(_ which: Which) {
        let path = Folder().file("none.pool")
        expect(.missing, path) { try which.open(path) }
    }

    @Test(arguments: Which.allCases) func formattingTwice(_ which: Which) throws {
        let folder = Folder()
        try which.format(folder.file("a.pool"))
        expect(.exists, folder.file("a.pool")) { try which.format(folder.file("a.pool")) }
        try which.open(folder.file("a.pool"))
    }

    @Test(arguments: Which.allCases) func anotherClusterOrReplica(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        expect(.foreign, path, saying: "'test cluster'", "'other'") { try which.open(path, cluster: "other") }
        expect(.foreign, path, saying: "replica 7", "replica 8") { try which.open(path, replica: 8) }
        try which.open(path)
    }

    /// Both values, and that nothing was harmed.
    @Test(arguments: Which.allCases) func aPoolThatWasFormattedForSomethingElse(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        func expectRefusal(_ formatted: String, _ wanted: String, _ change: (inout Charter) -> Void) {
            var other = charter
            change(&other)
            expect(.foreign, path, saying: formatted, wanted) { try which.open(path, charter: other) }
        }
        expectRefusal("members = 3, 7, 9", "members = 3, 7") { $0.members = [3, 7] }
        expectRefusal("members = 3, 7, 9", "members = 3, 7, 8") { $0.members = [3, 7, 8] }
        expectRefusal("max_request = 1 MiB", "max_request = 1048577 bytes") { $0.maxRequest += 1 }
        expectRefusal("sessions = 1024", "sessions = 1025") { $0.sessions += 1 }
        expectRefusal("state_size = 32 MiB", "state_size = 33 MiB") { $0.stateSize += 1 << 20 }
        expectRefusal("machine = 'Machine' version 2", "machine = 'machine' version 2") { $0.machine = "machine" }
        expectRefusal("machine = 'Machine' version 2", "machine = 'Machine' version 3") { $0.machineVersion = 3 }
        expectRefusal("max_request = 1 MiB", "sessions = 16") { ($0.maxRequest, $0.sessions) = (1, 16) }
        try which.open(path)
        try which.open(path, charter: nil)
    }

    /// A pool of the layout before, which had no charter, under a sum that is right.
    @Test(arguments: Which.allCases) func aPoolOfAnOlderLayout(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        let pool = try Pool(opening: path, layout: which.layout)
        let page = pool.region.baseAddress!
        let version = page.load(fromByteOffset: 8, as: UInt32.self)
        page.storeBytes(of: version - 1, toByteOffset: 8, as: UInt32.self)
        (page + 96).initializeMemory(as: UInt8.self, repeating: 0, count: 32)
        (page + 384).initializeMemory(as: UInt8.self, repeating: 0, count: 300)
        page.storeBytes(of: Checksum.of(page, 4092), toByteOffset: 4092, as: UInt32.self)
        pool.flush(page, IdentityPage.size)
        pool.fenceAll()
        pool.close()
        let words = ["layout version \(version - 1)", "version \(version)", "run the program that made it"]
        expect(.foreign, path, saying: words[0], words[1], words[2]) { try which.open(path) }
        expect(.foreign, path, saying: words[0], words[1]) { _ = try PoolInspection.report(path: path, verify: true) }
    }

    @Test(arguments: Which.allCases) func aTruncatedOrEmptyFile(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        #expect(truncate(path, 12 << 20) == 0)
        expect(.damaged, path, saying: "truncated") { try which.open(path) }
        #expect(truncate(path, 0) == 0)
        expect(.damaged, path, saying: "empty") { try which.open(path) }
    }

    @Test(arguments: Which.allCases) func aFileThatIsNoPoolOrOfTheOtherKind(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        let file = open(path, O_RDWR | O_CREAT, 0o600)
        #expect(ftruncate(file, 16 << 20) == 0)
        close(file)
        expect(.foreign, path) { try which.open(path) }
        let other: Which = which == .acceptor ? .state : .acceptor
        try other.format(folder.file("other.pool"))
        expect(.foreign, folder.file("other.pool")) { try which.open(folder.file("other.pool")) }
    }

    @Test(arguments: Which.allCases) func oneOfAnOlderLayout(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        let layout = which == .acceptor ? "mpaxos-acceptor-2" : "mpaxos-state-3"
        try Pool.create(path: path, layout: layout, size: 32 << 20)
        expect(.foreign, path, saying: layout, "run the program that made it") { try which.open(path) }
    }

    @Test(arguments: Which.allCases) func oneInUse(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        let holder = try Pool(opening: path, layout: which.layout)
        expect(.inUse, path) { try which.open(path) }
        holder.close()
        try which.open(path)
    }

    @Test(arguments: Which.allCases) func aDamagedHeader(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        let region = try which.regionOffset(path)
        for offset in [0, 9, 17, 24, 96, 110, 119, 120, 130, 384, 386, 404, 406, 4094] {
            flipBit(in: path, at: region + offset)
            expect(.damaged, path) { try which.open(path) }
            expect(.damaged, path) { _ = try PoolInspection.report(path: path, verify: true) }
            flipBit(in: path, at: region + offset)
        }
        try which.open(path)
    }

    @Test(arguments: Which.allCases) func aFormatThatWasCutShort(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try Pool.create(path: path, layout: which.layout, size: 32 << 20)
        expect(.damaged, path, saying: "cut short") { try which.open(path) }
    }
}
