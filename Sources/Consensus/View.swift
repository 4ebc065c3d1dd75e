import MPaxosInvariants

/// A view number. 0 means "none": no replica leads it. Each other view has exactly one leader, see
/// `leadingReplica(of:among:)`.
@usableFromInline package typealias View = UInt64

/// The number of a log entry. The first is 1; 0 means "none".
@usableFromInline package typealias Instance = UInt64

/// A replica's place among the members, sorted by ascending id: 0 ..< count.
@usableFromInline package typealias ReplicaIndex = Int

/// The number of a record that the core asks to persist; the first is 1, each next one is higher by one. 0 means "rests
/// on nothing".
@usableFromInline package typealias LogSequenceNumber = UInt64

/// Monotonic time, in microseconds since any origin.
@usableFromInline package typealias Microseconds = UInt64

/// Stands in the place of the accepted view of an entry that is known to be decided: higher than any view.
package let decidedView: View = .max

/// The one replica that may propose in `view`.
@inlinable
package func leadingReplica(of view: View, among count: Int) -> ReplicaIndex {
    invariant(count > 0, "a cluster has members")
    return ReplicaIndex(view % UInt64(count))
}

/// Where a batch's bytes lie in the holder's own arena. The core never looks at them. Two equal handles on one replica
/// are the same batch; handles of two replicas to the same batch differ in `offset`.
package struct Batch: BitwiseCopyable, Hashable, Sendable {
    /// Offset of the first byte in the holder's arena.
    package var offset: UInt64
    /// Count of bytes; 0 is a no-op.
    package var length: UInt32
    /// CRC32C of the bytes.
    package var checksum: UInt32

    @inlinable
    package init(offset: UInt64, length: UInt32, checksum: UInt32) {
        self.offset = offset
        self.length = length
        self.checksum = checksum
    }

    /// The batch without commands, with which a new leader fills holes.
    @inlinable
    package static var noop: Batch { Batch(offset: 0, length: 0, checksum: 0) }

    @inlinable
    package var isNoop: Bool { length == 0 }
}
