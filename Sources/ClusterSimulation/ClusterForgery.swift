import MPaxosConsensus
import MPaxosFrames
import MPaxosLinks
import MPaxosSimulation
import MPaxosWire

/// What comes over the network and no replica has sent, or not like this: whoever reaches a port may send what he
/// likes, and repeat what he has heard; what replicas send each other may be damaged.
struct Forger {
    /// Of what replicas have said, for as long as it takes.
    private var heard: [[UInt8]] = []
    private static let mostHeard = 200
    /// The connection that the stranger has at the port of each replica.
    var connections: [Connection?]

    init(count: Int) { connections = Array(repeating: nil, count: count) }

    /// Whoever reaches the ports may know everything but the tickets of connections that stand: who reads those on the
    /// network passes for a replica, where there are no keys (docs/decisions/0018-called-back.md).
    mutating func overhears(_ frame: [UInt8], random: inout SimulationRandom, _ plan: ClusterPlan) {
        guard plan.strangers > 0 else { return }
        guard random.index(frame[5] >= Handshake.firstKind ? 2 : 16) == 0 else { return }
        var frame = frame
        switch Self.handshake(frame) {
        case .hello(var hello):
            hello.ticket = random.next() | 1
            frame = Handshake.hello(hello).encode(sender: frame[6])
        case .call(var call):
            call.ticket = random.next() | 1
            frame = Handshake.call(call).encode(sender: frame[6])
        default: break
        }
        if heard.count < Self.mostHeard { heard.append(frame) } else { heard[random.index(heard.count)] = frame }
    }

    /// What a stranger sends.
    func make(random: inout SimulationRandom) -> [UInt8] {
        switch random.below(10) {
        case 0: return noise(random.index(200), random: &random)
        case 1: return header(random: &random)
        case ..<4:
            guard let frame = heard.randomElement(using: &random) else { return [] }
            return Self.change(frame, random: &random)
        default: return heard.randomElement(using: &random) ?? header(random: &random)
        }
    }

    private func noise(_ count: Int, random: inout SimulationRandom) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    /// A header under a checksum that is right.
    private func header(random: inout SimulationRandom) -> [UInt8] {
        let kinds: [UInt8] = [5, 6, 7, 0x80, 0x82, 0x90, 0x93, 0xf0, 0xf1, 0xf2, 0xf3, UInt8(random.below(256))]
        let payload = noise(random.index(3) * random.index(100), random: &random)
        let header = PeerHeader(
            kind: kinds[random.index(kinds.count)], sender: UInt8(random.below(10)),
            payloadCount: UInt32(payload.count), payloadChecksum: UInt32(truncatingIfNeeded: random.next()),
            random.next() >> 2, random.next() >> 2, random.below(100), random.below(100), 0)
        let version = random.index(4) == 0 ? UInt8(random.below(256)) : peerProtocolVersion
        return [UInt8](unsafeUninitializedCapacity: PeerHeader.size) { bytes, count in
            header.encode(into: UnsafeMutableRawPointer(bytes.baseAddress!), version: version)
            count = PeerHeader.size
        } + payload
    }

    /// A frame in which one bit is another, or which has ended too early, or too late: what checksums and counts find
    /// for sure.
    static func change(_ frame: [UInt8], random: inout SimulationRandom) -> [UInt8] {
        var frame = frame
        switch random.below(4) {
        case 0: frame.removeLast(1 + random.index(frame.count))
        case 1: frame += (0...random.index(40)).map { UInt8($0) }
        default:
            // Half of the time in the header.
            let place = random.index(random.index(2) == 0 ? min(PeerHeader.size, frame.count) : frame.count)
            frame[place] ^= 1 << UInt8(random.index(8))
        }
        return frame
    }

    static func handshake(_ frame: [UInt8]) -> Handshake? {
        frame.withUnsafeBytes { bytes in
            guard let header = try? PeerHeader(decoding: bytes), header.kind >= Handshake.firstKind else { return nil }
            return try? Handshake(header: header, payload: UnsafeRawBufferPointer(rebasing: bytes[PeerHeader.size...]))
        }
    }
}

extension ClusterSimulator {
    /// A stranger sends something to some replica.
    func strangerActs() {
        // In calm times, too: strangers do not end.
        agenda.put(.stranger, at: now + 1 + random.below(2 * plan.strangers * (isFaulty ? 1 : 10)))
        let host = hosts[random.index(hosts.count)]
        if random.index(20) == 0, let connection = forger.connections[host.index] {
            connections.end(connection)
            forger.connections[host.index] = nil
        }
        if !(forger.connections[host.index]?.isStanding ?? false) {
            // Where there are keys he has none, or that of a replica which speaks in the name of others.
            let key = plan.hasKeys && random.index(3) > 0 ? random.index(hosts.count) : nil
            forger.connections[host.index] = connections.connectStranger(to: host.index, key: key)
        }
        let frame = forger.make(random: &random)
        guard let connection = forger.connections[host.index] else { return }
        if connections.slip(frame, over: connection, toPort: true) { report.forged += 1 }
        trace("a stranger sends \(FrameText.of(frame)) to \(host.index)")
        if !Self.isGreeting(frame) { host.refusable += 1 }
    }

    /// Of all that comes from a stranger, this alone is not refused at once.
    private static func isGreeting(_ frame: [UInt8]) -> Bool {
        switch Forger.handshake(frame) {
        case .hello, .call: true
        default: false
        }
    }

    /// What becomes of a frame of a link.
    func damage(_ frame: [UInt8], from one: Int, to other: Int) {
        let changed = Forger.change(frame, random: &random)
        agenda.put(
            .damaged(changed, from: one, to: other), at: now + plan.delay + random.below(plan.jitter))
        trace("  damaged on its way: \(FrameText.of(frame))")
        // What libzmq itself cannot read ends the connection.
        if random.index(4) == 0 { connections.cut(one, other) }
    }

    func arrive(damaged frame: [UInt8], from one: Int, to other: Int) {
        guard let (connection, toPort) = connections.link(from: one, to: other),
            connections.slip(frame, over: connection, toPort: toPort)
        else { return }
        report.forged += 1
        let isHeader = frame.withUnsafeBytes { (try? PeerHeader(decoding: $0)) != nil }
        if !isHeader { hosts[other].refusable += 1 }
    }

    /// Nothing that could but be refused was taken for something else.
    func refused(by host: Host) -> String? {
        guard let board = host.life?.board else { return nil }
        let counted = board.peers.reduce(board.strangersRefused.load()) { $0 + $1.framesMalformed.load() }
        return counted >= host.refusable
            ? nil : "replica \(host.index) got \(host.refusable) frames that are none, and counted \(counted)"
    }
}
