import Consensus
import PersistentMemory

/// What opening an acceptor.pool does to it.
///
/// Every line carries the number of its group commit. The newest number found belongs to a group that may not have been
/// fenced, so nobody has been told of it: its lines may be missing or torn, and may name batches whose bytes never
/// arrived. Those are removed, and what remains of the group is flushed again, before a line of a newer group is
/// written. All that is older has been fenced: there, anything wrong is damage.
extension AcceptorPool {
    func recover() throws(PoolError) {
        let repairs = try readCells()
        var newest = cells.map(\.epoch).max() ?? 0
        let wasClosed = cells[RecordCell.shutdown.index].first == 1
        promised = cells[RecordCell.promise.index].first
        established = (cells[RecordCell.established.index].first, cells[RecordCell.established.index].second)
        floor = cells[RecordCell.floor.index].first
        var torn: [(slot: Int, side: Int)] = []
        var tail: UInt64 = 0
        // Checked once: there are many lines, and a restart is to be quick.
        var isValid = [Bool](repeating: false, count: 2 * geometry.slots)
        for slot in 0..<geometry.slots {
            for side in 0...1 {
                let line = slots.line(slot, side)
                if line.isValid {
                    isValid[2 * slot + side] = true
                    guard slots.slot(of: line.instance) == slot else {
                        throw PoolError.damagedPool(path, "slot \(slot) holds a vote for instance \(line.instance)")
                    }
                    newest = max(newest, line.epoch)
                    if line.length > 0 { tail = max(tail, line.offset + Arena.rounded(Int(line.length))) }
                } else if !line.isBlank {
                    torn.append((slot, side))
                }
            }
        }
        guard torn.isEmpty || !wasClosed else {
            throw PoolError.damagedPool(
                path, "the vote in slot \(torn[0].slot) is damaged, though the pool was closed in order")
        }
        arena.restore(tail: tail)
        let held = try chooseVotes(newest: newest, isValid: &isValid, torn: &torn)
        try restoreArena(held)
        scrub(torn)
        discardedAtOpen = torn.count
        flushGroup(newest, isValid: isValid)
        epoch = newest + 1
        repair(repairs)
        promiseWhatIsImplied()
        write(.shutdown, first: 0, second: 0)
        fence()
    }

    /// A vote of the group under way, or the record of an established view, may have outlived the promise that it implies. The
    /// core goes on in that view: so the promise must be there when the vote is dropped one day.
    private func promiseWhatIsImplied() {
        var implied = max(promised, established.view)
        for instance in floor..<(floor + UInt64(geometry.slots)) {
            if let vote = slots.vote(for: instance), vote.view != decidedView { implied = max(implied, vote.view) }
        }
        if implied > promised { record(promise: implied) }
    }

    /// - Returns: the cells whose two lines differ.
    private func readCells() throws(PoolError) -> [RecordCell] {
        var repairs: [RecordCell] = []
        for cell in RecordCell.all {
            let primary = (base + cell.primary).load(as: PairedRecord.self)
            let mirror = (base + cell.mirror).load(as: PairedRecord.self)
            guard let reading = PairedRecordReading(primary: primary, mirror: mirror, kind: cell.kind) else {
                throw PoolError.damagedPool(
                    path, "both copies of record \(cell.index) (of the promise, the floor and the like) are damaged")
            }
            cells.append(reading.value)
            if reading.needsRepair { repairs.append(cell) }
        }
        return repairs
    }

    /// Makes the newest good vote of each slot the current one. Adds votes of the newest group whose batch never
    /// arrived to `torn`.
    private func chooseVotes(newest: UInt64, isValid: inout [Bool], torn: inout [(slot: Int, side: Int)])
        throws(PoolError) -> [ArenaRecord]
    {
        var held: [ArenaRecord] = []
        for slot in 0..<geometry.slots {
            var chosen: (line: VoteLine, side: Int)?
            for side in 0...1 {
                let line = slots.line(slot, side)
                guard isValid[2 * slot + side], line.instance >= floor else { continue }
                guard hasSlot(for: line.instance) else {
                    throw PoolError.damagedPool(
                        path, "it holds instance \(line.instance), too far above its floor \(floor)")
                }
                if line.epoch == newest, !hasBytes(line) {
                    torn.append((slot, side))
                    isValid[2 * slot + side] = false
                    continue
                }
                if let other = chosen?.line, (other.view, other.epoch) >= (line.view, line.epoch) { continue }
                chosen = (line, side)
            }
            guard let (line, side) = chosen else { continue }
            slots.setCurrent(slot, side: side, epoch: line.epoch)
            if line.length > 0 { held.append(ArenaRecord(offset: line.offset, instance: line.instance)) }
        }
        return held
    }

    private func hasBytes(_ line: VoteLine) -> Bool {
        guard line.length > 0 else { return true }
        guard line.length <= geometry.arenaSize else { return false }
        return Checksum.of(arena.pointer(at: line.offset), Int(line.length)) == line.batchChecksum
    }

    private func restoreArena(_ held: [ArenaRecord]) throws(PoolError) {
        var end: UInt64 = 0
        let lowest = arena.tail < arena.size ? 0 : arena.tail - arena.size
        for record in held.sorted(by: { $0.offset < $1.offset }) {
            guard let vote = slots.vote(for: record.instance), record.offset >= max(end, lowest),
                record.offset % UInt64(AcceptorGeometry.line) == 0,
                record.offset % arena.size + UInt64(vote.length) <= arena.size
            else {
                throw PoolError.damagedPool(path, "the batch of instance \(record.instance) lies where it cannot")
            }
            end = record.offset + Arena.rounded(Int(vote.length))
            arena.restore(record)
        }
    }

    private func scrub(_ torn: [(slot: Int, side: Int)]) {
        for (slot, side) in torn {
            let address = slots.address(slot, side)
            address.initializeMemory(as: UInt8.self, repeating: 0, count: AcceptorGeometry.line)
            pool.flush(address, AcceptorGeometry.line)
        }
    }

    /// What the newest group wrote may be seen here and still not be durable: the process may have died between store
    /// and flush.
    private func flushGroup(_ newest: UInt64, isValid: [Bool]) {
        for slot in 0..<geometry.slots {
            for side in 0...1 {
                let line = slots.line(slot, side)
                guard isValid[2 * slot + side], line.epoch == newest else { continue }
                pool.flush(slots.address(slot, side), AcceptorGeometry.line)
                if line.instance >= floor, line.length > 0 {
                    pool.flush(arena.pointer(at: line.offset), Int(line.length))
                }
            }
        }
        pool.flush(base + AcceptorGeometry.recordsOffset, AcceptorGeometry.slotsOffset - AcceptorGeometry.recordsOffset)
    }

    /// Primary first, then the mirror behind a fence of its own: a crash in here must find one good line again.
    private func repair(_ damaged: [RecordCell]) {
        for step in 0...1 {
            for cell in damaged {
                let address = base + (step == 0 ? cell.primary : cell.mirror)
                address.storeBytes(of: cells[cell.index], as: PairedRecord.self)
                pool.flush(address, AcceptorGeometry.line)
            }
            pool.fence()
        }
    }

    /// Checks what recovery could not, since only the state pool knows how far this replica has executed: every batch
    /// above `executed` must be intact. A batch at or below it that is gone is no loss: it is executed, and the floor
    /// rises above it.
    package func settle(executed: UInt64) throws(PoolError) {
        var lost: UInt64 = 0
        for instance in floor..<(floor + UInt64(geometry.slots)) {
            guard let vote = slots.vote(for: instance) else {
                if instance <= executed { lost = instance }
                continue
            }
            if instance > executed, !verify(vote.batch) {
                throw PoolError.damagedPool(path, "the batch of instance \(instance), not executed yet, is damaged")
            }
        }
        if executed >= floor + UInt64(geometry.slots) { lost = executed }
        if lost > 0 { raiseFloor(to: lost + 1) }
    }
}
