import MPaxosWire

/// The way of a transfer's messages to other replicas. The engine's lane.
package protocol TransferPort: AnyObject {
    /// This replica's.
    var index: Int { get }

    func isConnected(_ peer: Int) -> Bool

    /// Sends a message without a payload; it may be lost.
    func send(_ message: TransferMessage, to peer: Int)

    /// Sends `count` bytes of a snapshot; they may be lost.
    /// - Parameter fill: puts the bytes of the chunk into their place; false: nothing is sent, and so is the answer.
    func sendChunk(
        _ count: Int, at offset: Int, ticket: UInt64, to peer: Int, fill: (UnsafeMutableRawBufferPointer) -> Bool
    ) -> Bool
}
