import Glibc
import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// A log of another size in the place of this one.
///
/// The new pool is made beside the old one, gets all that the old one says, and takes its name when it is durable. Both
/// are open, and so locked, until then: whatever ends the process leaves one of them whole under that name, and both
/// say the same.
extension AcceptorPool {
    /// Where the new pool is made.
    static func path(resizing path: String) -> String { path + ".resized" }

    /// Whether it is as large as a format for `logSize` would make it.
    package func has(logSize: Int) -> Bool {
        var status = stat()
        return fstat(pool.fileDescriptor, &status) == 0
            && Int(status.st_size) == AcceptorGeometry.fileSize(logSize: logSize)
    }

    /// Whether its file has the name still that it was opened by.
    package var isInPlace: Bool {
        var (named, own) = (stat(), stat())
        return stat(path, &named) == 0 && fstat(pool.fileDescriptor, &own) == 0 && named.st_dev == own.st_dev
            && named.st_ino == own.st_ino
    }

    /// Bytes of its batches, to the next MiB, for people.
    package var sizeInWords: String { "\((geometry.arenaSize + 1 << 19) >> 20) MiB" }

    /// Makes the pool in its place, as large as a format for `logSize` would make it, and closes this one. The oldest
    /// batches that are executed may not find room in it; all others must. To be called after `settle`, before anything
    /// rests on this pool.
    /// - Returns: the new pool, open.
    /// - Throws: then this pool is as it was, and stays open; but `.io` after the rename, see `Pool.rename`.
    package func resized(logSize: Int, executed: UInt64) throws(PoolError) -> AcceptorPool {
        let target = path
        let aside = Self.path(resizing: target)
        unlink(aside)
        var isInPlace = false
        defer { if !isInPlace { unlink(aside) } }
        do throws(PoolError) {
            try Self.format(path: aside, identity: identity, size: logSize)
        } catch {
            guard error.kind == .noSpace else { throw error }
            let size = AcceptorGeometry.fileSize(logSize: logSize)
            throw PoolError(
                .noSpace, "\(aside): no room for \(size) bytes beside \(target); free as much on its file system")
        }
        let new = try AcceptorPool(
            in: Pool(opening: aside, layout: AcceptorGeometry.poolLayout), expecting: identity.cluster,
            replica: identity.replica, boot: boot)
        do throws(PoolError) {
            try copy(into: new, executed: executed)
            try new.pool.rename(to: target)
        } catch {
            isInPlace = new.path == target
            new.pool.close()
            throw error
        }
        isInPlace = true
        pool.close()
        return new
    }

    private func copy(into new: AcceptorPool, executed: UInt64) throws(PoolError) {
        var votes: [(instance: UInt64, view: UInt64, batch: Batch)] = []
        forEachEntry { votes.append(($0, $1, $2)) }
        let start = try lowestInstance(of: votes, fitting: new, executed: executed)
        for cell in RecordCell.all where cell != .shutdown && cell != .floor {
            new.write(cell, first: cells[cell.index].first, second: cells[cell.index].second)
        }
        (new.promised, new.established, new.torn) = (promised, established, torn)
        new.fence()
        new.raiseFloor(to: start)
        // In the order in which they lie here, as later views may have brought batches of earlier instances anew.
        for vote in votes.sorted(by: { $0.batch.offset < $1.batch.offset }) where vote.instance >= start {
            guard vote.batch.length > 0 else {
                new.record(instance: vote.instance, view: vote.view, batch: vote.batch)
                continue
            }
            let source = bytes(of: vote.batch)
            guard let place = new.reserve(source.count) else { broken("what is copied was found to fit") }
            place.copyMemory(from: source.baseAddress!, byteCount: source.count)
            let batch = new.seal(source.count, for: vote.instance)
            invariant(batch.checksum == vote.batch.checksum, "a batch that is copied is intact")
            new.record(instance: vote.instance, view: vote.view, batch: batch)
        }
        new.fence()
        new.pool.fenceAll()
    }

    /// From where on the new pool takes everything: from the floor, unless a batch that is executed is damaged, or
    /// there is too little room, of which a sixteenth is left free.
    private func lowestInstance(
        of votes: [(instance: UInt64, view: UInt64, batch: Batch)], fitting new: AcceptorPool, executed: UInt64
    ) throws(PoolError) -> UInt64 {
        var start = floor
        var room = new.capacity - new.capacity / 16
        for (instance, _, batch) in votes.reversed() {
            room -= Int(Arena.rounded(Int(batch.length)))
            guard room >= 0, verify(batch) else {
                start = instance + 1
                break
            }
        }
        if let last = votes.last?.instance, last >= UInt64(new.slotCount) {
            start = max(start, last + 1 - UInt64(new.slotCount))
        }
        guard start <= executed + 1 else {
            throw PoolError(
                .noSpace,
                "\(path): what it holds and is not executed yet does not fit into a smaller log; start the replica with log_size as it was until it has executed that"
            )
        }
        return start
    }

    /// Removes what a crash left. Only the process that has the pool open may do so.
    package func removeLeftovers() { unlink(Self.path(resizing: path)) }
}
