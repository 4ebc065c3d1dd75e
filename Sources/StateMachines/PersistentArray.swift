import MPaxosInvariants

/// An array of plain structs in persistent memory that grows and shrinks at its end, in bounded steps: growing moves no
/// element.
///
/// A handle of 64 bytes, empty where those are zero; the number of elements is limited by memory alone. An element must
/// have no padding bytes (see ``StateMachine``, determinism). An index out of range traps, as with Swift's arrays:
/// check what comes from a client.
public struct PersistentArray<Element: BitwiseCopyable>: BitwiseCopyable, Sendable {
    /// How many bytes it takes at the offset it is given.
    public static var footprint: Int { 64 }

    @usableFromInline
    struct Header: BitwiseCopyable {
        @usableFromInline var count: Int
        @usableFromInline var directory: UInt64

        @inlinable
        init(count: Int, directory: UInt64) {
            self.count = count
            self.directory = directory
        }
    }

    @usableFromInline let header: PersistentPointer<Header>

    @inlinable static var stride: Int { MemoryLayout<Element>.stride }

    /// The array at an offset, aligned to 8, of ``footprint`` bytes that were zero when the array was first used.
    @inlinable
    public init(at offset: UInt64) {
        invariant(offset != 0 && offset % 8 == 0, "an array lies at an offset that is aligned to 8")
        invariant(MemoryLayout<Element>.alignment <= 16, "persistent memory is aligned to 16")
        header = PersistentPointer(offset: offset)
    }

    /// How many elements it holds.
    @inlinable
    public func count(in transaction: Transaction) -> Int { transaction.read(header).count }

    /// The element at an index, which must be in range.
    @inlinable
    public func get(_ index: Int, in transaction: Transaction) -> Element {
        transaction.read(place(index, in: transaction))
    }

    /// Replaces the element at an index, which must be in range.
    @inlinable
    public func set(_ index: Int, to element: Element, in transaction: Transaction) {
        transaction.write(element, to: place(index, in: transaction))
    }

    /// Adds an element at the end; when the store is full it throws, and nothing has changed.
    @inlinable
    public func append(_ element: Element, in transaction: Transaction) throws(Refusal) {
        var state = transaction.read(header)
        if state.directory == 0 { state.directory = try SegmentDirectory.allocate(in: transaction).offset }
        let directory = SegmentDirectory(offset: state.directory)
        do throws(Refusal) {
            try directory.makeRoom(for: state.count, stride: Self.stride, in: transaction)
        } catch {
            if state.count == 0 && transaction.read(header).directory == 0 { transaction.free(state.directory) }
            throw error
        }
        let place = directory.element(state.count, stride: Self.stride, in: transaction)
        transaction.write(element, to: PersistentPointer<Element>(offset: place))
        state.count += 1
        transaction.write(state, to: header)
    }

    /// Takes the last element away and returns it; nil when there is none.
    @inlinable @discardableResult
    public func removeLast(in transaction: Transaction) -> Element? {
        var state = transaction.read(header)
        guard state.count > 0 else { return nil }
        let element = get(state.count - 1, in: transaction)
        state.count -= 1
        transaction.write(state, to: header)
        SegmentDirectory(offset: state.directory).releaseRoom(above: state.count, in: transaction)
        return element
    }

    /// Takes all elements away and frees all memory but the handle's.
    @inlinable
    public func removeAll(in transaction: Transaction) {
        let state = transaction.read(header)
        guard state.directory != 0 else { return }
        SegmentDirectory(offset: state.directory).deallocate(in: transaction)
        transaction.write(Header(count: 0, directory: 0), to: header)
    }

    @inlinable
    func place(_ index: Int, in transaction: Transaction) -> PersistentPointer<Element> {
        let state = transaction.read(header)
        invariant(index >= 0 && index < state.count, "an array's index is from 0 to below its count")
        return PersistentPointer(
            offset: SegmentDirectory(offset: state.directory).element(index, stride: Self.stride, in: transaction))
    }
}
