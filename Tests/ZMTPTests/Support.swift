import Foundation

@testable import MPaxosZMTP

func pattern(_ count: Int, seed: Int = 0) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ seed) } }

/// Numbers by chance, the same each time.
struct Draws {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
}

/// Hands out a copy of `bytes` in a block with nothing behind it.
func withBlock<Result>(_ bytes: some Collection<UInt8>, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { block.deallocate() }
    block.copyBytes(from: bytes)
    return body(UnsafeRawBufferPointer(block))
}

/// A frame as `Codec` writes it.
func makeFrame(_ content: [UInt8], more: Bool = false) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: Codec.size(ofFrame: content.count)) { buffer, count in
        let start = UnsafeMutableRawPointer(buffer.baseAddress!)
        count = content.withUnsafeBytes { Codec.write($0, more: more, to: start) - start }
    }
}

extension SocketAddress {
    /// What a system call is handed.
    var bytes: [UInt8] {
        withPointer { pointer, size in [UInt8](UnsafeRawBufferPointer(start: pointer, count: Int(size))) }
    }
}

/// A path for a socket that no other test takes.
func freshPath() -> String { "/tmp/mpaxos-zmtp-\(UUID().uuidString)" }

extension Codec {
    /// Nil also when there is none, or the command is no READY.
    static func socketType(inReady body: UnsafeRawBufferPointer) -> String? {
        guard case .ready(let type) = readReady(body) else { return nil }
        return type
    }
}
