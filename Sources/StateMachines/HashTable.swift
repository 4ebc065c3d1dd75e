import MPaxosInvariants

/// The index of a ``PersistentDictionary``: a hash table with chaining that grows and shrinks by linear hashing
/// (Litwin, 1980), one bucket at a time. No command ever pays for a resize: one that adds a key splits two buckets at
/// most, and that touches only their chains.
///
/// It knows nodes, not keys: a node begins with the offset of the next one in its chain, then its key's hash. Buckets
/// are offsets of first nodes, in a ``SegmentDirectory``, so that growing moves none.
///
/// With N buckets and P the largest power of two that is not above N, a hash belongs to bucket `hash mod 2P` if that
/// exists, else to `hash mod P`. Bucket N is made by splitting bucket N - P.
package struct HashTable: BitwiseCopyable, Sendable {
    struct Header: BitwiseCopyable {
        var count: UInt64
        /// Zero until the first key comes.
        var buckets: UInt64
        var directory: UInt64
    }

    struct Node: BitwiseCopyable {
        var next: UInt64
        var hash: UInt64
    }

    /// Keys that collide can be computed by anyone (see `stableHash`). This bounds what it costs: a chain takes no new
    /// key beyond this length. A lookup then reads this many nodes, a split rewrites this many links, and the attacker
    /// has closed one bucket's share of the keys to newcomers. Chance alone gets nowhere near: at the load of one key a
    /// bucket, chains above 20 do not occur.
    package static let longestChain = 1024

    private static let firstBuckets = SegmentDirectory.firstSegmentCapacity
    private static let bucketStride = MemoryLayout<UInt64>.stride
    private static let readAhead = 32
    private static let splitsPerInsertion = 2
    /// The table shrinks below a quarter's load. Four merges a removal keep pace down to zero keys.
    private static let mergesPerRemoval = 4

    let header: PersistentPointer<Header>

    func count(in transaction: Transaction) -> Int { Int(transaction.read(header).count) }

    // MARK: Finding

    /// Where the chain of a hash begins: the place of the offset of its first node; nil while the table has no buckets.
    @inline(__always)
    func chain(of hash: UInt64, in transaction: Transaction) -> PersistentPointer<UInt64>? {
        let state = transaction.read(header)
        guard state.buckets != 0 else { return nil }
        return bucket(Self.bucketIndex(of: hash, among: state.buckets), of: state, in: transaction)
    }

    @inline(__always)
    static func bucketIndex(of hash: UInt64, among buckets: UInt64) -> Int {
        let power = Self.powerOfTwo(notAbove: buckets)
        let fine = hash & (power << 1 &- 1)
        return Int(fine < buckets ? fine : hash & (power &- 1))
    }

    @inline(__always)
    private static func powerOfTwo(notAbove count: UInt64) -> UInt64 { 1 << UInt64(63 &- count.leadingZeroBitCount) }

    @inline(__always)
    private func bucket(_ index: Int, of state: Header, in transaction: Transaction) -> PersistentPointer<UInt64> {
        let directory = SegmentDirectory(offset: state.directory)
        return PersistentPointer(offset: directory.element(index, stride: Self.bucketStride, in: transaction))
    }

    /// Visits every node, bucket by bucket, until `visit` returns false. It may free the node, but not change the
    /// table.
    ///
    /// The first nodes of some buckets are read ahead, one after the other: so the processor waits for many memory
    /// accesses at once and not for each in turn, which makes a walk through a large table several times faster.
    func forEachNode(in transaction: Transaction, _ visit: (UInt64) -> Bool) {
        let state = transaction.read(header)
        withUnsafeTemporaryAllocation(of: (node: UInt64, next: UInt64).self, capacity: Self.readAhead) { first in
            for start in stride(from: 0, to: Int(state.buckets), by: Self.readAhead) {
                let count = min(Self.readAhead, Int(state.buckets) - start)
                for index in 0..<count {
                    let node = transaction.read(bucket(start + index, of: state, in: transaction))
                    first[index] = (node, node == 0 ? 0 : Self.next(of: node, in: transaction))
                }
                for index in 0..<count {
                    var (node, next) = first[index]
                    while node != 0 {
                        if !visit(node) { return }
                        node = next
                        next = node == 0 ? 0 : Self.next(of: node, in: transaction)
                    }
                }
            }
        }
    }

    @inline(__always)
    private static func next(of node: UInt64, in transaction: Transaction) -> UInt64 {
        transaction.read(PersistentPointer<Node>(offset: node)).next
    }

    // MARK: Changing

    /// Makes the first buckets, if there are none. When it throws, nothing has changed.
    func prepare(in transaction: Transaction) throws(Refusal) {
        guard transaction.read(header).buckets == 0 else { return }
        let directory = try SegmentDirectory.allocate(in: transaction)
        do throws(Refusal) {
            try directory.makeRoom(for: 0, stride: Self.bucketStride, in: transaction)
        } catch {
            transaction.free(directory.offset)
            throw error
        }
        let first = directory.element(0, stride: Self.bucketStride, in: transaction)
        transaction.mutableBytes(first, Self.firstBuckets * Self.bucketStride)
            .initializeMemory(as: UInt8.self, repeating: 0)
        transaction.write(
            Header(count: 0, buckets: UInt64(Self.firstBuckets), directory: directory.offset), to: header)
    }

    /// Counts a node that was linked in, and grows the table a step if it is due.
    func nodeWasAdded(in transaction: Transaction) {
        var state = transaction.read(header)
        state.count += 1
        var splits = 0
        while splits < Self.splitsPerInsertion, state.count > state.buckets, split(&state, in: transaction) {
            splits += 1
        }
        transaction.write(state, to: header)
    }

    /// Counts a node that was unlinked, and shrinks the table a step if it is due.
    func nodeWasRemoved(in transaction: Transaction) {
        var state = transaction.read(header)
        invariant(state.count > 0, "a key is removed from a table that has some")
        state.count -= 1
        var merges = 0
        while merges < Self.mergesPerRemoval, state.count < state.buckets / 4, state.buckets > Self.firstBuckets,
            merge(&state, in: transaction)
        { merges += 1 }
        transaction.write(state, to: header)
    }

    /// Frees all buckets. The nodes are the caller's.
    func reset(in transaction: Transaction) {
        let state = transaction.read(header)
        guard state.buckets != 0 else { return }
        SegmentDirectory(offset: state.directory).deallocate(in: transaction)
        transaction.write(Header(count: 0, buckets: 0, directory: 0), to: header)
    }

    /// Makes one more bucket. Returns false when there is no memory for it: the table then serves on with longer
    /// chains.
    private func split(_ state: inout Header, in transaction: Transaction) -> Bool {
        let fresh = Int(state.buckets)
        let directory = SegmentDirectory(offset: state.directory)
        do throws(Refusal) {
            try directory.makeRoom(for: fresh, stride: Self.bucketStride, in: transaction)
        } catch {
            return false
        }
        let power = Self.powerOfTwo(notAbove: state.buckets)
        // Two chains out of one, in the old order; only links that change are written.
        var stays = bucket(fresh - Int(power), of: state, in: transaction)
        var goes = bucket(fresh, of: state, in: transaction)
        var node = transaction.read(stays)
        while node != 0 {
            let content = transaction.read(PersistentPointer<Node>(offset: node))
            if content.hash & power == 0 {
                Self.link(node, at: &stays, in: transaction)
            } else {
                Self.link(node, at: &goes, in: transaction)
            }
            node = content.next
        }
        Self.setLink(stays, to: 0, in: transaction)
        Self.setLink(goes, to: 0, in: transaction)
        state.buckets += 1
        return true
    }

    /// Gives up the last bucket. Returns false when the chain it would make is too long.
    private func merge(_ state: inout Header, in transaction: Transaction) -> Bool {
        let last = Int(state.buckets) - 1
        let power = Self.powerOfTwo(notAbove: UInt64(last))
        let moved = transaction.read(bucket(last, of: state, in: transaction))
        if moved != 0 {
            var length = chainLength(from: moved, in: transaction)
            var end = bucket(last - Int(power), of: state, in: transaction)
            while case let node = transaction.read(end), node != 0 {
                end = PersistentPointer(offset: node)
                length += 1
            }
            guard length <= Self.longestChain else { return false }
            transaction.write(moved, to: end)
        }
        state.buckets -= 1
        SegmentDirectory(offset: state.directory).releaseRoom(above: last, in: transaction)
        return true
    }

    private func chainLength(from node: UInt64, in transaction: Transaction) -> Int {
        var node = node
        var length = 0
        while node != 0 {
            length += 1
            node = Self.next(of: node, in: transaction)
        }
        return length
    }

    @inline(__always)
    private static func link(_ node: UInt64, at end: inout PersistentPointer<UInt64>, in transaction: Transaction) {
        setLink(end, to: node, in: transaction)
        end = PersistentPointer(offset: node)
    }

    @inline(__always)
    private static func setLink(_ link: PersistentPointer<UInt64>, to node: UInt64, in transaction: Transaction) {
        if transaction.read(link) != node { transaction.write(node, to: link) }
    }
}
