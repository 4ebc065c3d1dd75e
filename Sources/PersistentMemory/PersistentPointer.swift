/// The place of a value in a heap: an offset in bytes from the start of its data area, the same on every replica.
public struct PersistentPointer<Pointee: BitwiseCopyable>: BitwiseCopyable, Hashable, Sendable {
    /// Bytes from the start of the data area; 0 for null.
    public var offset: UInt64

    @inlinable public init(offset: UInt64) { self.offset = offset }

    /// Points nowhere.
    @inlinable public static var null: PersistentPointer { PersistentPointer(offset: 0) }
    @inlinable public var isNull: Bool { offset == 0 }

    /// The `index`-th value after this one, for values laid out as an array.
    @inlinable public func advanced(by index: Int) -> PersistentPointer {
        PersistentPointer(offset: offset &+ UInt64(bitPattern: Int64(index &* MemoryLayout<Pointee>.stride)))
    }
}
