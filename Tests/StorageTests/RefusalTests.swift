import Glibc
import PersistentMemory
import Testing

@testable import Storage

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

        func open(_ path: String, cluster: String = "test cluster", replica: UInt16 = 7) throws(PoolError) {
            switch self {
            case .acceptor: try AcceptorPool(opening: path, expecting: cluster, replica: replica).close()
            case .state: try StatePool(opening: path, expecting: cluster, replica: replica).close()
            }
        }

        func regionOffset(_ path: String) throws(PoolError) -> Int {
            let layout = self == .acceptor ? AcceptorGeometry.poolLayout : StateLayout.poolLayout
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
        let layout = which == .acceptor ? AcceptorGeometry.poolLayout : StateLayout.poolLayout
        let holder = try Pool(opening: path, layout: layout)
        expect(.inUse, path) { try which.open(path) }
        holder.close()
        try which.open(path)
    }

    @Test(arguments: Which.allCases) func aDamagedHeader(_ which: Which) throws {
        let folder = Folder()
        let path = folder.file("a.pool")
        try which.format(path)
        let region = try which.regionOffset(path)
        for offset in [0, 9, 17, 24, 130, 4094] {
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
        let layout = which == .acceptor ? AcceptorGeometry.poolLayout : StateLayout.poolLayout
        try Pool.create(path: path, layout: layout, size: 32 << 20)
        expect(.damaged, path, saying: "cut short") { try which.open(path) }
    }
}
