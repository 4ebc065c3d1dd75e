import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// One side of a slot: a vote for one instance, one cache line.
struct VoteLine: CheckedLine {
    /// Number of the group commit that made the line durable. The existence of a line of epoch e proves that everything
    /// of earlier epochs had been fenced before; only lines of the newest epoch found may be torn, or name bytes that
    /// never arrived. It is stored before the rest of the line, see `Pool.storeLine`.
    private var group: CheckedNumber
    var instance: UInt64
    /// `UInt64.max`: the instance is known to be decided with this batch.
    var view: UInt64
    var offset: UInt64
    var length: UInt32
    var batchChecksum: UInt32
    private var zero: (UInt64, UInt64) = (0, 0)
    private var marker: UInt32 = VoteLine.mark
    var checksum: UInt32 = 0

    private static let mark: UInt32 = 0x544F_5645  // "EVOT": no blank line has a valid checksum by chance

    init(instance: UInt64, view: UInt64, batch: Batch, group: CheckedNumber) {
        self.group = group
        self.instance = instance
        self.view = view
        offset = batch.offset
        length = batch.length
        batchChecksum = batch.checksum
        self = sealed
    }

    /// 0 when it cannot be read.
    var epoch: UInt64 { group.number ?? 0 }

    var batch: Batch { Batch(offset: offset, length: length, checksum: batchChecksum) }

    var isValid: Bool { marker == Self.mark && isIntact && epoch > 0 }

    var isBlank: Bool {
        withUnsafeBytes(of: self) { bytes in
            (0..<8).allSatisfy { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) == 0 }
        }
    }
}

/// The ring of two-sided slots. A vote goes to the side that does not hold the instance's current vote, so that a torn
/// write never costs the vote that was there; unless that one has not been fenced either: then nobody has been told of
/// it, the other side holds the last vote that counts, and the new one replaces the unfenced one in place.
struct Slots {
    private let lines: UnsafeMutableRawPointer
    let count: Int
    /// For each slot `epoch << 1 | side` of the current vote; 0: none. Epochs start at 1.
    private let current: UnsafeMutablePointer<UInt64>

    init(at lines: UnsafeMutableRawPointer, count: Int) {
        invariant(count >= 2 && count & (count - 1) == 0, "the number of slots is a power of two")
        self.lines = lines
        self.count = count
        current = .allocate(capacity: count)
        current.initialize(repeating: 0, count: count)
    }

    func deallocate() { current.deallocate() }

    func slot(of instance: UInt64) -> Int { Int(truncatingIfNeeded: instance) & (count - 1) }

    func address(_ slot: Int, _ side: Int) -> UnsafeMutableRawPointer {
        invariant(slot >= 0 && slot < count && side & ~1 == 0, "a slot has two sides")
        return lines + slot * AcceptorGeometry.slotSize + side * AcceptorGeometry.line
    }

    func line(_ slot: Int, _ side: Int) -> VoteLine { address(slot, side).load(as: VoteLine.self) }

    /// The current vote for an instance.
    func vote(for instance: UInt64) -> VoteLine? {
        let slot = slot(of: instance)
        guard current[slot] != 0 else { return nil }
        let found = line(slot, Int(current[slot] & 1))
        return found.instance == instance ? found : nil
    }

    /// Where the vote for an instance goes. `floor`: instances below it may be overwritten.
    func sideForVote(instance: UInt64, floor: UInt64, epoch: UInt64) -> Int {
        let slot = slot(of: instance)
        let state = current[slot]
        guard state != 0 else { return 0 }
        let side = Int(state & 1)
        let holder = line(slot, side).instance
        invariant(holder == instance || holder < floor, "a slot is overwritten once its instance is not held any more")
        return holder == instance && state >> 1 == epoch ? side : 1 - side
    }

    func setCurrent(_ slot: Int, side: Int, epoch: UInt64) {
        invariant(epoch > 0 && side & ~1 == 0, "epochs start at 1")
        current[slot] = epoch << 1 | UInt64(side)
    }
}
