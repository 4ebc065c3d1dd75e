import MPaxosConsensus
import MPaxosPersistentMemory
import MPaxosWire

/// What peers send to be ordered. It is looked at before this replica votes for it, orders it or hands it to the
/// executor: what is decided is executed by all replicas, at once and again after each start.
extension Engine {
    func takeForwarded(_ records: UnsafeRawBufferPointer, checksum: UInt32, from peer: Int, now: UInt64) {
        guard records.count <= acceptor.largestBatch, checksum == Checksum.of(records.baseAddress!, records.count)
        else {
            board.peers[peer].framesMalformed.add(1)
            return
        }
        guard CommandRecords.isRun(records, ofReplicas: peer..<peer + 1) else {
            tellNoRun("what it forwards", from: peer, now: now)
            return
        }
        // To whoever does not lead it is as if the frame had been lost: its client tries again.
        if core.role != .leader || !batcher.takeForwarded(incoming) { board.forwardsDropped.add(1) }
    }

    func isOfThisCluster(_ batch: UnsafeRawBufferPointer) -> Bool {
        CommandRecords.isRun(batch, ofReplicas: 0..<memberCount)
    }

    @inline(never)
    func tellNoRun(_ what: @autoclosure () -> String, from peer: Int, now: UInt64) {
        board.peers[peer].framesMalformed.add(1)
        guard mayLog(.notCommands, of: peer, now: now) else { return }
        logger.error(
            "dropped a frame of replica \(memberIDs[peer]): \(what()) is no run of commands of this cluster, though its checksum is right; have that replica's program and memory looked at (peer_frames_malformed_total counts the others like it)"
        )
    }
}
