import MPaxosConsensus
import MPaxosPipeline
import MPaxosSimulation

/// A mistake that the simulation makes on purpose, around the stages, to show that its checkers see what such a mistake
/// in them would do.
package enum ClusterPlant: String, CaseIterable, Sendable {
    /// A group commit of the log is told to be durable before it is.
    case forgottenLogFence
    /// So is a commit of the state.
    case forgottenStateFence
    /// Some records of the log are not flushed.
    case forgottenLogFlush
    /// The executor says that it is further than it is, so that the log overwrites what it still reads.
    case logOverwrittenEarly
    /// A forwarded run of commands is ordered twice.
    case forwardTwice
    /// The gateway meets each request of some twice.
    case requestTwice
    /// Which position a local query asks for is not looked at.
    case positionIgnored
    /// A replica skips a command that the others execute.
    case skippedAlone
    /// Tags of one life of a replica are those of the life before.
    case epochUsedTwice
    /// The port gives a reply to the client that asked next.
    case replyToAnother
    /// A place in the ring of the bodies is never given back.
    case placeKept
}

extension ClusterPlant {
    /// Whether the replicas may find it themselves, and then stop the process.
    package var traps: Bool { self == .logOverwrittenEarly }
}

extension ClusterSimulator {
    func plants(_ plant: ClusterPlant) -> Bool { options.plant == plant }

    /// Once in some times, and only while there are faults: the end must show what it did.
    func plantsNow(_ plant: ClusterPlant, oneIn count: Int) -> Bool {
        plants(plant) && isFaulty && random.index(count) == 0
    }

    func plantAtStart(of host: Host) {
        switch options.plant {
        case .forgottenLogFence:
            host.acceptor.forget(fences: { [unowned self] in random.index(4) == 0 }, flushes: nil)
        case .forgottenStateFence:
            host.state.forget(fences: { [unowned self] in random.index(4) == 0 }, flushes: nil)
        case .forgottenLogFlush:
            host.acceptor.forget(fences: nil, flushes: { [unowned self] in random.index(8) == 0 })
        case .skippedAlone where host.index == 1 && host.starts == 1:
            _ = host.life?.pools.state.skip([3 + UInt64(random.index(20))])
        default: break
        }
    }

    func plantAfterTurn(of host: Host) {
        guard let stages = host.life?.stages else { return }
        if plants(.placeKept), random.index(1_000) == 0 {
            withUnsafeBytes(of: 0 as UInt64) { _ = stages.rings.bodies.push($0) }
        }
        guard plants(.logOverwrittenEarly) else { return }
        stages.progress.executed = max(stages.progress.executed, stages.engine.decidedInstance)
    }
}
