import MPaxosCSupport
import MPaxosInvariants

/// A number below 2^48 and 16 check bits in one word: what must change by a single aligned store, which reaches memory
/// whole or not at all, and yet must not be trusted blindly. One or two flipped bits anywhere in the word are always
/// noticed.
package struct CheckedNumber: BitwiseCopyable, Equatable {
    package static let limit: UInt64 = 1 << bits
    private static let bits: UInt64 = 48

    package let word: UInt64

    package init(word: UInt64) { self.word = word }

    package init(_ number: UInt64) {
        invariant(number < Self.limit, "a checked number has 48 bits")
        word = number | Self.check(number) << Self.bits
    }

    /// nil when the word is damaged, or zero.
    package var number: UInt64? {
        let number = word & (Self.limit - 1)
        return word >> Self.bits == Self.check(number) ? number : nil
    }

    private static func check(_ number: UInt64) -> UInt64 { UInt64(csupport_crc32c_word(number) & 0xFFFF) }
}
