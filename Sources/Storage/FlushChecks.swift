import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

// The mode that checks flushes, see `FlushCheck`: what the messages of each pool rest on. One branch when it is off.

extension AcceptorPool {
    /// Before a message leaves that rests on records: stops the process when one of them has not reached memory.
    package func assertFlushed() {
        if pool.checksFlushes, let problem = unflushed { halt(problem) }
    }

    /// All records, and the batches of the votes that became durable since the last time.
    @inline(never) var unflushed: String? {
        // Nothing rests on the number of the newest group, which is durable with the next.
        let fenced = AcceptorGeometry.fencedOffset
        for part in [0..<fenced, fenced + AcceptorGeometry.line..<geometry.arenaOffset] {
            if let problem = pool.unflushed(part, "promises and votes") { return problem }
        }
        for offset in pool.takeFencedLines()
        where offset >= AcceptorGeometry.slotsOffset && offset < geometry.arenaOffset {
            let line = (base + offset).load(as: VoteLine.self)
            guard line.isValid, line.length > 0, line.instance >= floor, arena.holds(line.batch) else { continue }
            let start = arena.pointer(at: line.offset) - base
            if let problem = pool.unflushed(start..<start + Int(line.length), "the batch of instance \(line.instance)")
            {
                return problem
            }
        }
        return nil
    }
}

extension StatePool {
    /// Before a reply leaves: stops the process when something of the last commit has not reached memory.
    package func assertFlushed() {
        if pool.checksFlushes, let problem = heap.unflushed { halt(problem) }
    }
}
