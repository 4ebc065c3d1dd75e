/// The routing frames in front of a request, up to and with the first empty one: kept as they came, echoed in front of
/// the reply (RFC 28/REQREP). Packed as length (u16) and bytes, frame after frame.
public struct Envelope: ~Copyable {
    static let maximumFrames = 8
    static let maximumFrameSize = 256
    package static let maximumSize = 2112

    private let storage: UnsafeMutableRawPointer
    private(set) var size = 0
    private(set) var frames = 0

    package init() { storage = .allocate(byteCount: Self.maximumSize, alignment: 8) }
    deinit { storage.deallocate() }

    package var packed: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage, count: size) }

    package mutating func clear() {
        size = 0
        frames = 0
    }

    /// False when the envelope has more or longer frames than MPX/1 allows.
    package mutating func append(_ frame: UnsafeRawBufferPointer) -> Bool {
        guard frames < Self.maximumFrames, frame.count <= Self.maximumFrameSize else { return false }
        storage.storeBytes(of: UInt16(frame.count), toByteOffset: size, as: UInt16.self)
        if let base = frame.baseAddress { (storage + size + 2).copyMemory(from: base, byteCount: frame.count) }
        size += 2 + frame.count
        frames += 1
        return true
    }

    /// The frames of a packed envelope, first to last.
    package struct Frames: Sequence, IteratorProtocol {
        private var rest: UnsafeRawBufferPointer

        package init(_ packed: UnsafeRawBufferPointer) { rest = packed }

        package mutating func next() -> UnsafeRawBufferPointer? {
            guard !rest.isEmpty else { return nil }
            let end = 2 + Int(rest.loadUnaligned(as: UInt16.self))
            defer { rest = UnsafeRawBufferPointer(rebasing: rest[end...]) }
            return UnsafeRawBufferPointer(rebasing: rest[2..<end])
        }
    }
}
