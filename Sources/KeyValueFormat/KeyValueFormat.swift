/// The bytes of the key-value service, as the client protocol has them ("The key-value state machine"): described here
/// once, for clients, which write commands and read replies, and for the service, which does the other half.
///
/// Integers are little-endian. A command is `operation:u8, length of the key:u32, key`, and what its operation takes:
///
/// | operation | behind the key |
/// |---|---|
/// | put | the value |
/// | get, delete | nothing |
/// | compare and swap | `present:u8, length:u32`, the expected value, the new value |
/// | append | the bytes that are appended |
/// | add | `delta:i64` |
/// | scan, whose key is a prefix | `limit:u32`, 0 for as many as fit |
///
/// A reply is a `Tag`, and what the operation answers:
///
/// | operation | behind `none` | behind `some` |
/// |---|---|---|
/// | put, get, delete | nothing: there was no value | the value that was there |
/// | compare and swap | `present:u8`, the value found | the new value |
/// | append | | `length:u64` of the value after |
/// | add | | `sum:i64` |
/// | scan | | `more:u8, count:u32`, and for each entry `length:u32, key, length:u32, value` |
///
/// Behind `refused` lies the reason, in words.
@usableFromInline package enum KeyValueFormat {
    /// A key has 1 to so many bytes, a prefix as few as none.
    @inlinable package static var longestKey: Int { 1024 }

    /// Where the key begins in a command.
    @inlinable package static var keyOffset: Int { 5 }

    /// The first byte of a reply.
    @usableFromInline package enum Tag {
        @inlinable package static var none: UInt8 { 0 }
        @inlinable package static var some: UInt8 { 1 }
        /// Executed, and refused the same on every replica; nothing changed.
        @inlinable package static var refused: UInt8 { 2 }
    }

    /// Where the numbers lie in the reply to a scan, which are known when its entries are written.
    @usableFromInline package enum ScanReply {
        @inlinable package static var moreOffset: Int { 1 }
        @inlinable package static var countOffset: Int { 2 }
        /// What an entry takes besides key and value.
        @inlinable package static var entryOverhead: Int { 8 }
    }
}

/// Bytes that are no reply of the key-value service: what is wrong with them, in words for a person.
public struct KeyValueError: Error, Equatable, CustomStringConvertible {
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
