import MPaxosCSupport
import MPaxosInvariants
import MPaxosMetrics

/// Whether a replica can be counted on now: what /healthz answers, and `ready` in STATUS and /metrics. A word that
/// somebody stored once is not enough; those who would take it back may stand still.
extension StatusBoard {
    /// A turn takes some milliseconds at most. A lane that is at the same one for so many microseconds waits for a disk
    /// that does not answer, or gets no core.
    static let longestTurn: UInt64 = 1_000_000

    /// Why this replica is not to be counted on; nil when it is ready. Any thread.
    /// - Parameter now: microseconds of the monotonic clock.
    package func unreadiness(now: UInt64) -> String? {
        for lane in lanes {
            let began = lane.turn.load()
            guard began != 0, now > began + Self.longestTurn else { continue }
            return
                "its lane \(lane.name) has stood still for \(StatusReport.thousandths((now - began) / 1000)) s, as when a disk does not answer"
        }
        if isReady && isInTouch { return nil }
        if isInDispute { return "its state is in dispute" }
        if !isReady && !isFounded { return "the cluster is not founded" }
        if role == .leader && !isInTouch { return "it leads, and no majority has answered it of late" }
        if knownLeader == nil { return "no leader is known" }
        return isInTouch ? "it is catching up" : "its leader has not been heard of late"
    }

    /// The turn that each lane is at: when it began, or will while the lane sleeps; 0 where there is no such lane.
    package func turn(of lane: String) -> Gauge {
        guard let found = lanes.first(where: { $0.name == lane }) else { broken("a lane is one of the known") }
        return found.turn
    }
}
