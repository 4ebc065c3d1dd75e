import MPaxosInvariants

/// An integer in persistent memory. Eight bytes, zero at first.
///
/// Like all collections of this library it is a handle: a place in persistent memory that any number of copies can
/// name. It can be stored in persistent structs itself. Use it only within a call of the state machine.
public struct PersistentCounter: BitwiseCopyable, Sendable {
    /// How many bytes it takes at the offset it is given.
    public static var footprint: Int { 8 }

    @usableFromInline let place: PersistentPointer<Int64>

    /// The counter at an offset, aligned to 8, of memory that was zero when the counter was first used.
    @inlinable
    public init(at offset: UInt64) {
        invariant(offset != 0 && offset % 8 == 0, "a counter lies at an offset that is aligned to 8")
        place = PersistentPointer(offset: offset)
    }

    /// The integer as it is.
    @inlinable
    public func value(in transaction: Transaction) -> Int64 { transaction.read(place) }

    /// Replaces the integer.
    @inlinable
    public func set(_ value: Int64, in transaction: Transaction) { transaction.write(value, to: place) }

    /// Adds, wrapping around at the ends of `Int64`, and returns the sum.
    @inlinable @discardableResult
    public func add(_ delta: Int64, in transaction: Transaction) -> Int64 {
        let sum = transaction.read(place) &+ delta
        transaction.write(sum, to: place)
        return sum
    }

    /// Adds and returns the sum, or returns nil and changes nothing where the sum does not fit.
    @inlinable
    public func addIfRepresentable(_ delta: Int64, in transaction: Transaction) -> Int64? {
        let (sum, overflow) = transaction.read(place).addingReportingOverflow(delta)
        if overflow { return nil }
        transaction.write(sum, to: place)
        return sum
    }
}
