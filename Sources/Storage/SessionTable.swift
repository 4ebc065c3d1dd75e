import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// The sessions and their kept replies: the table in the heap, the stamps in its progress, and in DRAM what finds a
/// free slot and the session used longest ago. The replicas' tables are equal slot by slot: the lowest free slot is
/// taken, and a full table gives the slot of the session used longest ago to the new one.
///
/// A class, so that its owner reaches it without counting references to what it holds.
final class SessionTable {
    private let transaction: Transaction
    private let table: UInt64
    let capacity: Int
    private let free: FreeSlots
    private let order: UseOrder
    @exclusivity(unchecked) private var knowsFree = false
    @exclusivity(unchecked) private var knowsOrder = false

    init(in transaction: Transaction, root: StateRoot) {
        invariant(
            root.capacity > 0 && root.capacity <= UInt32(SessionRules.slotLimit), "a table has 1 to 1,048,576 slots")
        invariant(MemoryLayout<SessionSlot>.size == SessionSlot.size, "a session has no padding")
        self.transaction = transaction
        table = root.table
        capacity = Int(root.capacity)
        free = FreeSlots(capacity: capacity)
        order = UseOrder(capacity: capacity)
    }

    deinit {
        free.deallocate()
        order.deallocate()
    }

    // MARK: Access

    private func place(_ slot: Int) -> UInt64 {
        invariant(slot >= 0 && slot < capacity, "a session's slot is one of the table's")
        return table + UInt64(slot * StateLayout.slotSize)
    }

    @inline(__always)
    func read(_ slot: Int) -> SessionSlot { transaction.read(PersistentPointer(offset: place(slot))) }

    /// The last sequence of a session, without the rest of it.
    @inline(__always)
    func sequence(of slot: Int) -> UInt64 {
        transaction.read(PersistentPointer(offset: place(slot) + SessionSlot.sequenceOffset))
    }

    func write(_ value: SessionSlot, to slot: Int) {
        transaction.write(value, to: PersistentPointer(offset: place(slot)))
    }

    /// The count of uses at the session's last use.
    func stamp(_ slot: Int) -> UInt64 {
        guard let later = laterStamp(slot) else { broken("stamps are checked when the pool is opened") }
        return max(read(slot).stamp, later)
    }

    /// The stamp of the last use without a new reply; 0 where there was none, nil where it is damaged.
    private func laterStamp(_ slot: Int) -> UInt64? {
        let stamp: CheckedNumber = transaction.read(stampPlace(slot))
        return stamp.word == 0 ? 0 : stamp.number
    }

    private func stampPlace(_ slot: Int) -> PersistentPointer<CheckedNumber> {
        PersistentPointer(offset: StateLayout.stampsOffset + 8 * UInt64(slot))
    }

    /// A slot whose stamp is damaged.
    var slotOfDamagedStamp: Int? { (0..<capacity).first { laterStamp($0) == nil } }

    /// The slot of a session that is open.
    @inline(__always)
    func find(_ session: UInt64, root: StateRoot) -> Int? {
        guard session != 0 else { return nil }
        let slot = SessionRules.slot(of: session)
        guard slot < Int(root.usedSlots) else { return nil }
        let id: UInt64 = transaction.read(PersistentPointer(offset: place(slot)))
        return id == session ? slot : nil
    }

    /// A hint that a session will be used: see `Transaction.prefetch`.
    func prefetch(_ session: UInt64, step: Int) {
        let slot = SessionRules.slot(of: session)
        guard slot < capacity else { return }
        if step == 0 {
            transaction.prefetch(place(slot), StateLayout.lineSize)
        } else if step == 1 {
            // The reply to come is likely as long as the last one.
            let kept = read(slot)
            let count = Int(kept.replyLength)
            if count <= KeptReply.inlineLimit {
                transaction.prefetch(
                    place(slot) + UInt64(StateLayout.lineSize), SessionSlot.size + count - StateLayout.lineSize)
            } else {
                // Not all of a long one: its later lines follow by themselves.
                transaction.prefetch(kept.block, min(count, 256))
            }
        }
    }

    /// The kept reply, where it lies.
    func reply(of slot: Int) -> UnsafeRawBufferPointer {
        let kept = read(slot)
        let count = Int(kept.replyLength)
        if count <= KeptReply.inlineLimit { return transaction.bytes(place(slot) + UInt64(SessionSlot.size), count) }
        return transaction.bytes(kept.block + UInt64(kept.replyStart), count)
    }

    /// The block of the kept reply; 0: none.
    @inline(__always)
    func block(of slot: Int) -> UInt64 {
        transaction.read(PersistentPointer(offset: place(slot) + SessionSlot.blockOffset))
    }

    // MARK: Changes

    /// A use without a new reply: the session is now the last to be evicted.
    func touch(_ slot: Int, clock: UInt64) {
        invariant(clock > 0, "uses are counted from 1")
        transaction.write(CheckedNumber(clock), to: stampPlace(slot))
        if knowsOrder { order.touch(slot) }
    }

    /// Puts a new session into the table, in place of another one when it is full.
    /// - Parameter seed: of its id, see `SessionRules`.
    func open(root: inout StateRoot, seed: UInt64, clock: UInt64) -> UInt64 {
        root.openings += 1
        let slot: Int
        if root.sessions == UInt64(root.capacity) {
            slot = evict()
        } else {
            slot = takeFree(&root)
            root.sessions += 1
        }
        var fresh = SessionSlot()
        fresh.id = SessionRules.id(opening: root.openings, slot: slot, seed: seed)
        fresh.stamp = clock
        write(fresh, to: slot)
        if knowsOrder { order.touch(slot) }
        return fresh.id
    }

    func close(_ slot: Int, root: inout StateRoot) {
        invariant(root.sessions > 0, "a session that is closed was counted")
        releaseBlock(of: slot)
        write(SessionSlot(), to: slot)
        root.sessions -= 1
        if knowsOrder { order.remove(slot) }
        if knowsFree { free.insert(slot) }
    }

    private func evict() -> Int {
        if !knowsOrder { learnOrder() }
        guard let slot = order.oldest else { broken("a full table has a session to evict") }
        releaseBlock(of: slot)
        return slot
    }

    private func takeFree(_ root: inout StateRoot) -> Int {
        if root.sessions == root.usedSlots {
            invariant(root.usedSlots < UInt64(root.capacity), "a table that is not full has a free slot")
            root.usedSlots += 1
            return Int(root.usedSlots) - 1
        }
        if !knowsFree { learnFree(root) }
        guard let slot = free.takeLowest() else {
            broken("free slots that were counted are there")
        }
        return slot
    }

    private func releaseBlock(of slot: Int) {
        let block = block(of: slot)
        if block != 0 { transaction.free(block) }
    }

    /// What the machine leaves as the reply of a command.
    enum NewReply {
        case bytes(UnsafeRawBufferPointer)
        /// A reply in a block that the machine gives up.
        case slice(BlockSlice)
    }

    /// Keeps the reply of a session's command, which is a use of the session. Part of the command: on a refusal its
    /// owner rolls back.
    ///
    /// - Parameter blockIsTaken: the session's block was the command's spare, and the machine took it.
    func keep(
        _ reply: NewReply, blockIsTaken: Bool = false, status: OrderedStatus, sequence: UInt64, position: UInt64,
        clock: UInt64, in slot: Int
    ) throws(Refusal) {
        invariant(clock > 0, "uses are counted from 1")
        var new = read(slot)
        invariant(!blockIsTaken || new.block != 0, "a block that is taken was the session's")
        new.sequence = sequence
        new.position = position
        new.status = status.rawValue
        new.stamp = clock
        if blockIsTaken { new.block = 0 }
        switch reply {
        case .bytes(let bytes): try keep(bytes, &new, in: slot)
        case .slice(let slice): keep(slice, &new, in: slot)
        }
        if knowsOrder { order.touch(slot) }
    }

    private func keep(_ reply: UnsafeRawBufferPointer, _ new: inout SessionSlot, in slot: Int) throws(Refusal) {
        new.replyLength = UInt32(reply.count)
        new.replyStart = 0
        if new.block != 0, !KeptReply.keepsBlock(capacity: transaction.size(of: new.block), for: reply.count) {
            transaction.free(new.block)
            new.block = 0
        }
        if reply.count <= KeptReply.inlineLimit {
            let bytes = transaction.mutableBytes(place(slot), SessionSlot.size + reply.count)
            bytes.storeBytes(of: new, as: SessionSlot.self)
            UnsafeMutableRawBufferPointer(rebasing: bytes[SessionSlot.size...]).copyMemory(from: reply)
            return
        }
        if new.block == 0 {
            new.block = try transaction.allocate(KeptReply.blockSize(for: reply.count), from: .reserve)
        }
        transaction.mutableBytes(new.block, reply.count).copyMemory(from: reply)
        write(new, to: slot)
    }

    private func keep(_ reply: BlockSlice, _ new: inout SessionSlot, in slot: Int) {
        invariant(reply.count > KeptReply.inlineLimit, "a short reply lies in the slot")
        if new.block != 0 { transaction.free(new.block) }
        transaction.recharge(reply.block, to: .reserve)
        new.block = reply.block
        new.replyStart = UInt16(reply.start)
        new.replyLength = UInt32(reply.count)
        write(new, to: slot)
    }

    // MARK: What is kept in DRAM

    /// Not at open, which must be quick: only a table with gaps needs it, and only at the next OPEN.
    private func learnFree(_ root: StateRoot) {
        for slot in 0..<Int(root.usedSlots) where read(slot).id == 0 { free.insert(slot) }
        knowsFree = true
    }

    /// The order is not built at the open either: only a full table needs it.
    private func learnOrder() {
        var uses: [(stamp: UInt64, slot: Int)] = []
        uses.reserveCapacity(capacity)
        for slot in 0..<capacity where read(slot).id != 0 { uses.append((stamp(slot), slot)) }
        uses.sort { $0.stamp < $1.stamp }
        for use in uses { order.touch(use.slot) }
        knowsOrder = true
    }
}
