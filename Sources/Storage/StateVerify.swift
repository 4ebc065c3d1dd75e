import MPaxosConsensus
import MPaxosPersistentMemory

extension StatePool {
    /// The digest of the replicated state at the last commit, and its position. Sessions are part of it, the progress
    /// is not.
    package func currentDigest() -> (position: UInt64, value: UInt64) {
        commit()
        return (position, heap.digest)
    }

    /// Reads all bytes of the state, and compares their digest with the one that was stored with the last commit.
    package func verifyDigest() throws(PoolError) {
        _ = try verifyDigest { true }
    }

    /// Begins to read all bytes of the state, and throws when their digest is not the one that was stored with the last
    /// commit.
    /// - Parameter goesOn: asked after every 16 MiB.
    /// - Returns: whether all were read; else `heap.verifyDigest` goes on from there.
    package func verifyDigest(while goesOn: () -> Bool) throws(PoolError) -> Bool {
        repeat {
            guard let found = heap.verifyDigest(pages: 4096) else { continue }
            guard found == heap.digest else {
                throw PoolError.damagedPool(path, Self.digestsDiffer(found: found, stored: heap.digest))
            }
            return true
        } while goesOn()
        return false
    }

    /// What a digest of the bytes says that is not the one that commits made.
    package static func digestsDiffer(found: UInt64, stored: UInt64) -> String {
        let (found, stored) = (PoolInspection.hexadecimal(found), PoolInspection.hexadecimal(stored))
        return
            "the digest of the bytes of its state is \(found), where its commits have made \(stored): bytes of sessions or values were changed otherwise than by a commit"
    }

    /// Walks the whole heap and compares it with the session table. Trusts nothing it reads, and changes nothing.
    package func verify() throws(PoolError) -> HeapCensus {
        let census = try heap.verify()
        var blocks: [UInt64: Int] = [:]
        var tableIsThere = false
        heap.forEachBlock { offset, size, share in
            if share == .reserve { blocks[offset] = size }
            if offset == root.tableBlock, share == .data {
                tableIsThere =
                    root.table + UInt64(StateLayout.tableSize(sessions: Int(root.capacity))) <= offset + UInt64(size)
            }
        }
        guard tableIsThere else { throw PoolError.damagedPool(path, "the block of the session table is gone") }
        var open: UInt64 = 0
        var stamps: Set<UInt64> = []
        for slot in 0..<Int(root.capacity) {
            let session = table.read(slot)
            guard session.id != 0 else {
                guard session.block == 0 else { throw damagedSession(slot, "free, but has a reply") }
                continue
            }
            open += 1
            try verify(session, in: slot, blocks: &blocks)
            let stamp = table.stamp(slot)
            guard stamp > 0, stamp <= progress.useClock, stamps.insert(stamp).inserted else {
                throw damagedSession(slot, "its last use is \(stamp), where \(progress.useClock) are counted")
            }
        }
        guard open == root.sessions else {
            throw PoolError.damagedPool(path, "\(root.sessions) sessions are counted, but \(open) are there")
        }
        guard blocks.isEmpty else {
            throw PoolError.damagedPool(path, "\(blocks.count) blocks of replies belong to no session")
        }
        return census
    }

    private func verify(_ session: SessionSlot, in slot: Int, blocks: inout [UInt64: Int]) throws(PoolError) {
        guard SessionRules.slot(of: session.id) == slot, slot < Int(root.usedSlots),
            session.id >> SessionRules.slotBits > 0
        else { throw damagedSession(slot, "its id \(session.id) cannot stand there") }
        guard session.position <= root.position, (session.sequence == 0) == (session.position == 0) else {
            throw damagedSession(slot, "its last command is at position \(session.position)")
        }
        let status = OrderedStatus(rawValue: session.status)
        guard status == .ok || status == .full else { throw damagedSession(slot, "its status is \(session.status)") }
        guard session.replyStart == 0 || (session.replyStart >= 16 && session.replyLength > KeptReply.inlineLimit)
        else { throw damagedSession(slot, "its reply begins at byte \(session.replyStart) of its block") }
        if session.block != 0 {
            // Taken out, so that a second session with the same block finds it gone.
            guard let size = blocks.removeValue(forKey: session.block) else {
                throw damagedSession(slot, "its reply lies at \(session.block), where no reply block of its own is")
            }
            if session.replyLength > KeptReply.inlineLimit, Int(session.replyStart) + Int(session.replyLength) > size {
                throw damagedSession(slot, "its reply reaches beyond its block")
            }
        } else if session.replyLength > KeptReply.inlineLimit {
            throw damagedSession(slot, "its reply of \(session.replyLength) bytes is nowhere")
        }
    }

    private func damagedSession(_ slot: Int, _ what: String) -> PoolError {
        PoolError.damagedPool(path, "the session in slot \(slot) is damaged: \(what)")
    }
}
