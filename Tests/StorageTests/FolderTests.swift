import Glibc
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// What is in a replica's folder is one process's, and durable.
@Suite struct FolderTests {
    private let folder = Folder()

    @Test func aFolderIsForOneAtATime() throws {
        let path = folder.file("acceptor.pool")
        let first = try FolderLock(folderOf: path)
        for shared in [false, true] {
            let error = #expect(throws: PoolError.self) { try FolderLock(folderOf: path, shared: shared) }
            #expect(error?.kind == .inUse && error?.description.contains(path) == true)
        }
        first.release()
        let readers = try [FolderLock(folderOf: path, shared: true), FolderLock(folderOf: path, shared: true)]
        #expect(throws: PoolError.self) { try FolderLock(folderOf: path) }
        for reader in readers { reader.release() }
        try FolderLock(folderOf: path).release()
        let missing = #expect(throws: PoolError.self) { try FolderLock(folderOf: path + "/none/acceptor.pool") }
        #expect(missing?.kind == .io || missing?.kind == .missing)
    }

    @Test func whatCannotBeMadeDurableIsAnError() throws {
        try Pool.syncDirectory(of: folder.file("acceptor.pool"))
        let error = #expect(throws: PoolError.self) { try Pool.syncDirectory(of: folder.file("none/acceptor.pool")) }
        #expect(error?.kind == .io && error?.description.contains("durable") == true)
    }

    @Test func onlyThePartnerOfAnUnfinishedPoolIsOne() throws {
        let paths = [folder.file("acceptor.pool"), folder.file("state.pool")]
        let making = paths.map(UnfinishedPool.init(for:))
        #expect(!making[1].isPartner(of: paths[0]))
        try AcceptorPool.format(path: making[0].path, identity: identity, size: 8 << 20)
        try StatePool.format(path: making[1].path, identity: identity, size: 32 << 20, sessions: 64)
        try making[0].finish()
        #expect(making[1].isPartner(of: paths[0]))
        unlink(making[1].path)
        var other = identity
        other.incarnation += 1
        try StatePool.format(path: making[1].path, identity: other, size: 32 << 20, sessions: 64)
        #expect(!making[1].isPartner(of: paths[0]))
        UnfinishedPool.discard(making)
        #expect(access(paths[0], F_OK) != 0 && access(making[1].path, F_OK) != 0)
    }
}
