import MPaxosConsensus
import MPaxosWire

/// Whether this replica's state is that of the others. The executor states its digest at fixed instances and in quiet
/// times; the engines tell each other.
extension Engine {
    private static let tellInterval: UInt64 = 1_000_000
    private static let patience = DigestComparison.Patience(
        withoutHope: 1_000_000, withFew: 10_000_000, withAll: 60_000_000)

    /// Tells the peers what the executor stated: what is new, the last once a second, and all that is kept to who is
    /// newly linked.
    func compareDigests(now: UInt64) {
        var linked: UInt16 = 0
        for peer in 0..<memberCount where peer != index && traffic.isConnected(peer) { linked |= 1 << UInt16(peer) }
        if linked != toldOfDigests { tellAll(to: linked & ~toldOfDigests) }
        toldOfDigests = linked
        while let standing = digests.pop() {
            digestStated = standing
            tellDigest(standing, now: now)
            compare(standing, of: index, now: now)
        }
        if let standing = digestStated, now >= digestToldAt + Self.tellInterval { tellDigest(standing, now: now) }
        endDispute(now: now)
    }

    private func tellAll(to peers: UInt16) {
        for peer in members(of: peers) {
            for standing in comparison.statements(of: index) { traffic.tell(standing, to: peer) }
        }
    }

    private func tellDigest(_ standing: DigestComparison.Standing, now: UInt64) {
        digestToldAt = now
        for peer in members(of: toldOfDigests) { traffic.tell(standing, to: peer) }
    }

    /// A replica, perhaps this one, told where its state stands.
    func compare(_ standing: DigestComparison.Standing, of replica: Int, now: UInt64) {
        let (wasInDoubt, disputed, condemned) = (comparison.isInDoubt, comparison.disputed, comparison.condemned)
        let executed = standing.executed
        if replica != index { toldExecuted[replica] = executed }
        switch comparison.take(standing, from: replica, now: now) {
        case .agreement: break
        case .theyDiffer(let peers):
            for peer in members(of: peers & ~condemned) {
                board.peers[peer].digestsDiffered.add(1)
                guard mayLog(.differing, of: peer, now: now) else { continue }
                logger.error(
                    "the state of replica \(memberIDs[peer]) differs from that of a majority: \(statement(of: [peer], executed)); it is to stop, and is not to be trusted"
                )
            }
        case .thisDiffers(let majority):
            alarm.raise(
                .init(
                    text:
                        "the state of this replica differs from that of a majority: \(statement(of: members(of: majority), executed)). Its state pool is damaged, or commands were skipped here and not there (--skip-record), or the state machine is not deterministic: keep its pools, see mpaxos dump --verify; the others go on without it"
                ))
        case .undecided(let peers):
            guard peers & ~disputed != 0, mayLog(.disputed, of: replica, now: now) else { break }
            logger.error(
                "states differ, and no majority says yet which is right: \(statement(of: members(of: peers), executed)); nothing is served until that is settled"
            )
        }
        if comparison.isInDoubt != wasInDoubt {
            progress.isInDispute = comparison.isInDoubt
            board.isInDispute = comparison.isInDoubt
            publishReadiness()
        }
    }

    /// Stops where it has not been settled for too long who is right.
    private func endDispute(now: UInt64) {
        // The comparison has arrays, of which each look by a method makes a copy.
        guard progress.isInDispute else { return }
        let isAnybodyAway = toldOfDigests.nonzeroBitCount < memberCount - 1
        guard comparison.isOverdue(Self.patience, isAnybodyAway: isAnybodyAway, now: now) else { return }
        let others = members(of: comparison.disputed).map { String(memberIDs[$0]) }.joined(separator: ", ")
        alarm.raise(
            .init(
                text:
                    "the states of this replica and of \(others) differ, and there is no majority to say which is right; the log has the digests. Neither may serve: start all replicas, so that a majority tells"
            ))
    }

    private func members(of mask: UInt16) -> [Int] { (0..<memberCount).filter { mask & 1 << UInt16($0) != 0 } }

    /// As `mpaxos digest` and STATUS spell it.
    private static func hex(_ digest: UInt64) -> String {
        let digits = String(digest, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    private func statement(of peers: [Int], _ executed: UInt64) -> String {
        func digest(of replica: Int) -> String {
            comparison.value(of: replica, at: executed).map(Self.hex) ?? "not known"
        }
        let theirs = peers.map { "that of replica \(memberIDs[$0]) is \(digest(of: $0))" }.joined(separator: ", ")
        return "with all up to instance \(executed) executed its digest is \(digest(of: index)), \(theirs)"
    }
}
