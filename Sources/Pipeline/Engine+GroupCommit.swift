import MPaxosConsensus
import MPaxosStorage

/// Persist, fence, send, durable: the order in which all that a turn has brought about becomes true.
extension Engine {
    /// Makes durable what the steps so far recorded, with one fence, then lets their messages go, until nothing is
    /// left.
    func commit(now: UInt64) {
        repeat {
            var newest: UInt64 = 0
            for record in effects.records {
                switch record.kind {
                case .promise: acceptor.record(promise: record.view)
                case .established: acceptor.record(establishedView: record.view, base: record.instance)
                case .accept:
                    acceptor.record(instance: record.instance, view: record.view, batch: record.batch)
                }
                newest = record.number
            }
            if newest > 0 {
                acceptor.fence()
                board.groupCommits.add(1)
            }
            acceptor.assertFlushed()
            let damaged = sendEffects()
            effects.removeAll()
            if let damaged { giveUpLog(through: damaged, now: now) }
            // A disk takes long enough for the time to matter.
            if newest > 0 {
                let after = acceptor.durability == .msync ? clock.now : now
                core.durable(newest, now: after, into: &effects)
            }
        } while !effects.isEmpty
    }

    func makeRoomForEffects(now: UInt64) {
        if !effects.hasRoom { commit(now: now) }
    }

    /// One frame for a message that goes to several peers.
    /// - Returns: an instance whose batch is not in the log any more as it was accepted.
    func sendEffects() -> UInt64? {
        let sends = effects.sends
        let executed = progress.executed
        var damaged: UInt64?
        var at = 0
        while at < sends.count {
            let message = sends[at].message
            var peers: UInt16 = 0
            repeat {
                peers |= 1 << UInt16(sends[at].to)
                at += 1
            } while at < sends.count && sends[at].message == message && peers & 1 << UInt16(sends[at].to) == 0
            // What was executed long ago, and is sent to who lacks it, may have been damaged since.
            if message.batch.length > 0, message.instance <= executed, !acceptor.verify(message.batch) {
                damaged = max(damaged ?? 0, message.instance)
            } else {
                traffic.send(message, to: peers)
            }
        }
        return damaged
    }

    /// A batch of the log is damaged, and is executed here: who lacks it gets the state in place of the log.
    func giveUpLog(through instance: UInt64, now: UInt64) {
        board.batchesDamaged.add(1)
        logger.error(
            "\(acceptor.path): the batch of instance \(instance), executed long ago, is damaged: the log gives up what lies up to it, and a replica that lacks it takes the whole state; have memory or disk looked at"
        )
        dropOldest(for: 0, instance: instance + UInt64(acceptor.slotCount), now: now)
    }
}
