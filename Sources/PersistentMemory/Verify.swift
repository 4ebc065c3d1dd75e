import MPaxosInvariants

/// What a walk over all blocks of a heap found.
package struct HeapCensus: Equatable, Sendable {
    package var allocatedBlocks = 0
    package var freeBlocks = 0
    /// Bytes with headers.
    package var dataBytes: UInt64 = 0
    package var reserveBytes: UInt64 = 0
    package var freeBytes: UInt64 = 0
    package var largestFreeBlock: UInt64 = 0
}

extension Heap {
    /// Walks every block and every free list and compares them with each other and with the counters. Takes time in
    /// proportion to the number of blocks; trusts nothing it reads.
    package func verify() throws(PoolError) -> HeapCensus {
        let census = try walkBlocks()
        try walkFreeLists(expecting: census)
        guard census.dataBytes == transaction.dataBytes, census.reserveBytes == transaction.reserveBytes else {
            throw damage(
                "the counters say \(transaction.dataBytes) and \(transaction.reserveBytes) bytes, the blocks \(census.dataBytes) and \(census.reserveBytes)"
            )
        }
        guard transaction.highWater <= transaction.size else { throw damage("the high-water mark lies outside") }
        return census
    }

    /// Calls with the offset and usable size of every allocated block, in memory order; of a heap that `verify`
    /// accepts.
    package func forEachBlock(_ body: (_ offset: UInt64, _ size: Int, _ share: AllocationClass) -> Void) {
        var block = transaction.layout.blocks
        while block < transaction.size {
            let header = transaction.header(block)
            invariant(
                header.isTagged && header.size >= BlockHeader.smallestBlock, "a heap is verified before it is walked")
            if !header.isFree {
                body(block + BlockHeader.size, Int(header.size - BlockHeader.size), header.isReserve ? .reserve : .data)
            }
            block += header.size
        }
    }

    private func walkBlocks() throws(PoolError) -> HeapCensus {
        var census = HeapCensus()
        var block = transaction.layout.blocks
        var before: UInt64 = 0
        var beforeIsFree = false
        while block < transaction.size {
            let header = transaction.header(block)
            guard header.isTagged, header.size >= BlockHeader.smallestBlock, header.size <= transaction.size - block
            else {
                throw damage("the block at \(block) has no valid header")
            }
            guard header.before == before else {
                throw damage("the block at \(block) disagrees with the one before it")
            }
            if header.isFree {
                guard !beforeIsFree else { throw damage("two free blocks side by side at \(block)") }
                census.freeBlocks += 1
                census.freeBytes += header.size
                census.largestFreeBlock = max(census.largestFreeBlock, header.size)
            } else {
                census.allocatedBlocks += 1
                if header.isReserve { census.reserveBytes += header.size } else { census.dataBytes += header.size }
                guard block + header.size <= transaction.highWater else {
                    throw damage("the block at \(block) lies above the high-water mark")
                }
            }
            before = header.size
            beforeIsFree = header.isFree
            block += header.size
        }
        return census
    }

    private func walkFreeLists(expecting census: HeapCensus) throws(PoolError) {
        var (blocks, bytes) = (0, 0 as UInt64)
        for first in 0..<SizeClass.firstLevels {
            let map = transaction.secondLevelMap(first)
            guard (map != 0) == (transaction.firstLevelMap >> UInt64(first) & 1 == 1), map >> 32 == 0 else {
                throw damage("the maps of free lists disagree at level \(first)")
            }
            for second in 0..<SizeClass.secondLevels {
                let sizeClass = SizeClass(first: first, second: second)
                var block = transaction.head(of: sizeClass)
                guard (block != 0) == (map >> UInt64(second) & 1 == 1) else {
                    throw damage("free list \(first),\(second) disagrees with its map")
                }
                var previous: UInt64 = 0
                while block != 0 {
                    guard block % 16 == 0, block >= transaction.layout.blocks,
                        block <= transaction.size - BlockHeader.smallestBlock
                    else { throw damage("free list \(first),\(second) leads to \(block)") }
                    let header = transaction.header(block)
                    guard header.isFree, header.isTagged, header.size >= BlockHeader.smallestBlock,
                        header.size <= transaction.size - block, SizeClass(holding: header.size) == sizeClass,
                        transaction.previous(block) == previous
                    else { throw damage("free list \(first),\(second) holds a wrong block at \(block)") }
                    blocks += 1
                    bytes += header.size
                    guard blocks <= census.freeBlocks else {
                        throw damage("the free lists hold more blocks than there are")
                    }
                    previous = block
                    block = transaction.next(block)
                }
            }
        }
        guard blocks == census.freeBlocks, bytes == census.freeBytes else {
            throw damage("\(census.freeBlocks) free blocks, but \(blocks) in the lists")
        }
    }

    private func damage(_ what: String) -> PoolError {
        PoolError(.damaged, "\(path): the heap is damaged: \(what); \(PoolError.restoreAdvice)")
    }
}
