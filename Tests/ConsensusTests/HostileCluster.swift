import MPaxosConsensus

/// A cluster in which messages arrive that no honest replica sent: each in the name of some peer, each as the wire lets
/// it through. Between them go honest ones, time, proposals, crashes, and all else that a driver does with a core.
final class HostileCluster {
    let cluster: TestCluster
    private let count: Int
    private var messages: HostileMessages
    private var random: FuzzRandom
    /// Of a hundred steps.
    private var hostileSteps = 0
    /// Whether logs are trimmed, so that what one has dropped nobody may have any more.
    private let isTrimming: Bool
    private(set) var refused: UInt64 = 0
    private(set) var hostile = 0

    init(_ count: Int, seed: UInt64, window: Int = 8, slotCount: Int = 64, isTrimming: Bool = true) {
        self.count = count
        self.isTrimming = isTrimming
        cluster = TestCluster(count, window: window, slotCount: slotCount)
        random = FuzzRandom(seed: seed)
        messages = HostileMessages(count, seed: seed, window: window, slotCount: slotCount)
    }

    // MARK: Steps

    func step() throws {
        if random.below(100) == 0 {
            hostileSteps = [0, 2, 10, 30, 60][random.below(5)]
            if random.below(2) == 0 { try calmDown(for: 40) }
        }
        if random.below(100) < hostileSteps { return try injectHostile() }
        let replica = random.below(count)
        let member = cluster.members[replica]
        guard member.isUp else {
            if random.below(8) == 0 { cluster.start(replica) }
            return
        }
        switch random.below(100) {
        case 0..<55: try deliverSome()
        case 55..<68:
            cluster.now += UInt64(random.below(random.below(4) == 0 ? 700_000 : 30_000))
            member.core.tick(now: cluster.now, into: &member.effects)
        case 68..<80: cluster.propose(UInt64(random.below(1 << 30) + 1), at: replica)
        case 80..<84: if isTrimming { trim(replica, to: member.floor + UInt64(random.below(12))) }
        case 84..<87: member.isHeld.toggle()
        case 87..<89:
            member.lacksRoom = true
        case 89..<92: cluster.makeRoom(replica)
        case 92..<95:
            if let peer = peer(of: replica) {
                let patience = UInt64(random.below(2_000_000))
                let distance = UInt64(random.below(400_000))
                cluster.allow(
                    [Int.max, 0, -5, 100, 1 << 20][random.below(5)], patience: patience, distance: distance,
                    from: replica, to: peer)
            }
        case 95: if let peer = peer(of: replica) { member.core.hears(peer, now: cluster.now) }
        case 96..<98:
            if let peer = peer(of: replica), cluster.members[peer].isUp { cluster.reconnect(replica, peer) }
        default:
            if random.below(4) == 0 {
                if random.below(2) == 0 { cluster.flush(replica) }
                cluster.crash(replica)
                return
            }
        }
        if !member.isHeld { cluster.flush(replica) }
        cluster.absorb(replica)
    }

    /// Some time in which everything arrives and is durable, so that mostly somebody leads.
    func calmDown(for turns: Int) throws {
        for replica in 0..<count where cluster.members[replica].isUp {
            cluster.members[replica].isHeld = false
            cluster.flush(replica)
            cluster.absorb(replica)
        }
        for _ in 0..<turns {
            cluster.now += 20_000
            for replica in 0..<count where cluster.members[replica].isUp {
                cluster.members[replica].core.tick(now: cluster.now, into: &cluster.members[replica].effects)
                cluster.absorb(replica)
            }
            var most = 10_000
            while !cluster.inFlight.isEmpty {
                let (from, send) = cluster.inFlight.removeFirst()
                if cluster.members[send.to].isUp { try hand(send.message, from: from, to: send.to) }
                most -= 1
                try hold(most > 0, "replicas talk without end, last \(send.message) of \(from) to \(send.to)")
            }
        }
    }

    /// All start again from what is durable, and whoever lied is gone: what is proposed from then on is decided by all
    /// within a bound, and nobody waits for what there is not.
    func recover() throws {
        cluster.inFlight.removeAll()
        for replica in 0..<count where cluster.members[replica].isUp { cluster.crash(replica) }
        for replica in 0..<count { cluster.start(replica) }
        for turn in 0..<2_000 {
            try calmDown(for: 1)
            let decided = cluster.members.map { $0.core.decided }
            for replica in 0..<count { trim(replica, to: decided.min()! + 1) }
            let isDone = cluster.members.allSatisfy {
                $0.core.decided == decided[0] && $0.core.known == decided[0] && !$0.core.needsStateTransfer
            }
            guard let leader = cluster.members.firstIndex(where: { $0.core.isFollowed }) else { continue }
            if isDone, decided[0] > 0, cluster.members[leader].core.next == decided[0] + 1 { return }
            // Each that has been told other values than the others takes part again with the next that are proposed.
            if turn % 16 == 0 { cluster.propose(5, at: leader) }
        }
        let states = cluster.members.map {
            "\($0.core.role) view \($0.core.view) decided \($0.core.decided) known \($0.core.known) base \($0.core.base)"
        }
        throw Violation(description: "not usable after a restart: \(states)")
    }

    func trim(_ replica: Int, to wanted: Instance) {
        let member = cluster.members[replica]
        let floor = min(wanted, member.core.decided + 1)
        member.core.advanceFloor(to: floor, now: cluster.now, into: &member.effects)
        member.floor = max(member.floor, floor)
        member.slots = member.slots.filter { $0.key >= member.floor }
    }

    private func peer(of replica: Int) -> Int? {
        guard count > 1 else { return nil }
        return (replica + 1 + random.below(count - 1)) % count
    }

    private func deliverSome() throws {
        // What nobody takes is lost.
        if cluster.inFlight.count > 256 { cluster.inFlight.removeFirst(128) }
        guard !cluster.inFlight.isEmpty else { return }
        let place = random.below(3) == 0 ? random.below(cluster.inFlight.count) : 0
        let (from, send) = cluster.inFlight[place]
        if random.below(20) != 0 { cluster.inFlight.remove(at: place) }
        guard random.below(12) != 0, cluster.members[send.to].isUp else { return }
        try hand(send.message, from: from, to: send.to)
    }

    private func injectHostile() throws {
        var replica = random.below(count)
        // Mostly to one that does more than to follow.
        let busy = cluster.members.firstIndex { $0.isUp && $0.core.role != .follower }
        if let busy, random.below(2) == 0 { replica = busy }
        guard cluster.members[replica].isUp, let from = peer(of: replica) else { return }
        let message = messages.next(about: cluster.members[replica].core, from: from, to: replica)
        if Fuzz.traces { print("\(replica) of \(count) from \(from): \(message)") }
        let before = cluster.members[replica].core.counters.refused
        hostile += 1
        try hand(message, from: from, to: replica)
        refused += cluster.members[replica].core.counters.refused - before
    }

    /// As the engine does it: a batch that the core does not want is not copied.
    private func hand(_ message: Message, from: Int, to: Int) throws {
        let wants = cluster.members[to].core.wants(message, from: from)
        let kept = cluster.deliver(message, from: from, to: to)
        cluster.delivered.removeAll(keepingCapacity: true)
        if random.below(8) == 0, let violation = cluster.members[to].core.violatedInvariant() {
            throw Violation(description: "violates: \(violation), after \(message) of \(from) to \(to)")
        }
        try hold(wants || !kept || message.batch.isNoop, "a batch was kept that was not wanted: \(message)")
    }
}
