import MPaxosConsensus
import MPaxosInvariants

/// The lives of this replica and of its peers, see `Life`.
///
/// Both pools know the boot count, so that one of them that comes from an earlier time is found at the open. They
/// change in three steps, each durable before the next: the log says which start begins, the state takes its count, the
/// log takes the life. So after a crash in between the state may be one start ahead of the log's life where the log
/// says that this start had begun, and in no other case do they differ.
extension AcceptorPool {
    /// The life of the last start on record; `Life.none` at format.
    package var life: Life {
        let cell = cells[RecordCell.life.index]
        return Life(bootCount: cell.first, nonce: cell.second)
    }

    /// The nonces of the lives before this one, the latest first: those that are still on record.
    package var ancestors: [UInt64] {
        let count = min(life.bootCount, UInt64(Life.mostAncestors) + 1)
        return (1..<max(count, 1)).map { back in
            let (index, isSecond) = RecordCell.nonce(of: life.bootCount - back)
            return isSecond ? cells[index.index].second : cells[index.index].first
        }
    }

    /// A peer has met a later life than this one: the pools are never to be used again.
    package var isExpelled: Bool { cells[RecordCell.begun.index].second != 0 }

    /// The expulsion is durable on return.
    package func expel() {
        write(.begun, first: cells[RecordCell.begun.index].first, second: 1)
        fence()
    }

    /// Whether a state pool that was started so often belongs to this log as it is now.
    package func belongs(toStateStarted bootCount: UInt64) -> Bool {
        life.belongs(toStateStarted: bootCount, begun: cells[RecordCell.begun.index].first)
    }

    /// The first step of a start: it is durable on return.
    package func begin(start bootCount: UInt64) {
        invariant(bootCount == life.bootCount + 1, "starts are counted one by one")
        write(.begun, first: bootCount, second: 0)
        fence()
    }

    /// The last step of a start: it is durable on return, and before that nothing may be said to anybody.
    package func record(life: Life) {
        invariant(life.isSound, "a replica starts with a count and a nonce")
        invariant(cells[RecordCell.begun.index].first == life.bootCount, "a life is that of the start that was begun")
        write(.life, first: life.bootCount, second: life.nonce)
        let (cell, isSecond) = RecordCell.nonce(of: life.bootCount)
        let (first, second) = (cells[cell.index].first, cells[cell.index].second)
        write(cell, first: isSecond ? first : life.nonce, second: isSecond ? life.nonce : second)
        fence()
    }

    /// The last life in which a peer was met; `Life.none` for one never met.
    package func life(of peer: UInt16) -> Life {
        guard let index = place(of: peer) else { return .none }
        let cell = cells[RecordCell.peerLife(index).index]
        return Life(bootCount: cell.first, nonce: cell.second)
    }

    /// The last life of a peer that was refused as an earlier one; `Life.none` where none was.
    package func refusedLife(of peer: UInt16) -> Life {
        guard let index = place(of: peer) else { return .none }
        let cell = cells[RecordCell.refusedLife(index).index]
        return Life(bootCount: cell.first, nonce: cell.second)
    }

    /// Durable on return. The peer's incarnation must be on record.
    package func record(refusedLife life: Life, of peer: UInt16) {
        guard let index = place(of: peer) else { broken("the incarnation of a peer is on record before its lives") }
        write(.refusedLife(index), first: life.bootCount, second: life.nonce)
        fence()
    }

    /// Counts after the next fence. The peer's incarnation must be on record.
    package func record(life: Life, of peer: UInt16) {
        guard let index = place(of: peer) else { broken("the incarnation of a peer is on record before its life") }
        invariant(life.bootCount >= self.life(of: peer).bootCount, "the last life that was met never goes back")
        write(.peerLife(index), first: life.bootCount, second: life.nonce)
    }
}
