import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// The page that tells whose a pool is and what it was formatted for.
@Suite struct IdentityPageTests {
    private static let magic: UInt64 = 0x1234

    private func page(_ identity: PoolIdentity) -> IdentityPage {
        IdentityPage(magic: Self.magic, version: 5, identity: identity, regionSize: 1 << 20, geometry: [1, 2])
    }

    private func withPage<Result>(_ page: IdentityPage, _ body: (UnsafeMutableRawPointer) throws -> Result) rethrows
        -> Result
    {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: IdentityPage.size, alignment: IdentityPage.size)
        defer { memory.deallocate() }
        page.write(to: memory)
        return try body(memory)
    }

    @Test func readsWhatItWrote() {
        var largest = identity
        largest.cluster = String(repeating: "c", count: 255)
        largest.charter = Charter(
            members: Array(UInt16.max - 8...UInt16.max), maxRequest: .max, sessions: .max, stateSize: .max,
            machine: String(repeating: "m", count: 255), machineVersion: .min)
        for identity in [identity, largest] {
            let page = page(identity)
            withPage(page) { memory in
                #expect(IdentityPage(reading: memory, magic: Self.magic) == page)
                #expect(IdentityPage.version(of: memory, magic: Self.magic) == 5)
                #expect(IdentityPage(reading: memory, magic: Self.magic + 1) == nil)
            }
        }
    }

    /// Under a sum that is right: none of it is trusted to be in its range.
    @Test(
        arguments: [
            (12, [0xFF, 0xFF]), (12, [0, 1]), (128, [0xFF]), (384, [0, 0]), (384, [10, 0]), (384, [0xFF, 0xFF]),
            (386, [9, 0]),
            (404, [0, 0]), (404, [0, 1]), (404, [0xFF, 0xFF]), (406, [0x80]), (406, [0x0A]),
        ] as [(Int, [UInt8])])
    func aFieldOutOfRangeIsDamage(offset: Int, bytes: [UInt8]) {
        withPage(page(identity)) { memory in
            for (index, byte) in bytes.enumerated() {
                memory.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self)
            }
            memory.storeBytes(of: Checksum.of(memory, 4092), toByteOffset: 4092, as: UInt32.self)
            #expect(IdentityPage(reading: memory, magic: Self.magic) == nil)
        }
    }
}
