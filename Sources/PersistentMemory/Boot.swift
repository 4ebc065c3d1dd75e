import Glibc

/// Tells one run of the machine's operating system from the next.
package enum Boot {
    /// The same for all processes from a start of the machine until it stops; 0 when the system does not tell.
    ///
    /// A pool that was last opened in this run has not seen a loss of power since: every store that was made is in it,
    /// in order.
    package static let current: UInt64 = {
        let file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return 0 }
        defer { close(file) }
        var text = [UInt8](repeating: 0, count: 36)
        guard Glibc.read(file, &text, text.count) == text.count else { return 0 }
        let low = Checksum.of(text, text.count)
        // From another seed, for another 32 bits.
        let high = Checksum.extend(low, with: text, 18)
        return UInt64(high) << 32 | UInt64(low) | 1
    }()
}
