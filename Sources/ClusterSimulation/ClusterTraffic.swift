import MPaxosConsensus
import MPaxosInvariants
import MPaxosSimulation
import MPaxosWire

/// What goes from one host to another, and to clients.
extension ClusterSimulator {
    func makeConnections() -> SimulatedConnections {
        SimulatedConnections(
            replicaCount: options.replicaCount,
            in: .init(
                schedule: { [unowned self] in agenda.put(.connection($1), at: now + $0) },
                deliveries: { [unowned self] in deliveries(of: Array($2), from: $0, to: $1) },
                reaches: { [unowned self] in ways.isOpen($0, $1) },
                handshakeTime: { [unowned self] _, _ in 1 + random.below(5_000) },
                arrived: { [unowned self] in wakeLinks(hosts[$0]) }))
    }

    private func wakeLinks(_ host: Host) { wake(host, host.lanes.count == 4 ? 1 : 0) }

    /// How long each copy of a frame takes that leaves a host.
    private func deliveries(of frame: [UInt8], from one: Int, to other: Int) -> [UInt64] {
        guard !hosts[one].isDoomed, other != SimulatedLinkSockets.stranger else { return [] }
        report.frames += 1
        if options.trace { trace("  \(one) -> \(other): \(FrameText.of(frame))") }
        if let violation = checker.sent(frame, by: one) { pendingViolation = pendingViolation ?? violation }
        guard ways.isOpen(from: one, to: other) else { return [] }
        if hosts[one].driftPosition != nil, FrameText.givesState(frame) { return [] }
        forger.overhears(frame, random: &random, plan)
        if isFaulty, random.chance(perMille: plan.damage) {
            damage(frame, from: one, to: other)
            return []
        }
        var copies = 1
        if plan.isWild, isFaulty {
            if random.chance(perMille: plan.loss) { return [] }
            if random.chance(perMille: plan.loss) { copies = 2 }
        }
        if plants(.forwardTwice), FrameText.isForward(frame) { copies = 2 }
        return (0..<copies).map { _ in
            let time = now + plan.delay + random.below(plan.jitter)
            return (plan.isWild && isFaulty ? time : ways.arrival(from: one, to: other, at: time)) - now
        }
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
            case .handshake: return "a frame of the handshake"
            default: return "\(decoded.content), \(decoded.payload.count) bytes"
            }
        }
    }

    /// Whether its sender offers or gives its state. Also one that says what came in pieces.
    static func givesState(_ frame: [UInt8]) -> Bool {
        frame.withUnsafeBytes { bytes in
            guard let decoded = try? PeerFrame(decoding: bytes) else { return false }
            switch decoded.content {
            case .transfer(.offer), .transfer(.chunk): return true
            // Behind the header of what it delivers there is nothing: it is looked at alone.
            case .link(.deliver): return decoded.payload[5] == TransferMessage.chunkKind
            default: return false
            }
        }
    }

    static func isForward(_ frame: [UInt8]) -> Bool {
        frame.withUnsafeBytes { bytes in
            guard let decoded = try? PeerFrame(decoding: bytes), case .forward = decoded.content else { return false }
            return true
        }
    }
}
