import Consensus
import Wire

/// Whether this replica's state is that of the others. The executor computes the digest in quiet times; the engines tell
/// each other.
extension Engine {
    private static let lookInterval: UInt64 = 100_000
    private static let tellInterval: UInt64 = 1_000_000
    /// How long two replicas that differ wait for a majority's word, before both stop: while all members are linked, and
    /// else.
    private static let patienceWithAll: UInt64 = 60_000_000
    private static let patienceWithFew: UInt64 = 10_000_000

    /// A peer told where its state stands.
    func takeDigest(_ standing: DigestComparison.Standing, from peer: Int, now: UInt64) {
        comparison[peer] = standing
        judgeDigests(now: now)
    }

    /// Tells the peers of this replica's digest: when there is a new one, and now and then, for who is new.
    func tellDigest(now: UInt64) {
        guard now >= digestSeenAt + Self.lookInterval else { return }
        digestSeenAt = now
        let digest = board.digest.map { DigestComparison.Standing(executed: $0.executed, value: $0.value) }
        let isNew = digest != comparison[index]
        comparison[index] = digest
        if let digest, isNew || now >= digestToldAt + Self.tellInterval {
            digestToldAt = now
            for peer in 0..<memberCount where peer != index && traffic.isConnected(peer) {
                traffic.tell(.digest(executed: digest.executed, value: digest.value), to: peer)
            }
        }
        judgeDigests(now: now)
    }

    private func judgeDigests(now: UInt64) {
        let wasDisputed = comparison.disputed
        let verdict = comparison.judge(now: now)
        guard let own = comparison[index] else { return }
        switch verdict {
        case .agreement: break
        case .theyDiffer(let peers):
            let news = peers & ~knownToDiffer
            knownToDiffer |= peers
            for peer in members(of: news) {
                board.peers[peer].digestsDiffered.add(1)
                logger.error(
                    "the state of replica \(memberIDs[peer]) differs from that of a majority: \(statement(of: [peer], own)); it is to stop, and is not to be trusted"
                )
            }
        case .thisDiffers(let majority):
            alarm.raise(
                .init(
                    text:
                        "the state of this replica differs from that of a majority: \(statement(of: members(of: majority), own)). Its state pool is damaged, or the state machine is not deterministic: keep its pools, see mpaxos dump --verify; the others go on without it"
                ))
        case .undecided(let peers):
            guard peers & ~wasDisputed != 0 else { break }
            logger.error(
                "states differ, and no majority says yet which is right: \(statement(of: members(of: peers), own))")
        }
        endDispute(now: now)
    }

    /// Stops where it has not been settled for too long who is right.
    private func endDispute(now: UInt64) {
        guard comparison.disputed != 0 else { return }
        let isAnybodyAway = (0..<memberCount).contains { $0 != index && !traffic.isConnected($0) }
        let patience = isAnybodyAway ? Self.patienceWithFew : Self.patienceWithAll
        guard now >= comparison.disputedSince + patience else { return }
        let others = members(of: comparison.disputed).map { String(memberIDs[$0]) }.joined(separator: ", ")
        alarm.raise(
            .init(
                text:
                    "the states of this replica and of \(others) differ, and there is no majority to say which is right; the log has the digests. Neither may serve: start all replicas, so that a majority tells"
            ))
    }

    private func members(of mask: UInt16) -> [Int] { (0..<memberCount).filter { mask & 1 << UInt16($0) != 0 } }

    private func statement(of peers: [Int], _ own: DigestComparison.Standing) -> String {
        let theirs = peers.map { peer in
            "that of replica \(memberIDs[peer]) is \(comparison[peer].map { StatusReport.hex($0.value) } ?? "not known")"
        }
        return
            "with all up to instance \(own.executed) executed its digest is \(StatusReport.hex(own.value)), \(theirs.joined(separator: ", "))"
    }
}
