import MPaxosInvariants
import Synchronization

/// One line of /metrics and where its number is.
package struct Metric: Sendable {
    package enum Kind: String, Sendable { case counter, gauge }

    /// Without the prefix.
    package let name: String
    /// Of the first metric of a name; later ones of the same name, with other labels, leave it empty.
    package let help: String
    package let kind: Kind
    package let labels: [(name: String, value: String)]
    package let value: Gauge
}

/// Hands out the cells of a board and writes down what each is.
struct CatalogueBuilder {
    let block = CellBlock()
    private(set) var metrics: [Metric] = []
    private var next = 0

    /// What follows is another stage's: it must not share cache lines with what went before.
    mutating func beginSection() {
        next = (next + CellBlock.sectionCells - 1) / CellBlock.sectionCells * CellBlock.sectionCells
    }

    mutating func counter(_ name: String, _ help: String, labels: [(String, String)] = []) -> Counter {
        let cell = takeCell()
        metrics.append(Metric(name: name, help: help, kind: .counter, labels: labels, value: Gauge(cell)))
        return Counter(cell)
    }

    mutating func gauge(_ name: String, _ help: String, labels: [(String, String)] = []) -> Gauge {
        let gauge = Gauge(takeCell())
        metrics.append(Metric(name: name, help: help, kind: .gauge, labels: labels, value: gauge))
        return gauge
    }

    /// A cell that /metrics does not show as it is.
    mutating func hidden() -> Gauge { Gauge(takeCell()) }

    /// The cells of all peers. Prometheus wants all lines of one name together, so the metrics go name by name.
    mutating func peers(_ members: [UInt16]) -> [StatusBoard.Peer] {
        func label(_ index: Int) -> [(String, String)] { [("peer", "\(members[index])")] }
        func help(_ index: Int, _ text: String) -> String { index == 0 ? text : "" }
        let all = members.indices
        let connected = all.map { gauge("peer_connected", help($0, "1 while the link stands"), labels: label($0)) }
        let sent = all.map { counter("peer_frames_sent_total", help($0, "Frames sent to a peer"), labels: label($0)) }
        let received = all.map {
            counter("peer_frames_received_total", help($0, "Frames received from a peer"), labels: label($0))
        }
        let lost = all.map {
            counter(
                "peer_frames_lost_total", help($0, "Frames not sent: the queue was full or the peer away"),
                labels: label($0))
        }
        let malformed = all.map {
            counter("peer_frames_malformed_total", help($0, "Frames of a peer not understood"), labels: label($0))
        }
        func gauges(_ name: String, _ text: String) -> [Gauge] {
            all.map { gauge(name, help($0, text), labels: label($0)) }
        }
        func counters(_ name: String, _ text: String) -> [Counter] {
            all.map { counter(name, help($0, text), labels: label($0)) }
        }
        // Written by the engine, where those before are the links'.
        beginSection()
        let roundTrip = gauges("peer_round_trip_us", "Smoothed round-trip time to a peer, 0 before it is known")
        let window = gauges("peer_window_bytes", "Bytes that may be under way to a peer")
        let underWay = gauges(
            "peer_under_way_bytes", "Bytes with a payload sent to a peer and not known to have arrived")
        let queued = gauges("peer_queued_bytes", "Bytes that wait for room on the link to a peer")
        let behind = gauges("peer_behind_instances", "As leader: instances proposed and not acknowledged by a peer")
        let bytesSent = counters("peer_bytes_sent_total", "Bytes of frames with a payload sent to a peer")
        let resent = counters("peer_proposals_resent_total", "Proposals sent to a peer again")
        let parcelsLost = counters(
            "peer_parcels_lost_total", "Parts of a peer's large frames that do not belong where they came")
        let implausible = counters(
            "peer_frames_implausible_total", "Frames of a peer that say what no replica in its place can have to say")
        let digestsDiffered = counters(
            "peer_digests_differed_total", "Times that the state of a peer differed from that of a majority")
        return all.map { index in
            StatusBoard.Peer(
                id: members[index], connected: connected[index], framesSent: sent[index],
                framesReceived: received[index], framesLost: lost[index], framesMalformed: malformed[index],
                refusal: Note(), roundTrip: roundTrip[index], window: window[index], underWay: underWay[index],
                queued: queued[index], behind: behind[index], bytesSent: bytesSent[index], resent: resent[index],
                parcelsLost: parcelsLost[index], framesImplausible: implausible[index],
                digestsDiffered: digestsDiffered[index])
        }
    }

    private mutating func takeCell() -> UnsafeMutablePointer<Atomic<UInt64>> {
        invariant(next < CellBlock.capacity, "the board has a cell for each metric: raise CellBlock.capacity")
        defer { next += 1 }
        return block.base + next
    }
}
