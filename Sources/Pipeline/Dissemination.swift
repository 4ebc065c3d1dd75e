import MPaxosConsensus
import MPaxosFrames
import MPaxosPersistentMemory
import MPaxosWire

/// A batch that is too large to go to the peers whole, before it has a place in the log.
struct LargeBatch: BitwiseCopyable {
    /// Room for a header, then the records.
    let frame: RawFrame
    /// The records.
    let bytes: UnsafeRawPointer
    let size: Int
    /// Whether a client of this replica asked for it, and no follower forwarded it.
    let isOwn: Bool

    /// Takes the content of `frame`.
    init(_ frame: borrowing Frame, isOwn: Bool) {
        bytes = UnsafeRawPointer(frame.bytes.baseAddress! + PeerHeader.size)
        size = frame.count - PeerHeader.size
        self.isOwn = isOwn
        self.frame = frame.take()
    }

    var records: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: bytes, count: size) }
}

/// The leader's large batches on their way to the followers, before they are proposed.
///
/// Whatever is proposed after a batch is executed after it, so a batch that takes seconds on the way would hold up all
/// others. A large one gets its instance only when its bytes are on the way, as far as the windows of the links reach:
/// its proposal goes right behind them, as small as any other, and nothing that is proposed later could have overtaken
/// them. Nothing of this is durable, nor a promise: a batch that is lost on the way is one that the client sends
/// again.
struct Dissemination {
    private struct Batch {
        let large: LargeBatch
        /// The number of its parcels; nil while this replica does not lead.
        var parcel: UInt64?
        var began: UInt64 = 0
        /// When it had left for enough peers for a quorum; 0: it has not.
        var quorumAt: UInt64 = 0
    }

    private var batches: [Batch] = []
    private var bytes = 0

    /// Bytes on their way at once, beyond a single batch: enough to fill the windows, little enough for followers to
    /// hold.
    private static let mostBytes = 32 << 20
    private static let mostBatches = PeerTraffic.mostParcels / 2
    /// How long it may take to leave for the others, besides as long as it took for a quorum.
    private static let grace: UInt64 = 20_000

    var isEmpty: Bool { batches.isEmpty }

    /// Whether another batch may begin.
    var hasRoom: Bool { bytes < Self.mostBytes && batches.count < Self.mostBatches }

    mutating func add(_ large: LargeBatch) {
        batches.append(Batch(large: large))
        bytes += large.size
    }

    /// Leader: all go to those peers to which they are not on their way yet.
    /// - Parameter wanted: bit i: to replica i.
    mutating func spread(to wanted: UInt16, over traffic: PeerTraffic, now: UInt64) {
        for place in batches.indices {
            if batches[place].parcel == nil {
                batches[place].parcel = traffic.newParcelNumber()
                batches[place].began = now
                batches[place].quorumAt = 0
            }
            traffic.disseminate(batches[place].large.records, as: batches[place].parcel!, to: wanted)
        }
    }

    /// This replica does not lead any more.
    mutating func stop() {
        for place in batches.indices { batches[place].parcel = nil }
    }

    /// Leader: the first batch that may be proposed now, if there is one.
    /// - Parameters:
    ///   - others: peers for which it must have left, to make a quorum with this replica.
    ///   - wanted: bit i: replica i is linked, and worth waiting for, for a while.
    mutating func ready(over traffic: PeerTraffic, others: Int, wanted: UInt16, now: UInt64) -> Int? {
        for place in batches.indices {
            guard let parcel = batches[place].parcel else { continue }
            var sent = 0
            var missing = 0
            for peer in 0..<16 where wanted & 1 << UInt16(peer) != 0 {
                if traffic.hasLeft(parcel, for: peer) { sent += 1 } else { missing += 1 }
            }
            guard sent >= others else { continue }
            if batches[place].quorumAt == 0 { batches[place].quorumAt = now }
            if missing == 0 || now >= deadline(of: batches[place]) { return place }
        }
        return nil
    }

    private func deadline(of batch: Batch) -> UInt64 {
        batch.quorumAt + Self.grace + (batch.quorumAt - batch.began)
    }

    var nextDeadline: UInt64 {
        var deadline = UInt64.max
        for batch in batches where batch.quorumAt > 0 { deadline = min(deadline, self.deadline(of: batch)) }
        return deadline
    }

    subscript(_ place: Int) -> (large: LargeBatch, parcel: UInt64?) {
        (batches[place].large, batches[place].parcel)
    }

    /// Takes a batch out; its frame is the caller's.
    mutating func remove(_ place: Int) -> LargeBatch {
        let batch = batches.remove(at: place)
        bytes -= batch.large.size
        return batch.large
    }

    /// Takes out the oldest; its frame is the caller's.
    mutating func removeFirst() -> LargeBatch? { batches.isEmpty ? nil : remove(0) }
}
