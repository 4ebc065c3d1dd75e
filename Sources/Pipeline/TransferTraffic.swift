import MPaxosFrames
import MPaxosPersistentMemory
import MPaxosStateTransfer
import MPaxosWire

/// Frames of state transfers on their way to the links. The engine's lane.
package final class TransferTraffic: TransferPort {
    package let index: Int
    private let traffic: PeerTraffic
    private let frame = Frame()

    package init(over traffic: PeerTraffic) {
        index = traffic.index
        self.traffic = traffic
    }

    package func isConnected(_ peer: Int) -> Bool { traffic.isConnected(peer) }

    package func send(_ message: TransferMessage, to peer: Int) {
        frame.rebuild(size: PeerHeader.size)
        PeerFrame.encodeHeader(of: message, sender: index, into: frame.bytes.baseAddress!)
        traffic.send(frame, to: peer)
    }

    package func sendChunk(
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
