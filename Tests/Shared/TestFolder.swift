import Foundation
import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosStorage

/// Of pools whose charter nobody looks at.
let charter = Charter(
    members: [0, 1, 2], maxRequest: 1 << 20, sessions: 64, stateSize: 32 << 20, machine: "Machine", machineVersion: 1)

/// A folder for pools, on tmpfs where there is one: a commit costs no look at a disk. Gone with the last reference.
final class TestFolder {
    let path: String

    init() throws {
        let memory = URL(filePath: "/dev/shm", directoryHint: .isDirectory)
        let parent =
            FileManager.default.isWritableFile(atPath: memory.path)
            ? memory : FileManager.default.temporaryDirectory
        let folder = parent.appending(path: "mpaxos-replica-\(UInt32.random(in: 0...UInt32.max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        path = folder.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// A new log for a replica of a cluster of test.
    func acceptor(_ index: Int, size: Int) throws -> AcceptorPool {
        let file = "\(path)/\(index).acceptor"
        try AcceptorPool.format(
            path: file,
            identity: PoolIdentity(
                cluster: "c", replica: UInt16(index), incarnation: UInt64(index) + 1, charter: charter),
            size: size)
        return try whenFree { () throws(PoolError) in
            try AcceptorPool(opening: file, expecting: "c", replica: UInt16(index))
        }
    }
}

/// Opens a pool that this process had open just before: a child that another test starts has its lock until it is a
/// program of its own, and on a busy machine that takes longer than the second that an opening tries again.
func whenFree<Pool>(_ open: () throws(PoolError) -> Pool) throws(PoolError) -> Pool {
    let end = ContinuousClock.now + .seconds(60)
    while true {
        do throws(PoolError) {
            return try open()
        } catch {
            guard error.kind == .inUse, .now < end else { throw error }
        }
    }
}
