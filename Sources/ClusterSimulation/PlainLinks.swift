import MPaxosConsensus
import MPaxosFrames
import MPaxosInvariants
import MPaxosPipeline
import MPaxosQueues

/// The links of a simulated replica: whoever it is connected to it takes for the member that it is.
final class PlainLinks: Stage {
    /// What reached the links, and waits for room in the ring to the engine.
    private enum Input {
        case frame([UInt8])
        case connected(incarnation: UInt64, life: Life)
        case lost
    }

    private var inputs: [(from: Int, input: Input)] = []
    private let rings: Rings
    private let progress: Progress
    private let engine: Parker
    private let send: (_ frame: [UInt8], _ peer: Int) -> Void
    private let frame = Frame()

    init(
        rings: Rings, progress: Progress, engine: Parker, send: @escaping (_ frame: [UInt8], _ peer: Int) -> Void
    ) {
        self.rings = rings
        self.progress = progress
        self.engine = engine
        self.send = send
    }

    func take(_ frame: [UInt8], from peer: Int) { inputs.append((peer, .frame(frame))) }

    func connected(_ peer: Int, incarnation: UInt64, life: Life) {
        inputs.append((peer, .connected(incarnation: incarnation, life: life)))
    }

    func lost(_ peer: Int) { inputs.append((peer, .lost)) }

    /// Whether a lane that watches the sockets would be woken.
    var wakes: Bool { !inputs.isEmpty }

    override func poll(budget: Int, now: UInt64) -> Bool {
        var work = 0
        while work < budget, let departure = rings.departures.pop() {
            work += 1
            frame.adopt(departure.frame)
            let bytes = Array(frame.bytes)
            for peer in 0..<16 where departure.peers & 1 << UInt16(peer) != 0 && progress.isConnected(peer) {
                send(bytes, peer)
            }
            frame.clear()
        }
        var taken = 0
        while taken < budget, taken < inputs.count, rings.arrivals.free > Arrival.most {
            let (peer, input) = inputs[taken]
            taken += 1
            switch input {
            case .lost: progress.set(connected: false, peer)
            case .connected(let incarnation, let life):
                progress.set(connected: true, peer)
                push(
                    Arrival(
                        kind: .connected, peer: UInt8(peer), incarnation: incarnation, life: life, frame: RawFrame()))
            case .frame(let bytes):
                guard progress.isConnected(peer) else { continue }
                bytes.withUnsafeBytes { frame.rebuild(copying: $0) }
                push(Arrival(kind: .frame, peer: UInt8(peer), incarnation: 0, life: .none, frame: frame.take()))
            }
        }
        inputs.removeFirst(taken)
        if rings.arrivals.publish() { engine.wake() }
        return work + taken > 0
    }

    private func push(_ arrival: Arrival) {
        let pushed = rings.arrivals.push(arrival)
        invariant(pushed, "a ring with room takes an arrival")
    }
}
