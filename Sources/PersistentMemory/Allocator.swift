import MPaxosInvariants

/// Which share of the heap a block is charged to.
package enum AllocationClass: Sendable {
    /// What commands store; limited, so that some room is always left.
    case data
    /// What the runtime needs to answer commands; may use everything.
    case reserve
}

/// The heap's allocator: TLSF, in O(1), deterministic, with its records in the data area itself. They are written
/// through the transaction, so allocation is as failure-atomic as the data, is undone with its command, and is part of
/// the digest.
extension Transaction {
    // MARK: Interface

    /// A block of at least `count` bytes, aligned to 16. Its content is what happens to lie there, the same on every
    /// replica.
    /// - Throws: `Refusal.full` when the limit for data is reached or no free piece is large enough.
    public func allocate(_ count: Int) throws(Refusal) -> UInt64 {
        try allocate(count, from: .data)
    }

    /// As `allocate`, charged to the given share.
    package func allocate(_ count: Int, from share: AllocationClass) throws(Refusal) -> UInt64 {
        invariant(count >= 0, "a block has no negative size")
        guard UInt64(count) <= capacity else { throw .full }
        let needed = SizeClass.rounded(max(BlockHeader.smallestBlock, (UInt64(count) + 15) & ~15 + BlockHeader.size))
        if share == .data {
            if dataBytes + needed > dataLimit { throw .full }
            if spare != 0, let block = takeSpare(for: needed) { return block }
        }
        guard let sizeClass = filledClass(from: SizeClass(fitting: needed)) else { throw .full }

        let block = head(of: sizeClass)
        let found = header(block)
        invariant(
            found.isFree && found.isTagged,
            "free lists hold free blocks alone; else the pool is damaged, see mpaxos dump --verify")
        invariant(
            found.size >= needed,
            "free blocks lie in the list of their size; else the pool is damaged, see mpaxos dump --verify")
        unlink(block, from: sizeClass)

        var size = found.size
        if size - needed >= BlockHeader.smallestBlock {
            let rest = block + needed
            setHeader(rest, BlockHeader(size: size - needed, before: needed, isFree: true, isReserve: false))
            setBefore(of: block + size, to: size - needed)
            link(rest, size: size - needed)
            size = needed
        }
        setHeader(block, BlockHeader(size: size, before: found.before, isFree: false, isReserve: share == .reserve))
        charge(Int64(size), to: share)
        // The header and links of the rest lie just above the block.
        let touched = min(block + size + BlockHeader.smallestBlock, self.size)
        if touched > highWater { setWord(AllocatorLayout.highWater, touched) }
        return block + BlockHeader.size
    }

    /// Gives a block back. It must be one that `allocate` returned; anything else stops the process.
    public func free(_ offset: UInt64) {
        var block = checkedBlock(offset)
        let old = header(block)
        charge(-Int64(old.size), to: old.isReserve ? .reserve : .data)

        var size = old.size
        var before = old.before
        let after = block + size
        if after < self.size {
            let next = header(after)
            if next.isFree {
                unlink(after, from: SizeClass(holding: next.size))
                size += next.size
            }
        }
        if before > 0 {
            invariant(
                before <= block - layout.blocks,
                "the block before lies in the heap; else the pool is damaged, see mpaxos dump --verify")
            let previous = header(block - before)
            if previous.isFree {
                block -= before
                unlink(block, from: SizeClass(holding: previous.size))
                size += previous.size
                before = previous.before
            }
        }
        setHeader(block, BlockHeader(size: size, before: before, isFree: true, isReserve: false))
        setBefore(of: block + size, to: size)
        link(block, size: size)
    }

    private func takeSpare(for needed: UInt64) -> UInt64? {
        let size = header(checkedBlock(spare)).size
        guard size >= needed, size - needed < BlockHeader.smallestBlock else { return nil }
        defer { spare = 0 }
        recharge(spare, to: .data)
        return spare
    }

    /// Charges a block to the other share from now on.
    package func recharge(_ offset: UInt64, to share: AllocationClass) {
        let block = checkedBlock(offset)
        let old = header(block)
        invariant(old.isReserve == (share == .data), "a block is recharged to the share that it is not charged to")
        let data = share == .data ? dataBytes + old.size : dataBytes - old.size
        let reserve = share == .data ? reserveBytes - old.size : reserveBytes + old.size
        invariant(
            data <= capacity && reserve <= capacity,
            "no more is charged than was allocated; else the pool is damaged, see mpaxos dump --verify")
        // Both counters with one write.
        sum(AllocatorLayout.dataBytes, data)
        sum(AllocatorLayout.reserveBytes, reserve)
        write(
            (data, reserve),
            to: PersistentPointer<(UInt64, UInt64)>(offset: layout.allocator + AllocatorLayout.dataBytes))
        setHeader(block, BlockHeader(size: old.size, before: old.before, isFree: false, isReserve: share == .reserve))
    }

    /// Bytes that a block can hold: what was asked for, or a little more.
    public func size(of offset: UInt64) -> Int {
        Int(header(checkedBlock(offset)).size - BlockHeader.size)
    }

    /// Bytes that blocks can take together, with their headers.
    package var capacity: UInt64 { size - layout.blocks }
    /// Bytes that blocks of data can take together, with their headers.
    package var dataLimit: UInt64 { capacity - layout.reserveSize }
    /// Bytes of blocks charged to data, with their headers.
    package var dataBytes: UInt64 { word(AllocatorLayout.dataBytes) }
    /// Bytes of blocks charged to the reserve, with their headers.
    package var reserveBytes: UInt64 { word(AllocatorLayout.reserveBytes) }
    /// Nothing at or above this offset was ever written: it is zero.
    package var highWater: UInt64 { word(AllocatorLayout.highWater) }

    /// One free block of everything. Only on a zeroed data area.
    func formatAllocator() {
        invariant(highWater == 0, "a heap is formatted once")
        invariant(capacity >= UInt64(AllocatorLayout.smallest), "a heap has room for a block")
        setHeader(layout.blocks, BlockHeader(size: capacity, before: 0, isFree: true, isReserve: false))
        link(layout.blocks, size: capacity)
        setWord(AllocatorLayout.highWater, layout.blocks + BlockHeader.smallestBlock)
    }

    // MARK: Blocks

    func header(_ block: UInt64) -> BlockHeader { read(PersistentPointer(offset: block)) }

    private func setHeader(_ block: UInt64, _ header: BlockHeader) {
        write(header, to: PersistentPointer(offset: block))
    }

    private func setBefore(of block: UInt64, to before: UInt64) {
        guard block < size else { return }
        var changed = header(block)
        changed.before = before
        setHeader(block, changed)
    }

    private func checkedBlock(_ offset: UInt64) -> UInt64 {
        invariant(
            offset % 16 == 0 && offset >= layout.blocks + BlockHeader.size && offset < size,
            "a block lies in the heap, aligned to 16")
        let found = header(offset - BlockHeader.size)
        invariant(
            !found.isFree && found.isTagged && found.size <= size - (offset - BlockHeader.size),
            "a block is allocated until it is freed")
        return offset - BlockHeader.size
    }

    // MARK: Free lists; a free block's content starts with {next, previous}, 0 for none

    func next(_ block: UInt64) -> UInt64 { read(PersistentPointer(offset: block + 16)) }
    func previous(_ block: UInt64) -> UInt64 { read(PersistentPointer(offset: block + 24)) }
    func head(of sizeClass: SizeClass) -> UInt64 { word(headOffset(sizeClass)) }
    func secondLevelMap(_ first: Int) -> UInt64 { word(AllocatorLayout.secondLevelMaps + UInt64(first) * 8) }
    var firstLevelMap: UInt64 { word(AllocatorLayout.firstLevelMap) }

    private func headOffset(_ sizeClass: SizeClass) -> UInt64 {
        AllocatorLayout.heads + UInt64(sizeClass.first * SizeClass.secondLevels + sizeClass.second) * 8
    }

    /// The lowest class from this one on that has a free block.
    private func filledClass(from wanted: SizeClass) -> SizeClass? {
        let here = secondLevelMap(wanted.first) & (~0 << UInt64(wanted.second))
        if here != 0 {
            return SizeClass(first: wanted.first, second: here.trailingZeroBitCount)
        }
        let above = firstLevelMap & (~0 << UInt64(wanted.first + 1))
        guard above != 0 else { return nil }
        let first = above.trailingZeroBitCount
        let map = secondLevelMap(first)
        invariant(map != 0, "both maps of free lists agree; else the pool is damaged, see mpaxos dump --verify")
        return SizeClass(first: first, second: map.trailingZeroBitCount)
    }

    private func link(_ block: UInt64, size: UInt64) {
        let sizeClass = SizeClass(holding: size)
        let old = head(of: sizeClass)
        write((old, 0 as UInt64), to: PersistentPointer<(UInt64, UInt64)>(offset: block + 16))
        if old != 0 {
            write(block, to: PersistentPointer(offset: old + 24))
        } else {
            let map = secondLevelMap(sizeClass.first)
            setWord(AllocatorLayout.secondLevelMaps + UInt64(sizeClass.first) * 8, map | 1 << UInt64(sizeClass.second))
            if map == 0 { setWord(AllocatorLayout.firstLevelMap, firstLevelMap | 1 << UInt64(sizeClass.first)) }
        }
        setWord(headOffset(sizeClass), block)
    }

    private func unlink(_ block: UInt64, from sizeClass: SizeClass) {
        let (after, before) = (next(block), previous(block))
        if after != 0 { write(before, to: PersistentPointer(offset: after + 24)) }
        if before != 0 {
            write(after, to: PersistentPointer(offset: before + 16))
            return
        }
        invariant(
            head(of: sizeClass) == block,
            "free lists hold free blocks alone; else the pool is damaged, see mpaxos dump --verify")
        setWord(headOffset(sizeClass), after)
        guard after == 0 else { return }
        let map = secondLevelMap(sizeClass.first) & ~(1 << UInt64(sizeClass.second))
        setWord(AllocatorLayout.secondLevelMaps + UInt64(sizeClass.first) * 8, map)
        if map == 0 { setWord(AllocatorLayout.firstLevelMap, firstLevelMap & ~(1 << UInt64(sizeClass.first))) }
    }

    // MARK: Records

    private func word(_ offset: UInt64) -> UInt64 { read(PersistentPointer(offset: layout.allocator + offset)) }
    private func setWord(_ offset: UInt64, _ value: UInt64) {
        sum(offset, value)
        write(value, to: PersistentPointer(offset: layout.allocator + offset))
    }

    /// The sum of all records follows each word that changes; it is stored with the commit.
    @inline(__always)
    private func sum(_ offset: UInt64, _ value: UInt64) {
        allocatorSum &+= (value &- word(offset)) &* AllocatorLayout.weight(offset)
    }

    /// Makes the sum part of a commit. Its line is one already when a record was changed: so was a counter.
    func storeAllocatorSum() {
        if word(AllocatorLayout.sum) != allocatorSum {
            write(allocatorSum, to: PersistentPointer(offset: layout.allocator + AllocatorLayout.sum))
        }
    }

    /// Whether the records are those that were committed last. At open.
    func takeUpAllocatorSum() -> Bool {
        var sum: UInt64 = 0
        for offset in stride(from: 0, to: UInt64(AllocatorLayout.size), by: 8)
        where offset < AllocatorLayout.sum || offset >= AllocatorLayout.secondLevelMaps {
            sum &+= word(offset) &* AllocatorLayout.weight(offset)
        }
        allocatorSum = sum
        return sum == word(AllocatorLayout.sum)
    }

    private func charge(_ bytes: Int64, to share: AllocationClass) {
        let offset = share == .data ? AllocatorLayout.dataBytes : AllocatorLayout.reserveBytes
        let total = Int64(word(offset)) + bytes
        invariant(total >= 0, "no more is freed than was allocated; else the pool is damaged, see mpaxos dump --verify")
        setWord(offset, UInt64(total))
    }
}

extension SizeClass {
    init(first: Int, second: Int) {
        self.first = first
        self.second = second
    }
}
