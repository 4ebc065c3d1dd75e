/// Why a pool could not be made, opened or trusted. The text names the file and says what to do.
package struct PoolError: Error, CustomStringConvertible {
    package enum Kind: Sendable {
        /// There is no such file.
        case missing
        /// A file is there already, and creating would overwrite it.
        case exists
        /// Another process (or this one) has the pool open.
        case inUse
        /// It is a pool of ours, but its content cannot be trusted.
        case damaged
        /// It is not a pool of ours, or one of another kind, owner or version.
        case foreign
        /// The file system has no room for it.
        case noSpace
        /// The operating system refused for another reason.
        case io
    }

    /// What to do about a pool that cannot be trusted.
    static let restoreAdvice = "restore the file as it was when this replica last ran; the others go on without it"

    /// What to do about a pool that looks as if its making was never finished. Damage may look the same, and who
    /// formats a pool anew that has voted takes back its votes.
    static let unfinishedAdvice =
        "if this replica never ran, move its pools away and format again; else restore the file as it was when it last ran"

    /// What to do when the operating system refuses for a reason that is not the pool's.
    package static let systemAdvice = "see what the system says of that file system (dmesg), and start again"

    package let kind: Kind
    package let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
