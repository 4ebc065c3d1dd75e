import MPaxosConsensus
import MPaxosMessaging
import MPaxosPersistentMemory
import MPaxosWire

/// Frames of state transfers on their way to the links. The engine's lane.
final class TransferPort {
    let index: Int
    /// By index, for logs.
    let memberIDs: [UInt16]
    let board: StatusBoard
    private let traffic: PeerTraffic
    private let frame = Frame()

    init(memberIDs: [UInt16], board: StatusBoard, traffic: PeerTraffic) {
        index = traffic.index
        self.memberIDs = memberIDs
        self.board = board
        self.traffic = traffic
    }

    func isConnected(_ peer: Int) -> Bool { traffic.isConnected(peer) }

    func send(_ message: TransferMessage, to peer: Int) {
        frame.rebuild(size: PeerHeader.size)
        PeerFrame.encodeHeader(of: message, sender: index, into: frame.bytes.baseAddress!)
        traffic.send(frame, to: peer)
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
        traffic.send(frame, to: peer)
        return true
    }
}
