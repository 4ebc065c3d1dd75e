import CSupport
import Glibc
import Messaging
import Queues
import Topology

/// Which stage runs on which lane.
struct LanePlan {
    let parkers: Parkers
    let lanes: [Lane]
    /// For engine and gateway when they share a lane.
    let gate: Gate?
    private let isStaged: Bool

    /// Cores that each replica on this host should have before a lane for each stage pays: below, handing over between
    /// threads costs more than it wins (see `docs/decisions/0003`).
    private static let coresForStages = 4

    init(topology: Topology, index: Int) throws(MessagingError) {
        let host = topology.replicas[index].peer.host
        let neighbours = topology.replicas.filter { $0.peer.host == host }.count
        let cores = Int(csupport_usable_cores()) / max(1, neighbours)
        switch topology.pipeline.threads {
        case .fused: isStaged = false
        case .staged: isStaged = true
        case .auto: isStaged = cores >= Self.coresForStages
        }
        // Spinning takes a core from somebody else unless there are plenty.
        let spins = cores >= Self.coresForStages ? 1000 : 0
        var made: [Lane] = []
        for name in isStaged ? ["gateway", "links", "engine", "executor"] : ["replica"] {
            guard let parker = Parker.allocate() else {
                throw MessagingError("start the lane \(name)", code: errno)
            }
            made.append(Lane(name: name, parker: parker, spins: spins))
        }
        lanes = made
        gate = isStaged ? nil : .allocate()
        parkers =
            isStaged
            ? Parkers(
                gateway: made[0].parker, engine: made[2].parker, links: made[1].parker, executor: made[3].parker)
            : Parkers(
                gateway: made[0].parker, engine: made[0].parker, links: made[0].parker, executor: made[0].parker)
    }

    func assign(gateway: Stage, links: Stage, engine: Stage, executor: Stage) {
        if isStaged {
            lanes[0].add(gateway)
            lanes[1].add(links)
            lanes[2].add(engine)
            lanes[3].add(executor)
        } else {
            // One turn of the lane takes a request as far as it can go: what peers answered, and with it the next batch out of what
            // has gathered, leaves before the executor begins and before its replies are sent, since the others wait for it.
            for stage in [links, engine, gateway, engine, links, executor, gateway] { lanes[0].add(stage) }
        }
    }
}
