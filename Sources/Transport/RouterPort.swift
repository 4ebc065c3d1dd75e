import MPaxosInvariants
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosWire
import MPaxosZMTP

/// Clients over sockets that the gateway's own lane reads and writes: `socket = "router"`, the usual case.
///
/// In an envelope the connection's name stands where libzmq's ROUTER puts the routing id.
final class RouterPort: ClientPort, Watched {
    private let router: Router
    private let board: StatusBoard
    private var watch: Watch?
    private var item: Watch.Item?

    init(_ router: Router, board: StatusBoard) {
        self.router = router
        self.board = board
    }

    package func register(in watch: Watch) {
        self.watch = watch
        item = watch.add(fileDescriptor: router.fileDescriptor)
    }

    override package func hold(_ isHeld: Bool) {
        guard let watch, let item else { broken("a port is registered before it is held") }
        watch.hold(item, isHeld)
    }

    override package func isReady(now: UInt64) -> Bool {
        guard let watch, let item else { broken("a port is registered before it is used") }
        if router.hasMore { return true }
        guard watch.isReady(item) || now >= router.nextDeadline else { return false }
        // One look a turn: what comes later signals again.
        watch.wasEmpty(item)
        router.look(now: now)
        return router.hasMore
    }

    override package var hasMore: Bool { router.hasMore }

    override package var nextDeadline: UInt64 { router.nextDeadline }

    override package func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
        guard var message = router.receive(now: now) else { return .nothing }
        envelope.pointee.clear()
        var name = message.peer
        _ = withUnsafeBytes(of: &name) { envelope.pointee.append($0) }
        while let frame = message.nextFrame() {
            guard envelope.pointee.append(frame) else { return .unanswerable }
            if frame.isEmpty {
                let frames = content(of: &message)
                return frames == 0 ? .probe : .request(frames: frames)
            }
        }
        return .unanswerable
    }

    private func content(of message: inout Router.Message) -> Int {
        (header, body) = (Self.nothing, Self.nothing)
        guard let first = message.nextFrame() else { return 0 }
        header = first
        guard let second = message.nextFrame() else { return 1 }
        body = second
        var frames = 2
        while message.nextFrame() != nil { frames += 1 }
        return frames
    }

    override package func reply(
        to envelope: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer
    ) -> Bool {
        var frames = Envelope.Frames(envelope)
        let peer = Self.takePeer(&frames)
        var size = Codec.size(ofFrame: header.count) + Codec.size(ofFrame: body.count)
        for frame in frames { size += Codec.size(ofFrame: frame.count) }
        guard let place = router.reserve(size, for: peer) else { return false }
        var at = place
        for frame in frames { at = Codec.write(frame, more: true, to: at) }
        at = Codec.write(header, more: true, to: at)
        at = Codec.write(body, more: false, to: at)
        invariant(at == place + size, "a reply has the size that was reserved for it")
        return true
    }

    private static func takePeer(_ frames: inout Envelope.Frames) -> Peer {
        guard let name = frames.next(), name.count == MemoryLayout<Peer>.size else {
            broken("an envelope begins with its connection's name")
        }
        return name.loadUnaligned(as: Peer.self)
    }

    /// The name in front of a packed envelope: it is looked at some times for each request.
    @inline(__always)
    private func peer(of envelope: UnsafeRawBufferPointer) -> Peer {
        invariant(
            envelope.count >= 2 + MemoryLayout<Peer>.size
                && envelope.loadUnaligned(as: UInt16.self) == UInt16(MemoryLayout<Peer>.size),
            "an envelope begins with its connection's name")
        return envelope.loadUnaligned(fromByteOffset: 2, as: Peer.self)
    }

    override package func outstanding(of envelope: UnsafeRawBufferPointer) -> Int {
        router.outstanding(of: peer(of: envelope))
    }

    override package func admitted(_ envelope: UnsafeRawBufferPointer) {
        router.countOutstanding(1, of: peer(of: envelope))
    }

    override package func answered(_ envelope: UnsafeRawBufferPointer) {
        router.countOutstanding(-1, of: peer(of: envelope))
    }

    override package func flush() {
        router.flush()
        board.connections.store(UInt64(router.connectionCount))
        board.connectionsBroken.store(router.violations)
        board.connectionsSilent.store(router.silences)
        board.connectionsEvicted.store(router.evictions)
    }
}
