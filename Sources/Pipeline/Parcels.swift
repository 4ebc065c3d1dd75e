import MPaxosConsensus
import MPaxosFrames
import MPaxosWire

/// The 64 bytes of a frame's header, on their way.
struct EncodedHeader: BitwiseCopyable {
    private var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)

    /// - Parameter encode: writes the header at the place given.
    init(_ encode: (UnsafeMutableRawPointer) -> Void) {
        withUnsafeMutableBytes(of: &words) { encode($0.baseAddress!) }
    }

    func copy(to place: UnsafeMutableRawPointer) {
        withUnsafeBytes(of: words) { place.copyMemory(from: $0.baseAddress!, byteCount: PeerHeader.size) }
    }
}

/// The payload of a frame that is too large to go whole, on its way to one peer.
struct OutgoingParcel: BitwiseCopyable {
    enum Payload: BitwiseCopyable {
        /// A batch of the log, until the log drops it.
        case logged(Batch)
        /// A batch that is not in the log yet; whoever disseminates it keeps the bytes.
        case disseminated(UnsafeRawPointer)
        /// The rest of a frame behind its header; the parcel owns the frame.
        case frame(RawFrame, UnsafeRawPointer)
    }

    let number: UInt64
    let size: Int
    var payload: Payload
    /// Bytes that were sent.
    var offset = 0
    /// The header of the frame that DELIVER brings behind the payload; nil for a batch that is not proposed to this
    /// peer yet.
    var header: EncodedHeader?
    /// The instance for which it is proposed; 0: for none, or for none yet.
    var instance: Instance = 0
    /// A decided value, or a promise, that a peer asked for; nil for all else.
    var answer: Message?

    var isSent: Bool { offset == size }
    /// A proposal that did not leave yet: what is proposed after it must wait for it.
    var isWaitingProposal: Bool { instance != 0 && header != nil }

    func discard() {
        if case .frame(let frame, _) = payload { frame.discard() }
    }
}

/// Payloads that come in pieces from one peer, up to the DELIVER that says what they are.
struct IncomingParcels {
    private struct Parcel {
        let number: UInt64
        let size: Int
        var received = 0
        /// Room for the header, then the payload.
        let frame: RawFrame
        let bytes: UnsafeMutableRawPointer
    }

    /// Above that, the oldest go: a peer that never says what they are must not take more and more memory.
    static let mostBytes = 64 << 20
    static let mostParcels = 128

    private var parcels: [Parcel] = []
    /// The bytes of all payloads, as large as they are to become.
    private(set) var bytes = 0
    private let largest: Int

    /// - Parameter largest: bytes of a payload that a peer may send; more than `mostBytes` it may not in any case.
    init(largest: Int) { self.largest = min(largest, Self.mostBytes) }

    /// Takes a piece. False: it is too large, or does not go on where the one before ended.
    mutating func take(parcel number: UInt64, offset: UInt64, size: UInt64, _ piece: UnsafeRawBufferPointer) -> Bool {
        guard size <= UInt64(largest), offset < size, UInt64(piece.count) <= size - offset else { return false }
        if offset == 0 {
            remove(number)
            makeRoom(for: Int(size))
            let frame = Frame(size: PeerHeader.size + Int(size))
            let start = frame.bytes.baseAddress!
            parcels.append(Parcel(number: number, size: Int(size), frame: frame.take(), bytes: start))
            bytes += Int(size)
        }
        guard let place = parcels.firstIndex(where: { $0.number == number }), parcels[place].size == Int(size),
            parcels[place].received == Int(offset)
        else { return false }
        (parcels[place].bytes + PeerHeader.size + Int(offset)).copyMemory(
            from: piece.baseAddress!, byteCount: piece.count)
        parcels[place].received += piece.count
        return true
    }

    /// The frame that `header` and a parcel make up, put into `frame`. False: there is no such parcel, or it is not
    /// whole.
    mutating func deliver(parcel number: UInt64, header: EncodedHeader, into frame: borrowing Frame) -> Bool {
        guard let place = parcels.firstIndex(where: { $0.number == number }),
            parcels[place].received == parcels[place].size
        else { return false }
        let parcel = parcels.remove(at: place)
        bytes -= parcel.size
        header.copy(to: parcel.bytes)
        frame.adopt(parcel.frame)
        return true
    }

    mutating func removeAll() {
        for parcel in parcels { parcel.frame.discard() }
        parcels.removeAll(keepingCapacity: true)
        bytes = 0
    }

    private mutating func remove(_ number: UInt64) {
        guard let place = parcels.firstIndex(where: { $0.number == number }) else { return }
        let parcel = parcels.remove(at: place)
        bytes -= parcel.size
        parcel.frame.discard()
    }

    private mutating func makeRoom(for size: Int) {
        while let oldest = parcels.first, bytes + size > Self.mostBytes || parcels.count >= Self.mostParcels {
            remove(oldest.number)
        }
    }
}
