import MPaxosConsensus
import MPaxosFlow
import MPaxosFrames
import MPaxosInvariants
import MPaxosMetrics
import MPaxosQueues
import MPaxosStorage
import MPaxosWire

/// What goes to the other replicas, and in which order. The engine's lane.
///
/// As much is under way to a peer as its `SendWindow` allows. What a replica says goes out at once; what has a payload
/// waits for room, in the log where it lies if it is a proposal; a payload that is too large to go whole goes in
/// pieces, between which all else passes. So a heartbeat, a vote or an acknowledgement waits at most for what is under
/// way, which the window keeps short.
package final class PeerTraffic {
    private struct Peer: ~Copyable {
        var window = SendWindow()
        var outgoing: [OutgoingParcel] = []
        /// Proposals among them that have not left.
        var waitingProposals = 0
        /// Counts pieces, to give the oldest parcel its share.
        var turn: UInt8 = 0
        var incoming: IncomingParcels

        init(largest: Int) { incoming = IncomingParcels(largest: largest) }
    }

    let index: Int
    private let count: Int
    private let peers: UnsafeMutablePointer<Peer>
    private let acceptor: AcceptorPool
    private let progress: Progress
    private let board: StatusBoard
    private let departures: SPSCRing<Departure>
    private let links: Parker
    private let frame = Frame()
    @exclusivity(unchecked) private var lastParcel: UInt64
    @exclusivity(unchecked) private var now: UInt64 = 0

    /// Parcels that may wait for one peer, and bytes of those that nobody asked for: what a peer keeps for a while.
    static let mostParcels = 64
    private static let mostBytes = 32 << 20
    /// Answers that may wait for one peer: more than one of the core's has, so that one that asks and does not read
    /// costs no more than these. The others are as good as lost, and are asked for again.
    static let mostAnswers = 256

    /// - Parameter firstParcel: others than those of this replica's life before, which a peer may still hold: drawn at
    ///   random, of 63 bits at most.
    package init(
        index: Int, count: Int, acceptor: AcceptorPool, progress: Progress, board: StatusBoard,
        departures: SPSCRing<Departure>, links: Parker, firstParcel: UInt64
    ) {
        self.index = index
        self.count = count
        self.acceptor = acceptor
        self.board = board
        self.departures = departures
        self.links = links
        self.progress = progress
        lastParcel = firstParcel
        peers = .allocate(capacity: count)
        // A chunk of a state comes also where the log is so small that no batch is as large.
        let largest = max(acceptor.largestBatch, TransferMessage.chunkSize)
        for peer in 0..<count { (peers + peer).initialize(to: Peer(largest: largest)) }
    }

    deinit {
        for peer in 0..<count {
            for parcel in peers[peer].outgoing { parcel.discard() }
            peers[peer].incoming.removeAll()
        }
        peers.deinitialize(count: count)
        peers.deallocate()
    }

    // MARK: The links

    /// The link to a peer is up, for the first time or again: what was under way is lost.
    func connected(_ peer: Int, now: UInt64) {
        peers[peer].window.reset(now: now)
        peers[peer].incoming.removeAll()
        // Frames that travel in pieces, and batches that are not proposed yet, begin anew. What went whole is lost, and
        // is sent again by whoever misses it: the core, or the client.
        remove(from: peer) { parcel in
            if case .logged = parcel.payload { return true }
            return parcel.instance != 0
        }
        for place in peers[peer].outgoing.indices {
            peers[peer].outgoing[place].offset = 0
        }
    }

    /// Payloads that wait for peers that are linked, or are on their way to them in pieces.
    var parcels: Int { (0..<count).reduce(0) { $0 + (isConnected($1) ? peers[$1].outgoing.count : 0) } }

    func isConnected(_ peer: Int) -> Bool { progress.isConnected(peer) }

    /// Bytes of proposals, or runs of commands, that may go to a peer now.
    func room(to peer: Int) -> Int { peers[peer].waitingProposals > 0 ? 0 : peers[peer].window.room }

    /// More was to be sent to a peer than there is room for.
    func ranShort(to peer: Int) { peers[peer].window.ranShort() }

    func patience(with peer: Int) -> UInt64? { peers[peer].window.roundTrip.patience }

    /// The way to a peer and back without a queue; 0 before it was measured.
    func leastRoundTrip(to peer: Int) -> UInt64 { peers[peer].window.leastRoundTrip }

    /// Bytes up to which a command goes to a peer with all others.
    func largestOrdinary(to peer: Int) -> Int { peers[peer].window.largestOrdinary }

    /// The same for a command that goes to all: of the slowest of the fastest so many peers.
    func largestOrdinary(toFastest wanted: Int) -> Int {
        guard wanted > 0 else { return .max }
        var largest = 0
        for peer in 0..<count where peer != index {
            let size = peers[peer].window.largestOrdinary
            var faster = 0
            for other in 0..<count where other != index && peers[other].window.largestOrdinary >= size { faster += 1 }
            if faster >= wanted { largest = max(largest, size) }
        }
        return largest
    }

    /// The round trip to the slowest of the fastest so many peers; 0 while too few are known.
    func leastRoundTrip(toFastest wanted: Int) -> UInt64 {
        var least = UInt64.max
        for peer in 0..<count where peer != index {
            let time = peers[peer].window.leastRoundTrip
            guard time > 0 else { continue }
            var faster = 0
            for other in 0..<count where other != index {
                let theirs = peers[other].window.leastRoundTrip
                if theirs > 0 && theirs <= time { faster += 1 }
            }
            if faster >= wanted { least = min(least, time) }
        }
        return least == .max ? 0 : least
    }

    // MARK: Turns

    /// The engine calls this first in each turn.
    func begin(now: UInt64) { self.now = now }

    /// Sends what there is room for. The engine calls this when the turn has no more to say.
    func end() {
        for peer in 0..<count where peer != index {
            if !peers[peer].outgoing.isEmpty { sendPieces(to: peer) }
            if let stamp = peers[peer].window.takeMark(now: now) { send(.mark(stamp: stamp), to: peer) }
        }
        if departures.publish() { links.wake() }
    }

    var nextDeadline: UInt64 {
        var deadline = UInt64.max
        for peer in 0..<count where peer != index && isConnected(peer) {
            deadline = min(deadline, peers[peer].window.nextDeadline)
        }
        return deadline
    }

    /// Shows the state of the links on the board.
    func publish() {
        for peer in 0..<count where peer != index {
            let figures = board.peers[peer]
            figures.roundTrip.store(peers[peer].window.roundTrip.smoothed)
            figures.window.store(UInt64(peers[peer].window.size))
            figures.underWay.store(UInt64(peers[peer].window.underWay))
            // Nobody will say what they are.
            if !isConnected(peer) { peers[peer].incoming.removeAll() }
        }
    }

    /// Bytes that have arrived, at all peers together.
    var arrived: UInt64 {
        var arrived: UInt64 = 0
        for peer in 0..<count where peer != index { arrived &+= UInt64(peers[peer].window.arrivedBytes) }
        return arrived
    }

    /// Bytes that wait in parcels for a peer.
    func parcelBytes(to peer: Int) -> Int {
        peers[peer].outgoing.isEmpty ? 0 : peers[peer].outgoing.reduce(0) { $0 + $1.size - $1.offset }
    }

    // MARK: Sending

    /// A message of the core to one or more peers.
    func send(_ message: Message, to peers: UInt16) {
        guard message.carriesBatch, message.batch.length > 0 else {
            if message.kind == .heartbeat { return sendHeartbeat(message, to: peers) }
            return sendWhole(message, to: peers)
        }
        var whole = peers
        var rest = peers
        while rest != 0 {
            let peer = rest.trailingZeroBitCount
            rest &= rest - 1
            if !goesWhole(message, to: peer) { whole &= ~(1 << UInt16(peer)) }
        }
        if whole != 0 { sendWhole(message, to: whole) }
    }

    /// Whether a message goes to a peer whole. If not, it waits, or its payload went ahead.
    private func goesWhole(_ message: Message, to peer: Int) -> Bool {
        let size = PeerHeader.size + Int(message.batch.length)
        if peers[peer].outgoing.isEmpty && size <= peers[peer].window.largestWhole { return true }
        let isProposal = message.kind == .accept
        if isProposal {
            // The core repeats proposals from some instance on: what waits of them is out of date.
            remove(from: peer) { $0.isWaitingProposal && $0.instance >= message.instance }
        }
        let header = EncodedHeader { PeerFrame.encodeHeader(of: message, sender: index, into: $0) }
        if isProposal,
            let place = peers[peer].outgoing.firstIndex(where: { $0.instance == message.instance && $0.header == nil })
        {
            // Its batch went ahead, or is on its way.
            peers[peer].outgoing[place].header = header
            peers[peer].waitingProposals += 1
            return false
        }
        if size <= peers[peer].window.largestWhole && (!isProposal || peers[peer].waitingProposals == 0) { return true }
        if !isProposal {
            if replaceAnswer(message, header, to: peer) { return false }
            guard peers[peer].outgoing.count < Self.mostAnswers else {
                board.departuresDropped.add(1)
                return false
            }
        }
        var parcel = newParcel(size: Int(message.batch.length), .logged(message.batch))
        parcel.header = header
        if isProposal {
            parcel.instance = message.instance
            peers[peer].waitingProposals += 1
        } else {
            parcel.answer = message
        }
        peers[peer].outgoing.append(parcel)
        return false
    }

    /// What a peer asks for again while it is on its way goes out once, with the newest header. Promises of views that
    /// are over do not go out at all. Returns whether it is on its way.
    private func replaceAnswer(_ message: Message, _ header: EncodedHeader, to peer: Int) -> Bool {
        if message.kind == .promise {
            remove(from: peer) { $0.offset == 0 && $0.answer?.kind == .promise && $0.answer!.view < message.view }
        }
        let place = peers[peer].outgoing.firstIndex {
            guard let answer = $0.answer else { return false }
            return answer.kind == message.kind && answer.view == message.view && answer.instance == message.instance
        }
        guard let place else { return false }
        if peers[peer].outgoing[place].answer!.batch == message.batch {
            peers[peer].outgoing[place].header = header
        } else if peers[peer].outgoing[place].offset == 0 {
            // Another value is known there by now. What has begun to go out keeps its bytes.
            var parcel = newParcel(size: Int(message.batch.length), .logged(message.batch))
            parcel.header = header
            parcel.answer = message
            peers[peer].outgoing[place] = parcel
        }
        return true
    }

    private func sendWhole(_ message: Message, to peers: UInt16) {
        let size = PeerFrame.size(of: message)
        frame.rebuild(size: size)
        PeerFrame.encode(
            message, sender: index,
            batch: message.carriesBatch
                ? acceptor.bytes(of: message.batch) : UnsafeRawBufferPointer(start: nil, count: 0),
            into: frame.bytes.baseAddress!)
        depart(frame, to: peers, pieces: false, isCounted: message.carriesBatch)
    }

    /// A heartbeat says what was sent to a peer. It overtakes the proposals that wait, and must not speak of them.
    private func sendHeartbeat(_ message: Message, to mask: UInt16) {
        var together = mask
        var rest = mask
        while rest != 0 {
            let peer = rest.trailingZeroBitCount
            rest &= rest - 1
            guard peers[peer].waitingProposals > 0 else { continue }
            together &= ~(1 << UInt16(peer))
            var patched = message
            for parcel in peers[peer].outgoing where parcel.isWaitingProposal {
                patched.instance = min(patched.instance, parcel.instance - 1)
            }
            sendWhole(patched, to: 1 << UInt16(peer))
        }
        if together != 0 { sendWhole(message, to: together) }
    }

    /// A frame of another kind to one peer, whole or in pieces; the frame is empty afterwards.
    func send(_ frame: borrowing Frame, to peer: Int) {
        invariant(peer != index, "a replica sends no frame to itself")
        let size = frame.count - PeerHeader.size
        if size == 0 || frame.count <= peers[peer].window.largestWhole {
            return depart(frame, to: 1 << UInt16(peer), pieces: false, isCounted: size > 0)
        }
        guard peers[peer].outgoing.count < Self.mostParcels else {
            frame.clear()
            board.departuresDropped.add(1)
            return
        }
        let bytes = UnsafeRawPointer(frame.bytes.baseAddress!)
        let header = EncodedHeader { $0.copyMemory(from: bytes, byteCount: PeerHeader.size) }
        var parcel = newParcel(size: size, .frame(frame.take(), bytes + PeerHeader.size))
        parcel.header = header
        peers[peer].outgoing.append(parcel)
    }

    /// Whether runs of commands, or chunks of a snapshot, wait for a peer in parcels.
    func hasFrame(for peer: Int) -> Bool {
        peers[peer].outgoing.contains { if case .frame = $0.payload { true } else { false } }
    }

    private func newParcel(size: Int, _ payload: OutgoingParcel.Payload) -> OutgoingParcel {
        OutgoingParcel(number: newParcelNumber(), size: size, payload: payload)
    }

    private func remove(from peer: Int, where isOver: (OutgoingParcel) -> Bool) {
        guard !peers[peer].outgoing.isEmpty else { return }
        var proposals = 0
        peers[peer].outgoing.removeAll { parcel in
            guard isOver(parcel) else { return false }
            if parcel.isWaitingProposal { proposals += 1 }
            parcel.discard()
            return true
        }
        peers[peer].waitingProposals -= proposals
    }

    // MARK: Batches ahead of their proposals

    /// A number for a batch that is to go to the peers before it is proposed.
    func newParcelNumber() -> UInt64 {
        lastParcel += 1
        return lastParcel
    }

    /// Sends a batch ahead, to those of some peers to which it is not on its way already.
    func disseminate(_ bytes: UnsafeRawBufferPointer, as number: UInt64, to wanted: UInt16) {
        for peer in 0..<count where peer != index && wanted & 1 << UInt16(peer) != 0 && isConnected(peer) {
            guard !peers[peer].outgoing.contains(where: { $0.number == number }) else { continue }
            // One that is far behind gets it later, or with its proposal.
            let held = peers[peer].outgoing.reduce(0) { $0 + $1.size }
            guard held < Self.mostBytes, peers[peer].outgoing.count < Self.mostParcels else { continue }
            peers[peer].outgoing.append(
                OutgoingParcel(number: number, size: bytes.count, payload: .disseminated(bytes.baseAddress!)))
        }
    }

    /// Whether all of a batch that is disseminated has left for a peer.
    func hasLeft(_ number: UInt64, for peer: Int) -> Bool {
        for parcel in peers[peer].outgoing where parcel.number == number { return parcel.isSent }
        return false
    }

    /// The batch is in the log now, as `batch`, and is being proposed for `instance`.
    func wasProposed(_ number: UInt64, as batch: Batch, for instance: Instance) {
        for peer in 0..<count where peer != index {
            for place in peers[peer].outgoing.indices where peers[peer].outgoing[place].number == number {
                peers[peer].outgoing[place].payload = .logged(batch)
                peers[peer].outgoing[place].instance = instance
            }
        }
    }

    /// Forgets batches and proposals on their way: this replica does not lead.
    func dropProposals() {
        for peer in 0..<count where peer != index {
            remove(from: peer) { parcel in
                if case .disseminated = parcel.payload { return true }
                return parcel.instance != 0
            }
        }
    }

    /// Forgets the proposals that wait for one peer.
    func withdrawProposals(to peer: Int) { remove(from: peer) { $0.isWaitingProposal } }

    /// Forgets what a peer has got by other ways.
    func forget(upTo instance: Instance, for peer: Int) {
        remove(from: peer) { $0.instance != 0 && $0.instance <= instance }
    }

    // MARK: Pieces

    private func sendPieces(to peer: Int) {
        // What the log dropped meanwhile is lost for this peer, as if on the way.
        remove(from: peer) { parcel in
            if case .logged(let batch) = parcel.payload { return !acceptor.holds(batch) }
            return false
        }
        deliverWhole(to: peer)
        while let place = nextParcel(for: peer) {
            guard peers[peer].window.roomForPieces > 0, departures.free > 8 else {
                peers[peer].window.ranShort()
                return
            }
            sendPiece(of: place, to: peer)
            if peers[peer].outgoing[place].isSent { deliverWhole(to: peer) }
        }
    }

    /// Mostly the one of which least is left, lest one of many MiB hold up the others; each fourth time the oldest,
    /// lest it wait for ever. A proposal goes only after those before it.
    private func nextParcel(for peer: Int) -> Int? {
        var chosen: Int?
        var least = Int.max
        let isOldestsTurn = peers[peer].turn % 4 == 3
        for (place, parcel) in peers[peer].outgoing.enumerated() where !parcel.isSent {
            if isOldestsTurn { return place }
            let left = parcel.isWaitingProposal ? 0 : parcel.size - parcel.offset
            if left < least {
                least = left
                chosen = place
            }
        }
        return chosen
    }

    private func sendPiece(of place: Int, to peer: Int) {
        let parcel = peers[peer].outgoing[place]
        let size = min(peers[peer].window.pieceSize, parcel.size - parcel.offset)
        let source: UnsafeRawPointer =
            switch parcel.payload {
            case .logged(let batch): acceptor.bytes(of: batch).baseAddress!
            case .disseminated(let bytes): bytes
            case .frame(_, let bytes): bytes
            }
        frame.rebuild(size: PeerHeader.size + size)
        let bytes = frame.bytes.baseAddress!
        LinkFrame.piece(parcel: parcel.number, offset: UInt64(parcel.offset), size: UInt64(parcel.size)).encodeHeader(
            payloadCount: size, sender: index, into: bytes)
        (bytes + PeerHeader.size).copyMemory(from: source + parcel.offset, byteCount: size)
        depart(frame, to: 1 << UInt16(peer), pieces: true, isCounted: true)
        peers[peer].outgoing[place].offset += size
        peers[peer].turn &+= 1
    }

    /// Says of the payloads that have left what they are.
    private func deliverWhole(to peer: Int) {
        var place = 0
        var isHeldUp = false
        while place < peers[peer].outgoing.count {
            let parcel = peers[peer].outgoing[place]
            place += 1
            if parcel.isWaitingProposal {
                // In the order of the instances, which is that of the list but for what was disseminated.
                let isFirst = !peers[peer].outgoing.contains {
                    $0.isWaitingProposal && $0.instance < parcel.instance
                }
                if !parcel.isSent || !isFirst {
                    isHeldUp = isHeldUp || !isFirst
                    continue
                }
            }
            if parcel.isSent, let header = parcel.header {
                frame.rebuild(size: 2 * PeerHeader.size)
                let bytes = frame.bytes.baseAddress!
                LinkFrame.deliver(parcel: parcel.number).encodeHeader(
                    payloadCount: PeerHeader.size, sender: index, into: bytes)
                header.copy(to: bytes + PeerHeader.size)
                depart(frame, to: 1 << UInt16(peer), pieces: false, isCounted: true)
                let number = parcel.number
                remove(from: peer) { $0.number == number }
                // One that was held up by it may be next.
                place = isHeldUp ? 0 : place - 1
                isHeldUp = false
            }
        }
    }

    /// Tells one peer where this replica's state stands.
    func tell(_ standing: DigestComparison.Standing, to peer: Int) {
        frame.rebuild(size: PeerHeader.size)
        PeerFrame.encode(standing, sender: index, into: frame.bytes.baseAddress!)
        depart(frame, to: 1 << UInt16(peer), pieces: false, isCounted: false)
    }

    private func send(_ message: LinkFrame, to peer: Int) {
        frame.rebuild(size: PeerHeader.size)
        message.encodeHeader(sender: index, into: frame.bytes.baseAddress!)
        depart(frame, to: 1 << UInt16(peer), pieces: false, isCounted: false)
    }

    private func depart(_ frame: borrowing Frame, to mask: UInt16, pieces: Bool, isCounted: Bool) {
        let size = frame.count
        guard departures.push(Departure(peers: mask, frame: frame.take())) else {
            // Lost, as it might be on the way: what matters is sent again.
            board.departuresDropped.add(1)
            return
        }
        guard isCounted else { return }
        var rest = mask
        while rest != 0 {
            let peer = rest.trailingZeroBitCount
            rest &= rest - 1
            peers[peer].window.sent(size, pieces: pieces, now: now)
            board.peers[peer].bytesSent.add(UInt64(size))
            // Also between what one turn sends: with one mark behind all of it, the next would leave only when all of
            // it has arrived.
            if let stamp = peers[peer].window.takeMark(now: now) { send(.mark(stamp: stamp), to: peer) }
        }
    }

    // MARK: Receiving

    enum Received {
        /// Nothing that the engine has to look at.
        case nothing
        /// A piece that does not go on where its parcel ended, or a DELIVER whose parcel is not whole: what it belongs
        /// to is lost.
        case lost
        /// A part of something large.
        case piece
        /// The frame is whole now.
        case whole
    }

    /// A frame of the link itself. A frame that DELIVER makes whole is put into `whole`, which may be where the DELIVER
    /// came in.
    func take(
        _ message: LinkFrame, _ payload: UnsafeRawBufferPointer, from peer: Int, whole: borrowing Frame
    ) -> Received {
        switch message {
        case .mark(let stamp):
            send(.echo(stamp: stamp), to: peer)
            return .nothing
        case .echo(let stamp):
            _ = peers[peer].window.returned(stamp, now: now)
            return .nothing
        case .piece(let parcel, let offset, let size):
            return peers[peer].incoming.take(parcel: parcel, offset: offset, size: size, payload) ? .piece : .lost
        case .deliver(let parcel):
            let header = EncodedHeader { $0.copyMemory(from: payload.baseAddress!, byteCount: PeerHeader.size) }
            return peers[peer].incoming.deliver(parcel: parcel, header: header, into: whole) ? .whole : .lost
        }
    }

    /// Forgets what came in pieces: the view has changed, and whoever sent it does not need it there any more.
    func dropIncoming() {
        for peer in 0..<count where peer != index { peers[peer].incoming.removeAll() }
    }
}
