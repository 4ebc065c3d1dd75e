import Consensus
import Messaging
import PersistentMemory
import Queues
import Wire

/// Frames of state transfers on their way to the links. The engine's lane.
final class TransferPort {
    let index: Int
    /// By index, for logs.
    let memberIDs: [UInt16]
    let board: StatusBoard
    private let departures: SPSCRing<Departure>
    private let links: Parker
    private let frame = Frame()

    init(index: Int, memberIDs: [UInt16], board: StatusBoard, rings: Rings, links: Parker) {
        self.index = index
        self.memberIDs = memberIDs
        self.board = board
        departures = rings.departures
        self.links = links
    }

    func isConnected(_ peer: Int) -> Bool { board.peers[peer].connected.load() != 0 }

    func send(_ message: TransferMessage, to peer: Int) {
        frame.rebuild(size: PeerHeader.size)
        PeerFrame.encodeHeader(of: message, sender: index, into: frame.bytes.baseAddress!)
        depart(to: peer)
    }

    /// - Parameter fill: puts the bytes of the chunk into their place; false: nothing is sent, and so is the answer.
    func sendChunk(
        _ count: Int, at offset: Int, ticket: UInt64, to peer: Int, fill: (UnsafeMutableRawBufferPointer) -> Bool
    ) -> Bool {
        frame.rebuild(size: PeerHeader.size + count)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: frame.bytes[PeerHeader.size...])
        guard fill(bytes) else { return false }
        PeerFrame.encodeHeader(
            of: .chunk(ticket: ticket, offset: UInt64(offset), checksum: Checksum.of(bytes.baseAddress!, count)),
            payloadCount: count, sender: index, into: frame.bytes.baseAddress!)
        depart(to: peer)
        return true
    }

    private func depart(to peer: Int) {
        precondition(peer != index, "a frame for this replica itself")
        if !departures.push(Departure(peers: 1 << UInt16(peer), frame: frame.take())) {
            // Lost, as it might be on the way: who waits for it asks again.
            board.departuresDropped.add(1)
        }
        if departures.publish() { links.wake() }
    }
}
