import MPaxosConsensus
import MPaxosPersistentMemory

/// A vote that recovery dropped: nobody had been told of it, unless memory lost what it had taken.
package struct TornVote: Sendable, CustomStringConvertible {
    package enum Part: Sendable {
        /// The line of the vote itself.
        case line
        /// The bytes of its batch.
        case batch
    }

    package let slot: Int
    let side: Int
    /// nil when the line does not tell one.
    package let instance: UInt64?
    package let part: Part

    package var description: String {
        let instance = instance.map { "for instance \($0)" } ?? "for an instance that cannot be read"
        return
            "the vote \(instance) in slot \(slot) (\(part == .line ? "its line is torn" : "its batch never arrived"))"
    }
}

/// What opening an acceptor.pool does to it.
///
/// Every line carries the number of its group commit. The newest number found belongs to a group that may not have been
/// fenced, so nobody has been told of it: its lines may be missing or torn, and may name batches whose bytes never
/// arrived. Those are removed, and what remains of the group is flushed again, before a line of a newer group is
/// written. All that is older has been fenced: there, anything wrong is damage.
///
/// While the machine runs on, the end of a process costs no store that it made. Then it is known which group was fenced
/// last, and torn can only be the one line of the next group that was being written: whose first word says so. All else
/// is damage. After a loss of power any line of the group may be torn, and one that is damaged cannot be told from
/// them.
extension AcceptorPool {
    func recover() throws(PoolError) {
        let repairs = try readCells()
        let fenced = try readFenced()
        let shutdown = cells[RecordCell.shutdown.index]
        var newest = max(fenced, cells.map(\.epoch).max() ?? 0)
        promised = cells[RecordCell.promise.index].first
        established = (cells[RecordCell.established.index].first, cells[RecordCell.established.index].second)
        floor = cells[RecordCell.floor.index].first
        guard recordedFounding != nil else {
            throw PoolError.damagedPool(path, "the record of how far the founding of the cluster is, is damaged")
        }
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
                    let instance = slots.slot(of: line.instance) == slot && line.instance > 0 ? line.instance : nil
                    torn.append(TornVote(slot: slot, side: side, instance: instance, part: .line))
                }
            }
        }
        // A group beyond the next one: what the machine had taken was lost though it runs on, as by a disk that was
        // pulled out.
        let runsOn = boot != 0 && shutdown.second == boot && newest <= fenced + 1
        try checkTorn(fenced: fenced, runsOn: runsOn, wasClosed: shutdown.first == 1)
        arena.restore(tail: tail)
        // Where the machine runs on, or the group was fenced, a batch was there before its vote.
        let held = try chooseVotes(unfenced: runsOn || newest == fenced ? nil : newest, isValid: &isValid)
        try restoreArena(held)
        for vote in torn { pool.clearLine(slots.address(vote.slot, vote.side)) }
        flushGroup(newest, isValid: isValid)
        pool.fence()
        epoch = newest
        noteFenced()
        epoch = newest + 1
        repair(repairs)
        promiseWhatIsImplied()
        write(.shutdown, first: 0, second: boot)
        fence()
    }

    /// Whether the lines that are not whole can all have been under way when the pool was left.
    private func checkTorn(fenced: UInt64, runsOn: Bool, wasClosed: Bool) throws(PoolError) {
        for (index, vote) in torn.enumerated() {
            if wasClosed { throw damaged(vote, "though the pool was closed in order") }
            guard runsOn else { continue }
            guard slots.line(vote.slot, vote.side).epoch == fenced + 1 else {
                throw damaged(vote, "and it was not the one that was being written")
            }
            if index > 0 { throw damaged(vote, "and so is another: only one can have been written last") }
        }
    }

    private func damaged(_ vote: TornVote, _ why: String) -> PoolError {
        let instance = vote.instance.map { " (of instance \($0), by what can be read of it)" } ?? ""
        let place =
            AcceptorGeometry.slotsOffset + vote.slot * AcceptorGeometry.slotSize
            + vote.side * AcceptorGeometry.line
        return PoolError.damagedPool(
            path, "the vote in slot \(vote.slot)\(instance), at offset \(place) of the region, is damaged, \(why)")
    }

    private func readFenced() throws(PoolError) -> UInt64 {
        guard let fenced = (base + AcceptorGeometry.fencedOffset).load(as: CheckedNumber.self).number, fenced > 0 else {
            throw PoolError.damagedPool(
                path,
                "the number of its newest group commit, at offset \(AcceptorGeometry.fencedOffset) of the region, is damaged"
            )
        }
        return fenced
    }

    /// A vote of the group under way, or the record of an established view, may have outlived the promise that it
    /// implies. The core goes on in that view: so the promise must be there when the vote is dropped one day.
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

    /// Makes the newest good vote of each slot the current one. Adds votes of the group that may not have been fenced
    /// whose batch never arrived to `torn`.
    private func chooseVotes(unfenced: UInt64?, isValid: inout [Bool]) throws(PoolError) -> [ArenaRecord] {
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
                if line.epoch == unfenced, !hasBytes(line) {
                    torn.append(TornVote(slot: slot, side: side, instance: line.instance, part: .batch))
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
