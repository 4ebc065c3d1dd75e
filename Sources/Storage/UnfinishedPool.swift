import Glibc
import MPaxosPersistentMemory

/// A pool that a format is making: beside the place where it is to be, until both pools of a replica are whole and
/// durable and take their names. So whatever has a pool's name was formatted to its end, and a format that was
/// interrupted is told from pools that were lost.
package struct UnfinishedPool {
    private let target: String

    package init(for target: String) { self.target = target }

    package var path: String { target + ".unfinished" }

    /// Gives the pool its name, where nothing has it yet. Whoever finishes both pools makes that durable.
    package func finish() throws(PoolError) {
        guard rename(path, target) == 0 else {
            throw PoolError(
                .io,
                "\(path): cannot be renamed to \(target): \(String(cString: strerror(errno))); \(PoolError.systemAdvice)"
            )
        }
    }

    /// Removes what a format has made so far, also what has its name already: that was never opened.
    package static func discard(_ pools: [UnfinishedPool]) {
        for pool in pools { unlink(pool.target) }
        for pool in pools { unlink(pool.path) }
    }

    /// Whether it was being formatted together with the pool at `other`, which has its name already. Then nobody ever
    /// opened either to vote with it.
    package func isPartner(of other: String) -> Bool {
        guard let mine = try? PoolFile.identity(at: path), let its = try? PoolFile.identity(at: other) else {
            return false
        }
        return mine == its
    }
}
