import MPaxosConsensus
import MPaxosWire

/// What a peer says though no replica in its place can have it to say: it is refused, counted, and said in the log.
extension Engine {
    enum Complaint: Int, CaseIterable {
        case implausible
        /// What it sends to be ordered is no run of commands.
        case notCommands
        /// Its state is not that of a majority.
        case differing
        /// Its state is another, and nobody knows yet whose is right.
        case disputed
    }

    private static let logInterval: UInt64 = 1_000_000

    @inline(never)
    func tellImplausible(_ what: @autoclosure () -> String, from peer: Int, now: UInt64) {
        board.peers[peer].framesImplausible.add(1)
        guard mayLog(.implausible, of: peer, now: now) else { return }
        logger.warning(
            "refused what replica \(memberIDs[peer]) says, since it cannot be so: \(what()); this replica is in view \(core.view) and has decided \(core.decided). Is that program the same release, and its memory sound? peer_frames_implausible_total counts the others like it"
        )
    }

    /// Whether a complaint about a peer may be logged now: one that goes on and on is not to fill the disk.
    func mayLog(_ complaint: Complaint, of peer: Int, now: UInt64) -> Bool {
        let place = complaint.rawValue * memberCount + peer
        guard now >= nextLogAt[place] else { return false }
        nextLogAt[place] = now + Self.logInterval
        return true
    }
}
