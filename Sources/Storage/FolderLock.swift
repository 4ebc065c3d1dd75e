import Glibc
import MPaxosPersistentMemory

/// The right to what is in a replica's folder, for one process at a time: held by who formats it, by a replica for as
/// long as it runs, also while its pools are closed and other files take their names, and by who reads a digest.
///
/// The pools have locks of their own, which programs that know nothing of this one meet.
package final class FolderLock {
    private var descriptor: Int32

    /// - Parameter path: of a pool in the folder, which the sentence names.
    /// - Throws: `.inUse` when another process has it.
    package init(folderOf path: String, shared: Bool = false) throws(PoolError) {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw errno == ENOENT
                ? PoolError(
                    .missing, "\(path): no such pool; `format` makes one, and only for a replica that never ran")
                : PoolError(
                    .io,
                    "\(path): cannot open its folder: \(String(cString: strerror(errno))); name another one, or give the user of this process the right to read and write it"
                )
        }
        // As that of a pool in use, the lock is tried again: its owner may have been killed just now.
        var attemptsLeft = Pool.lockAttempts
        while flock(descriptor, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
            if errno == EINTR { continue }
            // A file system without such locks has those of the pools.
            guard errno == EWOULDBLOCK else { return }
            guard attemptsLeft > 0 else {
                release()
                throw PoolError(.inUse, "\(path): another process has it open; stop that one first")
            }
            attemptsLeft -= 1
            usleep(Pool.lockPause)
        }
    }

    package func release() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    deinit { release() }
}
