import MPaxosConsensus
import MPaxosInvariants
import MPaxosSimulation
import MPaxosWire

/// What goes from one host to another.
extension ClusterSimulator {
    private func delay() -> Microseconds { plan.delay + random.below(plan.jitter) }

    /// Two hosts that are up get a link, if the ways between them are open, in a moment.
    func meet(_ one: Host, _ other: Host) {
        guard ways.isOpen(one.index, other.index), !ways.stands(one.index, other.index) else { return }
        agenda.put(
            .link(one.index, other.index, cut: ways.cut(one.index, other.index)), at: now + 1 + random.below(5_000))
    }

    func link(_ one: Int, _ other: Int, cut: UInt64) {
        guard cut == ways.cut(one, other), ways.isOpen(one, other), !ways.stands(one, other),
            let life = hosts[one].life, let otherLife = hosts[other].life
        else { return }
        ways.stand(one, other)
        life.links.connected(other, incarnation: hosts[other].incarnation, life: otherLife.pools.life)
        otherLife.links.connected(one, incarnation: hosts[one].incarnation, life: life.pools.life)
        for host in [one, other] { wakeLinks(hosts[host]) }
    }

    /// The link of two ends, and what was under way over it is lost.
    func sever(_ one: Int, _ other: Int) {
        guard ways.sever(one, other) else { return }
        for (host, peer) in [(one, other), (other, one)] {
            hosts[host].life?.links.lost(peer)
            wakeLinks(hosts[host])
        }
        if hosts[one].isUp, hosts[other].isUp { meet(hosts[one], hosts[other]) }
    }

    private func wakeLinks(_ host: Host) { wake(host, host.lanes.count == 4 ? 1 : 0) }

    func send(_ frame: [UInt8], from one: Int, to other: Int) {
        report.frames += 1
        if options.trace { trace("  \(one) -> \(other): \(FrameText.of(frame))") }
        if let violation = checker.sent(frame, by: one) { pendingViolation = pendingViolation ?? violation }
        guard ways.isOpen(from: one, to: other), ways.stands(one, other) else { return }
        var copies = 1
        if plan.isWild, isFaulty {
            if random.chance(perMille: plan.loss) { return }
            if random.chance(perMille: plan.loss) { copies = 2 }
        }
        if plants(.forwardTwice), frame.count > 64, PeerHeaderKind.isForward(frame) { copies = 2 }
        for _ in 0..<copies {
            let time = now + delay()
            let arrival = plan.isWild && isFaulty ? time : ways.arrival(from: one, to: other, at: time)
            agenda.put(.frame(frame, from: one, to: other, cut: ways.cut(one, other)), at: arrival)
        }
    }

    func arrive(_ frame: [UInt8], from one: Int, to other: Int, cut: UInt64) {
        guard cut == ways.cut(one, other) || plants(.framesOfOldLinks), let life = hosts[other].life else { return }
        life.links.take(frame, from: one)
        wakeLinks(hosts[other])
    }

    /// A plant: another client, which waits.
    private func anybody(but name: ClusterClient.Name) -> ClusterClient.Name {
        let client = clients[(name.client + 1) % clients.count]
        return .init(client: client.index, operation: client.operation?.number ?? 0)
    }

    /// A reply to a client.
    func send(_ header: [UInt8], _ body: [UInt8], to name: ClusterClient.Name, from host: Int) -> Bool {
        guard !(isFaulty && random.chance(perMille: plan.clientLoss)) else { return true }
        agenda.put(
            .reply(
                plantsNow(.replyToAnother, oneIn: 20) ? anybody(but: name) : name, host: host, header: header,
                body: body), at: now + 10 + random.below(300))
        return true
    }
}

/// A frame in words.
enum FrameText {
    static func of(_ frame: [UInt8]) -> String {
        frame.withUnsafeBytes { bytes in
            guard let decoded = try? PeerFrame(decoding: bytes) else { return "no frame" }
            switch decoded.content {
            case .message(let message): return message.summary
            default: return "\(decoded.content), \(decoded.payload.count) bytes"
            }
        }
    }
}

/// What a frame is, by its header alone.
enum PeerHeaderKind {
    static func isForward(_ frame: [UInt8]) -> Bool {
        frame.withUnsafeBytes { bytes in
            guard let decoded = try? PeerFrame(decoding: bytes), case .forward = decoded.content else { return false }
            return true
        }
    }
}
