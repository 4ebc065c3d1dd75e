import MPaxosInvariants
import MPaxosKeyValueFormat

/// The key-value state machine of the client protocol, the service that a cluster runs unless it is given another: put,
/// get, delete, compare and swap, append, add, scan by prefix. An ordinary user of ``StateMachine`` and
/// ``PersistentDictionary``.
///
/// Keys have 1 to 1,024 bytes, values up to the cluster's `max_request` (``Reply/maxRequest``, the same on every
/// replica).
///
/// All operations but scan take time in proportion to the key and value alone. A scan reads every key of the store: the
/// table is a hash table. It is executed between commands, by the one replica that answers it, which executes nothing
/// else meanwhile (about 0.1 s per million keys): it is meant for operators and small stores.
public struct KeyValueService: StateMachine {
    private let entries: PersistentDictionary

    private typealias Tag = KeyValueFormat.Tag

    public init(in transaction: Transaction) {
        entries = PersistentDictionary(at: transaction.rootSlot(0))
    }

    /// How many keys the store holds.
    public func count(in transaction: Transaction) -> Int { entries.count(in: transaction) }

    public static func validate(_ body: UnsafeRawBufferPointer, as kind: CommandKind) -> String? {
        do throws(KeyValueRequest.Malformed) {
            _ = try KeyValueRequest(body, isQuery: kind == .query)
            return nil
        } catch {
            return error.reason
        }
    }

    public func apply(
        _ command: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply
    ) throws(Refusal) {
        guard let command = Self.parse(command, as: .submit, reply: &reply) else { return }
        let place = entries.locate(command.key, in: transaction)
        switch command.operation {
        case .put(let value):
            if let old = entries.exchange(value, for: command.key, at: place, in: transaction) {
                give(old, in: transaction, to: &reply)
            } else {
                appendValue(at: place, in: transaction, to: &reply)
                try entries.store(value, for: command.key, at: place, in: transaction)
            }
        case .get:
            appendValue(at: place, in: transaction, to: &reply)
        case .delete:
            if let old = entries.detach(at: place, in: transaction) {
                give(old, in: transaction, to: &reply)
            } else {
                appendValue(at: place, in: transaction, to: &reply)
                if place.isPresent { entries.remove(at: place, in: transaction) }
            }
        case .compareAndSwap(let expected, let value):
            try swap(expected, for: value, of: command.key, at: place, in: transaction, reply: &reply)
        case .append(let suffix):
            try append(suffix, to: command.key, at: place, in: transaction, reply: &reply)
        case .add(let delta):
            try add(delta, to: command.key, at: place, in: transaction, reply: &reply)
        case .scan:
            broken("a scan is parsed as a query only")
        }
    }

    public func prefetch(
        _ command: UnsafeRawBufferPointer, step: Int, hint: inout UInt64, in transaction: Transaction
    ) {
        guard let key = KeyValueRequest.key(of: command) else { return }
        entries.prefetch(key, step: step, hint: &hint, in: transaction)
    }

    public func query(_ query: UnsafeRawBufferPointer, in transaction: Transaction, reply: inout Reply) {
        guard let query = Self.parse(query, as: .query, reply: &reply) else { return }
        switch query.operation {
        case .get:
            appendValue(at: entries.locate(query.key, in: transaction), in: transaction, to: &reply)
        case .scan(let limit):
            scan(query.key, limit: limit, in: transaction, reply: &reply)
        case .put, .delete, .compareAndSwap, .append, .add:
            broken("an operation that writes is parsed as a command only")
        }
    }

    /// The command in a body; nil, after a refusal, where `validate` would have rejected it. That cannot come here
    /// unless some replica does not validate as this one does, and then it must not stop this one.
    private static func parse(
        _ body: UnsafeRawBufferPointer, as kind: CommandKind, reply: inout Reply
    ) -> KeyValueRequest? {
        do throws(KeyValueRequest.Malformed) {
            return try KeyValueRequest(body, isQuery: kind == .query)
        } catch {
            reply.append(byte: Tag.refused)
            reply.append(text: error.reason)
            return nil
        }
    }

    /// 1 and the value, or 0.
    @inline(__always)
    private func appendValue(
        at place: PersistentDictionary.Location, in transaction: Transaction, to reply: inout Reply
    ) {
        if let value = entries.value(at: place, in: transaction) {
            reply.append(byte: Tag.some)
            reply.append(bytes: value)
        } else {
            reply.append(byte: Tag.none)
        }
    }

    /// As `appendValue`, of a value whose block is given up: the tag takes the place of what precedes the value there,
    /// the end of its key.
    private func give(_ value: BlockSlice, in transaction: Transaction, to reply: inout Reply) {
        let tagged = BlockSlice(of: value.block, start: value.start - 1, count: value.count + 1)
        transaction.write(Tag.some, to: PersistentPointer(offset: tagged.block + UInt64(tagged.start)))
        reply.give(tagged, in: transaction)
    }

    private func swap(
        _ expected: UnsafeRawBufferPointer?, for value: UnsafeRawBufferPointer, of key: UnsafeRawBufferPointer,
        at place: PersistentDictionary.Location, in transaction: Transaction, reply: inout Reply
    ) throws(Refusal) {
        let found = entries.value(at: place, in: transaction)
        let matches =
            switch (expected, found) {
            case (nil, nil): true
            case (let expected?, let found?): expected.count == found.count && bytesAreEqual(expected, found)
            default: false
            }
        guard matches else {
            reply.append(byte: Tag.none)
            reply.append(byte: found == nil ? 0 : 1)
            if let found { reply.append(bytes: found) }
            return
        }
        reply.append(byte: Tag.some)
        reply.append(bytes: value)
        try entries.store(value, for: key, at: place, in: transaction)
    }

    private func append(
        _ suffix: UnsafeRawBufferPointer, to key: UnsafeRawBufferPointer, at place: PersistentDictionary.Location,
        in transaction: Transaction, reply: inout Reply
    ) throws(Refusal) {
        let before = entries.value(at: place, in: transaction)?.count ?? 0
        let after = before + suffix.count
        guard after <= reply.maxRequest else {
            reply.append(byte: Tag.refused)
            reply.append(text: "the value would exceed max_request")
            return
        }
        try entries.append(suffix, for: key, at: place, in: transaction)
        reply.append(byte: Tag.some)
        reply.append(littleEndian: UInt64(after))
    }

    private func add(
        _ delta: Int64, to key: UnsafeRawBufferPointer, at place: PersistentDictionary.Location,
        in transaction: Transaction, reply: inout Reply
    ) throws(Refusal) {
        var old: Int64 = 0
        if let value = entries.value(at: place, in: transaction) {
            guard value.count == 8 else {
                reply.append(byte: Tag.refused)
                reply.append(text: "the value does not have the 8 bytes of an i64")
                return
            }
            old = Int64(littleEndian: value.loadUnaligned(as: Int64.self))
        }
        let (sum, overflow) = old.addingReportingOverflow(delta)
        guard !overflow else {
            reply.append(byte: Tag.refused)
            reply.append(text: "the sum does not fit an i64")
            return
        }
        var stored = sum.littleEndian
        if let value = entries.mutableValue(at: place, in: transaction) {
            value.storeBytes(of: stored, as: Int64.self)
        } else {
            try withUnsafeBytes(of: &stored) { (bytes) throws(Refusal) in
                try entries.store(bytes, for: key, at: place, in: transaction)
            }
        }
        reply.append(byte: Tag.some)
        reply.append(littleEndian: sum)
    }

    /// 1, `more`, the count, and the entries that begin with `prefix`, as many as fit into `max_request` bytes; or a
    /// single one that is too large for that, which the slack of a reply is enough for.
    private func scan(
        _ prefix: UnsafeRawBufferPointer, limit: UInt32, in transaction: Transaction, reply: inout Reply
    ) {
        typealias Layout = KeyValueFormat.ScanReply
        reply.append(byte: Tag.some)
        reply.append(byte: 0)
        reply.append(littleEndian: UInt32(0))
        /// The least that an entry takes: that of a key of one byte.
        let smallestEntry = Layout.entryOverhead + 1
        let limit = limit == 0 ? UInt32.max : limit
        let end = max(reply.maxRequest, reply.count)
        var count: UInt32 = 0
        var leftOut = 0
        var large: (key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)?
        func append(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, to reply: inout Reply) {
            reply.append(littleEndian: UInt32(key.count))
            reply.append(bytes: key)
            reply.append(littleEndian: UInt32(value.count))
            reply.append(bytes: value)
            count += 1
        }
        entries.forEach(in: transaction) { key, value in
            guard key.count >= prefix.count,
                bytesAreEqual(UnsafeRawBufferPointer(rebasing: key[..<prefix.count]), prefix)
            else { return true }
            guard count < limit, Layout.entryOverhead + key.count + value.count <= end - reply.count else {
                // One that is too large leaves room for smaller ones: they are not to be hidden behind it.
                leftOut += 1
                if large == nil { large = (key, value) }
                return count < limit && smallestEntry <= end - reply.count
            }
            append(key, value, to: &reply)
            return true
        }
        if count == 0, let large {
            append(large.key, large.value, to: &reply)
            leftOut -= 1
        }
        reply.replace(littleEndian: leftOut > 0 ? UInt8(1) : 0, at: Layout.moreOffset)
        reply.replace(littleEndian: count, at: Layout.countOffset)
    }
}
