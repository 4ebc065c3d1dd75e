import Glibc
import MPaxosCSupport
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPersistentMemory
import MPaxosPipeline
import MPaxosQueues
import MPaxosTopology
import MPaxosTransport

/// Which stage runs on which lane.
struct LanePlan {
    private enum Shape {
        /// One lane for all stages.
        case fused
        /// The executor on a lane of its own: while its commit waits for a disk, the others go on to vote.
        case executorApart
        /// A lane for each stage.
        case staged
    }

    let parkers: Parkers
    let lanes: [Lane]
    /// For engine and gateway when they share a lane.
    let gate: Gate?
    private let shape: Shape

    /// Cores that each replica on this host should have before a lane for each stage pays: below, handing over between
    /// threads costs more than it wins (see `docs/decisions/0003`).
    private static let coresForStages = 4

    init(
        topology: Topology, index: Int, durability: Durability, board: StatusBoard
    ) throws(MessagingError) {
        let host = topology.replicas[index].peer.host
        let neighbours = topology.replicas.filter { $0.peer.host == host }.count
        let cores = Int(csupport_usable_cores()) / max(1, neighbours)
        switch topology.pipeline.threads {
        case .fused: shape = .fused
        case .staged: shape = .staged
        case .auto: shape = cores >= Self.coresForStages ? .staged : durability == .msync ? .executorApart : .fused
        }
        // Spinning takes a core from somebody else unless there are plenty.
        let spins = cores >= Self.coresForStages ? 1000 : 0
        let names =
            switch shape {
            case .fused: ["replica"]
            case .executorApart: ["replica", "executor"]
            case .staged: ["gateway", "links", "engine", "executor"]
            }
        var made: [Lane] = []
        for name in names {
            guard let parker = Parker.allocate() else {
                throw MessagingError("start the lane \(name)", code: errno)
            }
            made.append(Lane(name: name, parker: parker, spins: spins, turn: board.turn(of: name)))
        }
        lanes = made
        gate = shape == .staged ? nil : .allocate()
        let first = made[0].parker
        let last = made[made.count - 1].parker
        parkers =
            shape == .staged
            ? Parkers(gateway: first, engine: made[2].parker, links: made[1].parker, executor: last)
            : Parkers(gateway: first, engine: first, links: first, executor: last)
    }

    /// - Parameters:
    ///   - clients: what the gateway receives from.
    ///   - peers: what the links receive from.
    func assign(
        gateway: Stage, links: Stage, engine: Stage, executor: Stage, clients: any Watched, peers: any Watched
    ) {
        lanes[0].watch(clients)
        lanes[shape == .staged ? 1 : 0].watch(peers)
        switch shape {
        case .staged:
            lanes[0].add(gateway)
            lanes[1].add(links)
            lanes[2].add(engine)
            lanes[3].add(executor)
        case .executorApart:
            for stage in [links, engine, gateway, engine, links] { lanes[0].add(stage) }
            lanes[1].add(executor)
        case .fused:
            // One turn of the lane takes a request as far as it can go: what peers answered, and with it the next batch
            // out of what has gathered, leaves before the executor begins and before its replies are sent, since the
            // others wait for it.
            for stage in [links, engine, gateway, engine, links, executor, gateway] { lanes[0].add(stage) }
        }
    }
}
