import MPaxosConsensus

extension PoolReport: CustomStringConvertible {
    /// Human-readable, several lines.
    package var description: String {
        var lines = ["\(path): \(kind) pool of replica \(replica), cluster '\(cluster)', incarnation \(incarnation)"]
        lines.append("  file of \(fileSize) bytes")
        lines.append("  formatted for \(Charter.Term.allCases.map(charter.statement(of:)).joined(separator: "; "))")
        if inUse { lines.append("  in use: a replica writes to it, so this is not the state of one moment") }
        if let acceptor { lines += acceptor.lines }
        if let state { lines += state.lines }
        for sentence in damage { lines.append("  DAMAGED: \(sentence)") }
        if verified && damage.isEmpty { lines.append("  verified: no damage found") }
        return lines.joined(separator: "\n")
    }
}

extension AcceptorReport {
    fileprivate var lines: [String] {
        var lines = [
            founded ? "  of a founded cluster" : "  of a cluster that is not founded",
            "  promised view \(promised), established view \(establishedView) from instance \(establishedBase)",
        ]
        lines.append(
            "  floor \(floor), \(votes.count) votes in \(slots) slots, \(arenaUsed) of \(arenaSize) bytes of batches")
        if torn > 0 {
            lines.append("  \(torn) torn lines of an unfinished group commit, to be removed at the next start")
        }
        for vote in votes {
            let view = vote.view.map { "view \($0)" } ?? "decided"
            let content = vote.length == 0 ? "no-op" : "\(vote.length) bytes, CRC32C \(vote.checksum)"
            lines.append("  instance \(vote.instance): \(view), \(content)\(vote.intact ? "" : ", DAMAGED")")
        }
        return lines
    }
}

extension StateReport {
    fileprivate var lines: [String] {
        var lines = ["  position \(position), digest \(digest)"]
        let partly = executedCommands > 0 ? " and \(executedCommands) records of the next" : ""
        lines.append("  executed up to instance \(executed)\(partly)")
        lines.append("  \(used) of \(size) bytes used, \(replayedCommits) commits to replay")
        if let executing {
            lines.append(
                "  at \(executing.isQuery ? "a query" : "the command") at position \(executing.position), instance \(executing.instance): executed now, or where the last process ended"
            )
        }
        if let lastEnd {
            lines.append(
                "  the last start found that the process before had ended at \(lastEnd.isQuery ? "a query" : "the command") at position \(lastEnd.position), the same \(lastEnd.times) times in a row"
            )
        }
        if !skipped.isEmpty {
            lines.append("  skipped positions, the latest first: \(skipped.map { "\($0)" }.joined(separator: ", "))")
        }
        lines.append("  \(sessions.count) of \(sessionCapacity) sessions, \(opened) opened so far")
        for session in sessions {
            lines.append(
                "  session \(session.id): sequence \(session.sequence) at position \(session.position), status \(session.status), reply of \(session.replyLength) bytes"
            )
        }
        return lines
    }
}
