import MPaxosConsensus
import MPaxosFrames
import MPaxosMessaging
import MPaxosQueues
import MPaxosWire

@testable import MPaxosPipeline

/// A frame on its way from one replica to another.
struct Carried {
    let from: Int
    let to: Int
    /// Microseconds: when it was handed to the link, and when its last byte is at the other end.
    let departure: UInt64
    let arrival: UInt64
    let bytes: [UInt8]

    /// What it is; nil for garbage.
    var content: PeerFrame.Content? { bytes.withUnsafeBytes { try? PeerFrame(decoding: $0).content } }
    var payload: ArraySlice<UInt8> { bytes[PeerHeader.size...] }

    var link: LinkFrame? {
        if case .link(let frame)? = content { return frame }
        return nil
    }
    var message: Message? {
        if case .message(let message)? = content { return message }
        return nil
    }
    /// Bytes of payload, whether it travels whole or in pieces; what a DELIVER carries is none.
    var payloadBytes: Int {
        switch link {
        case .piece: payload.count
        case .some: 0
        case nil: payload.count
        }
    }
    var pieceOf: UInt64? {
        if case .piece(let parcel, _, _)? = link { return parcel }
        return nil
    }
}

/// The links between replicas in virtual time: each direction has a narrowest place with a queue without end, then a
/// delay. Nothing overtakes, and nothing is lost until `reset`.
final class VirtualNetwork {
    private struct Way {
        var rate: Double
        var delay: UInt64
        var isCut = false
        var busyUntil = 0.0
        var underWay: [Carried] = []
        var first = 0
    }

    private var ways: [[Way]]
    /// All that was handed to the links, in order.
    private(set) var history: [Carried] = []
    /// Pieces among them.
    private(set) var pieces = 0

    /// - Parameters:
    ///   - rate: bytes a second.
    ///   - roundTrip: microseconds without a queue.
    init(count: Int, rate: Double, roundTrip: UInt64) {
        ways = Array(
            repeating: Array(repeating: Way(rate: rate, delay: roundTrip / 2), count: count), count: count)
    }

    /// Changes both directions of a link.
    func set(_ one: Int, _ other: Int, rate: Double? = nil, roundTrip: UInt64? = nil, isCut: Bool? = nil) {
        for (from, to) in [(one, other), (other, one)] {
            if let rate { ways[from][to].rate = rate }
            if let roundTrip { ways[from][to].delay = roundTrip / 2 }
            if let isCut { ways[from][to].isCut = isCut }
        }
    }

    /// What is under way on a link is lost.
    func reset(_ one: Int, _ other: Int) {
        for (from, to) in [(one, other), (other, one)] {
            ways[from][to].underWay = []
            ways[from][to].first = 0
            ways[from][to].busyUntil = 0
        }
    }

    func send(_ bytes: [UInt8], from: Int, to: Int, now: UInt64) {
        let start = max(ways[from][to].busyUntil, Double(now))
        let end = start + Double(bytes.count) * 1e6 / ways[from][to].rate
        let carried = Carried(
            from: from, to: to, departure: now, arrival: UInt64(end) + ways[from][to].delay, bytes: bytes)
        history.append(carried)
        if carried.pieceOf != nil { pieces += 1 }
        guard !ways[from][to].isCut else { return }
        ways[from][to].busyUntil = end
        ways[from][to].underWay.append(carried)
    }

    /// Hands what a replica wants to be sent to the links.
    func send(_ departures: SPSCRing<Departure>, from: Int, now: UInt64) {
        let frame = Frame()
        while let departure = departures.pop() {
            frame.adopt(departure.frame)
            let bytes = Array(frame.bytes)
            for to in ways.indices where departure.peers & 1 << UInt16(to) != 0 {
                send(bytes, from: from, to: to, now: now)
            }
        }
    }

    var nextArrival: UInt64 {
        var next = UInt64.max
        for row in ways {
            for way in row where way.first < way.underWay.count { next = min(next, way.underWay[way.first].arrival) }
        }
        return next
    }

    /// Takes out what has arrived at a replica.
    func arrived(at to: Int, now: UInt64) -> [Carried] {
        var all: [Carried] = []
        for from in ways.indices {
            while ways[from][to].first < ways[from][to].underWay.count {
                let next = ways[from][to].underWay[ways[from][to].first]
                guard next.arrival <= now else { break }
                all.append(next)
                ways[from][to].first += 1
            }
            if ways[from][to].first == ways[from][to].underWay.count {
                ways[from][to].underWay.removeAll(keepingCapacity: true)
                ways[from][to].first = 0
            }
        }
        return all
    }

    /// What was handed to one direction of a link from some place in `history` on.
    func sent(from: Int, to: Int, since start: Int = 0) -> [Carried] {
        history[start...].filter { $0.from == from && $0.to == to }
    }

    func payloadBytes(from: Int, to: Int, since start: Int = 0) -> Int {
        sent(from: from, to: to, since: start).reduce(0) { $0 + $1.payloadBytes }
    }
}
