import MPaxosInvariants

/// A dictionary from bytes to bytes in persistent memory.
///
/// A handle of 64 bytes, empty where those are zero. Every operation but ``forEach(in:_:)`` and ``removeAll(in:)`` does
/// a bounded piece of work, whatever the size of the dictionary: it grows and shrinks one bucket at a time (see
/// `HashTable`).
///
/// To do several things to one key, find it once:
/// ```swift
/// let place = accounts.locate(key, in: transaction)
/// if let old = accounts.value(at: place, in: transaction) { reply.append(bytes: old) }
/// try accounts.store(value, for: key, at: place, in: transaction)
/// ```
/// Buffers that it returns lie in the store: they are valid until the next change of the dictionary, and may be passed
/// back to it.
///
/// A key and its value share one block of the heap. Values of equal length replace each other in place, without
/// allocating, and so do shorter ones: that cannot fail. Keys that collide can be made on purpose; a store refuses a
/// new key where 1,024 share a bucket.
public struct PersistentDictionary: BitwiseCopyable, Sendable {
    /// How many bytes it takes at the offset it is given.
    public static var footprint: Int { 64 }

    /// Where a key is, or would be put. Valid until the next change of the dictionary.
    public struct Location: BitwiseCopyable {
        /// The place of the offset of `entry`: in the bucket, or in the entry before. Null while the dictionary has no
        /// buckets.
        fileprivate let link: PersistentPointer<UInt64>
        /// 0 when the key is absent.
        fileprivate let entry: UInt64
        fileprivate let hash: UInt64
        /// How many other entries stand before it in the chain.
        fileprivate let depth: Int

        /// Whether the dictionary holds the key.
        public var isPresent: Bool { entry != 0 }
    }

    /// What an entry's block begins with; the key follows, then the value. The first two fields are a `HashTable.Node`.
    private struct Entry: BitwiseCopyable {
        var next: UInt64
        var hash: UInt64
        var keyLength: UInt32
        var valueLength: UInt32

        static let size = 24
        static let valueLengthOffset: UInt64 = 20

        @inline(__always) var valueOffset: UInt64 { UInt64(Self.size) + UInt64(keyLength) }
        @inline(__always) var length: Int { Self.size + Int(keyLength) + Int(valueLength) }
    }

    private let table: HashTable

    /// The dictionary at an offset, aligned to 8, of ``footprint`` bytes that were zero when the dictionary was first
    /// used.
    public init(at offset: UInt64) {
        invariant(offset != 0 && offset % 8 == 0, "a dictionary lies at an offset that is aligned to 8")
        invariant(MemoryLayout<Entry>.size == Entry.size, "entries have no padding")
        table = HashTable(header: PersistentPointer(offset: offset))
    }

    /// How many keys it holds.
    public func count(in transaction: Transaction) -> Int { table.count(in: transaction) }

    // MARK: By key

    /// The value of a key; nil when it is absent.
    public func value(for key: UnsafeRawBufferPointer, in transaction: Transaction) -> UnsafeRawBufferPointer? {
        value(at: locate(key, in: transaction), in: transaction)
    }

    /// Sets the value of a key, new or not; when the store is full it throws, and nothing has changed.
    public func setValue(
        _ value: UnsafeRawBufferPointer, for key: UnsafeRawBufferPointer, in transaction: Transaction
    ) throws(Refusal) {
        try store(value, for: key, at: locate(key, in: transaction), in: transaction)
    }

    /// Removes a key and its value, and frees their memory. Returns false when the key is absent.
    @discardableResult
    public func removeValue(for key: UnsafeRawBufferPointer, in transaction: Transaction) -> Bool {
        let location = locate(key, in: transaction)
        if location.isPresent { remove(at: location, in: transaction) }
        return location.isPresent
    }

    /// Visits all keys and values, in no particular order but the same on every replica, until `visit` returns false.
    ///
    /// It takes time in proportion to the dictionary's size. `visit` must not change the dictionary.
    public func forEach(
        in transaction: Transaction, _ visit: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool
    ) {
        table.forEachNode(in: transaction) { offset in
            let entry = Self.entry(offset, in: transaction)
            let block = transaction.bytes(offset, entry.length)
            let valueStart = Int(entry.valueOffset)
            return visit(
                UnsafeRawBufferPointer(rebasing: block[Entry.size..<valueStart]),
                UnsafeRawBufferPointer(rebasing: block[valueStart...]))
        }
    }

    // MARK: By location

    /// Finds a key, or the place for it.
    public func locate(_ key: UnsafeRawBufferPointer, in transaction: Transaction) -> Location {
        let hash = stableHash(key)
        guard var link = table.chain(of: hash, in: transaction) else {
            return Location(link: .null, entry: 0, hash: hash, depth: 0)
        }
        var depth = 0
        var offset = transaction.read(link)
        while offset != 0 {
            let entry = Self.entry(offset, in: transaction)
            if entry.hash == hash && Int(entry.keyLength) == key.count
                && bytesAreEqual(transaction.bytes(offset + UInt64(Entry.size), key.count), key)
            {
                break
            }
            link = PersistentPointer(offset: offset)
            offset = entry.next
            depth += 1
        }
        return Location(link: link, entry: offset, hash: hash, depth: depth)
    }

    /// Begins to fetch what `locate` will need for a key, without waiting: call it for several keys, first all with
    /// step 0, which fetches their buckets, then all with step 1, which fetches the first entry of each, then all with
    /// step 2, which fetches the second where the first is another key's.
    ///
    /// - Parameter hint: what step 0 leaves for the other steps: the key's hash.
    public func prefetch(
        _ key: UnsafeRawBufferPointer, step: Int, hint hash: inout UInt64, in transaction: Transaction
    ) {
        if step == 0 { hash = stableHash(key) }
        guard let link = table.chain(of: hash, in: transaction) else { return }
        if step == 0 {
            transaction.prefetch(link.offset, MemoryLayout<UInt64>.size)
            return
        }
        let first = transaction.read(link)
        if step == 1 {
            transaction.prefetch(first, Self.prefetchedBytes)
        } else if first != 0 {
            let entry = Self.entry(first, in: transaction)
            if entry.hash != hash { transaction.prefetch(entry.next, Self.prefetchedBytes) }
        }
    }

    /// An entry with a short key and value, and the header of the block behind it.
    private static var prefetchedBytes: Int { 192 }

    /// The value at a location; nil when the key is absent.
    public func value(at location: Location, in transaction: Transaction) -> UnsafeRawBufferPointer? {
        guard location.isPresent else { return nil }
        let entry = Self.entry(location.entry, in: transaction)
        return transaction.bytes(location.entry + entry.valueOffset, Int(entry.valueLength))
    }

    /// The value at a location, to be changed in place, all of it; nil when the key is absent.
    public func mutableValue(at location: Location, in transaction: Transaction) -> UnsafeMutableRawBufferPointer? {
        guard location.isPresent else { return nil }
        let entry = Self.entry(location.entry, in: transaction)
        return transaction.mutableBytes(location.entry + entry.valueOffset, Int(entry.valueLength))
    }

    /// Sets the value of the key that `location` was found for; when the store is full it throws, and nothing has
    /// changed.
    ///
    /// In place, and without a way to fail, when the key is there and the value is not longer than the one before.
    public func store(
        _ value: UnsafeRawBufferPointer, for key: UnsafeRawBufferPointer, at location: Location,
        in transaction: Transaction
    ) throws(Refusal) {
        guard location.isPresent else { return try insert(key, value, at: location, in: transaction) }
        let entry = Self.entry(location.entry, in: transaction)
        if Int(entry.valueLength) == value.count {
            copyBytes(value, to: transaction.mutableBytes(location.entry + entry.valueOffset, value.count))
            return
        }
        let needed = Self.blockLength(key, value.count)
        let room = transaction.size(of: location.entry)
        let fits = needed <= room
        if !fits || Self.wastes(room, holding: needed) {
            do throws(Refusal) {
                let replacement = try transaction.allocate(needed)
                Self.fill(replacement, after: entry, key, value, in: transaction)
                transaction.write(replacement, to: location.link)
                transaction.free(location.entry)
                return
            } catch {
                if !fits { throw error }
            }
        }
        Self.setValueLength(UInt32(value.count), of: location.entry, in: transaction)
        copyBytes(value, to: transaction.mutableBytes(location.entry + entry.valueOffset, value.count))
    }

    /// Appends to the value of the key that `location` was found for, which is empty when absent; when the store is
    /// full it throws, and nothing has changed.
    ///
    /// A value that is appended to gets room to spare, so that appending takes time in proportion to what is appended,
    /// seen over many calls.
    public func append(
        _ suffix: UnsafeRawBufferPointer, for key: UnsafeRawBufferPointer, at location: Location,
        in transaction: Transaction
    ) throws(Refusal) {
        guard location.isPresent else { return try insert(key, suffix, at: location, in: transaction) }
        let entry = Self.entry(location.entry, in: transaction)
        let oldLength = Int(entry.valueLength)
        let needed = Self.blockLength(key, oldLength + suffix.count)
        if needed <= transaction.size(of: location.entry) {
            Self.setValueLength(UInt32(oldLength + suffix.count), of: location.entry, in: transaction)
            copyBytes(
                suffix,
                to: transaction.mutableBytes(location.entry + entry.valueOffset + UInt64(oldLength), suffix.count))
            return
        }
        let replacement: UInt64
        do throws(Refusal) {
            replacement = try transaction.allocate(needed + needed / 2)
        } catch {
            replacement = try transaction.allocate(needed)
        }
        let block = transaction.mutableBytes(replacement, needed)
        copyBytes(transaction.bytes(location.entry, entry.length), to: block)
        copyBytes(suffix, to: UnsafeMutableRawBufferPointer(rebasing: block[entry.length...]))
        block.storeBytes(
            of: UInt32(oldLength + suffix.count), toByteOffset: Int(Entry.valueLengthOffset), as: UInt32.self)
        transaction.write(replacement, to: location.link)
        transaction.free(location.entry)
    }

    /// Removes the key at a location, where it must be present, and frees its memory.
    public func remove(at location: Location, in transaction: Transaction) {
        unlink(location, in: transaction)
        transaction.free(location.entry)
    }

    // MARK: Values that outlive their entry

    /// As `store`, but the old value stays where it lies, and its block is the caller's: to give up for a reply, or to
    /// free.
    ///
    /// - Returns: the old value; the bytes before it, the end of its key at least, are the caller's, too. Nil, with
    ///   nothing changed, when the key is absent, when copying the old value is as good (short values, values that fill
    ///   less than three quarters of their block), and when there is no room for both values.
    public func exchange(
        _ value: UnsafeRawBufferPointer, for key: UnsafeRawBufferPointer, at location: Location,
        in transaction: Transaction
    ) -> BlockSlice? {
        guard let old = detachable(at: location, in: transaction) else { return nil }
        do throws(Refusal) {
            let entry = Self.entry(location.entry, in: transaction)
            let replacement = try transaction.allocate(Self.blockLength(key, value.count))
            Self.fill(replacement, after: entry, key, value, in: transaction)
            transaction.write(replacement, to: location.link)
            return old
        } catch {
            return nil
        }
    }

    /// As `remove`, but the value stays where it lies, and its block is the caller's. Nil, with nothing changed, as
    /// with `exchange`.
    public func detach(at location: Location, in transaction: Transaction) -> BlockSlice? {
        guard let old = detachable(at: location, in: transaction) else { return nil }
        unlink(location, in: transaction)
        return old
    }

    private static var shortestDetached: Int { 256 }

    private func detachable(at location: Location, in transaction: Transaction) -> BlockSlice? {
        guard location.isPresent else { return nil }
        let entry = Self.entry(location.entry, in: transaction)
        let (start, count) = (Int(entry.valueOffset), Int(entry.valueLength))
        // What is kept of the block is the value: three quarters of it at least, lest kept replies take more than they
        // are worth.
        guard count >= Self.shortestDetached, start <= 4096, 4 * count >= 3 * transaction.size(of: location.entry)
        else { return nil }
        return BlockSlice(of: location.entry, start: start, count: count)
    }

    private func unlink(_ location: Location, in transaction: Transaction) {
        invariant(location.isPresent, "a key is removed where it was found")
        invariant(transaction.read(location.link) == location.entry, "a location is used before the next change")
        transaction.write(Self.entry(location.entry, in: transaction).next, to: location.link)
        table.nodeWasRemoved(in: transaction)
    }

    // MARK: Entries

    private func insert(
        _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, at location: Location,
        in transaction: Transaction
    ) throws(Refusal) {
        guard location.depth < HashTable.longestChain else { throw .full }
        let block = try transaction.allocate(Self.blockLength(key, value.count))
        var link = location.link
        if link.isNull {
            do throws(Refusal) {
                try table.prepare(in: transaction)
            } catch {
                transaction.free(block)
                throw error
            }
            guard let first = table.chain(of: location.hash, in: transaction) else {
                broken("a table that was prepared has buckets")
            }
            link = first
        }
        invariant(transaction.read(link) == 0, "a location is used before the next change")
        let entry = Entry(next: 0, hash: location.hash, keyLength: UInt32(key.count), valueLength: 0)
        Self.fill(block, after: entry, key, value, in: transaction)
        transaction.write(block, to: link)
        table.nodeWasAdded(in: transaction)
    }

    /// Writes a whole entry, with the chain and the hash of a `model`.
    private static func fill(
        _ offset: UInt64, after model: Entry, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer,
        in transaction: Transaction
    ) {
        var entry = model
        entry.valueLength = UInt32(value.count)
        let block = transaction.mutableBytes(offset, entry.length)
        block.storeBytes(of: entry, as: Entry.self)
        copyBytes(key, to: UnsafeMutableRawBufferPointer(rebasing: block[Entry.size...]))
        copyBytes(value, to: UnsafeMutableRawBufferPointer(rebasing: block[Int(entry.valueOffset)...]))
    }

    private static func blockLength(_ key: UnsafeRawBufferPointer, _ valueLength: Int) -> Int {
        invariant(key.count <= Int(UInt32.max), "a key has less than 4 GiB")
        invariant(valueLength <= Int(UInt32.max), "a value has less than 4 GiB")
        return Entry.size + key.count + valueLength
    }

    /// Whether a block is worth giving back for a smaller one. Never so right after an append made room to spare.
    private static func wastes(_ room: Int, holding needed: Int) -> Bool { room >= 256 && needed < room / 2 }

    @inline(__always)
    private static func entry(_ offset: UInt64, in transaction: Transaction) -> Entry {
        transaction.read(PersistentPointer<Entry>(offset: offset))
    }

    private static func setValueLength(_ length: UInt32, of entry: UInt64, in transaction: Transaction) {
        transaction.write(length, to: PersistentPointer<UInt32>(offset: entry + Entry.valueLengthOffset))
    }
}

extension PersistentDictionary {
    /// Removes all keys and frees all memory but the handle's. Time and write set grow with the dictionary: for large
    /// ones remove keys a few at a time.
    public func removeAll(in transaction: Transaction) {
        table.forEachNode(in: transaction) { node in
            transaction.free(node)
            return true
        }
        table.reset(in: transaction)
    }
}
