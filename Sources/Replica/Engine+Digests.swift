import Consensus
import Wire

/// Whether this replica's state is that of the others. The executor states its digest at fixed instances and in quiet
/// times; the engines tell each other.
extension Engine {
    private static let tellInterval: UInt64 = 1_000_000
    /// How long two replicas that differ wait for a majority's word, before both stop: while all members are linked, else,
    /// and where all have told and none is left who could say.
    private static let patienceWithAll: UInt64 = 60_000_000
    private static let patienceWithFew: UInt64 = 10_000_000
    private static let patienceWithoutHope: UInt64 = 1_000_000

    /// A peer told where its state stands.
    func takeDigest(_ standing: DigestComparison.Standing, from peer: Int, now: UInt64) {
        compare(standing, of: peer, now: now)
    }

    /// Tells the peers what the executor stated: what is new, the last once a second, and all that is kept to who is newly
    /// linked.
    func compareDigests(now: UInt64) {
        var linked: UInt16 = 0
        for peer in 0..<memberCount where peer != index && traffic.isConnected(peer) { linked |= 1 << UInt16(peer) }
        for peer in members(of: linked & ~toldOfDigests) {
            for standing in comparison.statements(of: index) { traffic.tell(standing, to: peer) }
        }
        toldOfDigests = linked
        while let standing = digests.pop() {
            digestStated = standing
            tellDigest(standing, now: now)
            compare(standing, of: index, now: now)
        }
        if let standing = digestStated, now >= digestToldAt + Self.tellInterval { tellDigest(standing, now: now) }
        endDispute(now: now)
    }

    private func tellDigest(_ standing: DigestComparison.Standing, now: UInt64) {
        digestToldAt = now
        for peer in members(of: toldOfDigests) { traffic.tell(standing, to: peer) }
    }

    private func compare(_ standing: DigestComparison.Standing, of replica: Int, now: UInt64) {
        let (disputed, condemned) = (comparison.disputed, comparison.condemned)
        let executed = standing.executed
        switch comparison.take(standing, from: replica, now: now) {
        case .agreement: break
        case .theyDiffer(let peers):
            for peer in members(of: peers & ~condemned) {
                board.peers[peer].digestsDiffered.add(1)
                logger.error(
                    "the state of replica \(memberIDs[peer]) differs from that of a majority: \(statement(of: [peer], executed)); it is to stop, and is not to be trusted"
                )
            }
        case .thisDiffers(let majority):
            alarm.raise(
                .init(
                    text:
                        "the state of this replica differs from that of a majority: \(statement(of: members(of: majority), executed)). Its state pool is damaged, or the state machine is not deterministic: keep its pools, see mpaxos dump --verify; the others go on without it"
                ))
        case .undecided(let peers):
            guard peers & ~disputed != 0 else { break }
            logger.error(
                "states differ, and no majority says yet which is right: \(statement(of: members(of: peers), executed)); nothing is served until that is settled"
            )
        }
        if comparison.disputed != disputed { publishReadiness() }
    }

    /// Stops where it has not been settled for too long who is right.
    private func endDispute(now: UInt64) {
        guard comparison.disputed != 0 else { return }
        let isAnybodyAway = toldOfDigests.nonzeroBitCount < memberCount - 1
        let patience =
            comparison.isHopeless
            ? Self.patienceWithoutHope : isAnybodyAway ? Self.patienceWithFew : Self.patienceWithAll
        guard now >= comparison.disputedSince + patience else { return }
        let others = members(of: comparison.disputed).map { String(memberIDs[$0]) }.joined(separator: ", ")
        alarm.raise(
            .init(
                text:
                    "the states of this replica and of \(others) differ, and there is no majority to say which is right; the log has the digests. Neither may serve: start all replicas, so that a majority tells"
            ))
    }

    private func members(of mask: UInt16) -> [Int] { (0..<memberCount).filter { mask & 1 << UInt16($0) != 0 } }

    private func statement(of peers: [Int], _ executed: UInt64) -> String {
        func digest(of replica: Int) -> String {
            comparison.value(of: replica, at: executed).map(StatusReport.hex) ?? "not known"
        }
        let theirs = peers.map { "that of replica \(memberIDs[$0]) is \(digest(of: $0))" }.joined(separator: ", ")
        return "with all up to instance \(executed) executed its digest is \(digest(of: index)), \(theirs)"
    }
}
