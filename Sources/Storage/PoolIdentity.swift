import Invariants
import PersistentMemory

/// Whose pool it is: written once at format and compared at every open, so that a replica never votes or executes on
/// memory that is not its own.
package struct PoolIdentity: Equatable, Sendable, Codable {
    /// The name in the topology file; at most 255 bytes of UTF-8.
    package var cluster: String
    package var replica: UInt16
    /// Drawn at random at format: tells a replica that lost its pools from one that crashed.
    package var incarnation: UInt64

    package init(cluster: String, replica: UInt16, incarnation: UInt64) {
        self.cluster = cluster
        self.replica = replica
        self.incarnation = incarnation
    }
}

/// The page at the start of a pool's region: identity and geometry under one checksum.
///
/// | offset | field |
/// |---|---|
/// | 0 | magic, u64 |
/// | 8 | layout version, u32 |
/// | 12 | length of the cluster's name, u16 |
/// | 14 | replica, u16 |
/// | 16 | incarnation, u64 |
/// | 24 | geometry, 8 x u64 |
/// | 88 | size of the region, u64 |
/// | 128 | the cluster's name |
/// | 4092 | CRC32C of all before it |
struct IdentityPage: Equatable {
    static let size = 4096
    static let geometryWords = 8
    private static let geometryOffset = 24
    private static let regionSizeOffset = 88
    private static let nameOffset = 128
    private static let checksumOffset = 4092

    var magic: UInt64
    var version: UInt32
    var identity: PoolIdentity
    /// Bytes of the region that begins with this page: whoever finds the page without libpmemobj learns where the
    /// region ends.
    var regionSize: Int
    /// What the pool's own layout needs to know; missing words are zero.
    var geometry: [UInt64]

    func write(to page: UnsafeMutableRawPointer) {
        let name = Array(identity.cluster.utf8)
        invariant(name.count <= 255, "a cluster's name has at most 255 bytes")
        invariant(geometry.count <= Self.geometryWords, "the geometry's words fit their page")
        page.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
        page.storeBytes(of: magic, toByteOffset: 0, as: UInt64.self)
        page.storeBytes(of: version, toByteOffset: 8, as: UInt32.self)
        page.storeBytes(of: UInt16(name.count), toByteOffset: 12, as: UInt16.self)
        page.storeBytes(of: identity.replica, toByteOffset: 14, as: UInt16.self)
        page.storeBytes(of: identity.incarnation, toByteOffset: 16, as: UInt64.self)
        page.storeBytes(of: UInt64(regionSize), toByteOffset: Self.regionSizeOffset, as: UInt64.self)
        for (index, word) in geometry.enumerated() {
            page.storeBytes(of: word, toByteOffset: Self.geometryOffset + 8 * index, as: UInt64.self)
        }
        name.withUnsafeBytes { (page + Self.nameOffset).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        page.storeBytes(of: Checksum.of(page, Self.checksumOffset), toByteOffset: Self.checksumOffset, as: UInt32.self)
    }

    /// nil when the page is not one, or is damaged.
    init?(reading page: UnsafeRawPointer, magic expected: UInt64) {
        magic = page.load(as: UInt64.self)
        version = page.load(fromByteOffset: 8, as: UInt32.self)
        let checksum = page.load(fromByteOffset: Self.checksumOffset, as: UInt32.self)
        let nameCount = Int(page.load(fromByteOffset: 12, as: UInt16.self))
        guard magic == expected, checksum == Checksum.of(page, Self.checksumOffset), nameCount <= 255 else {
            return nil
        }
        let name = UnsafeRawBufferPointer(start: page + Self.nameOffset, count: nameCount)
        identity = PoolIdentity(
            cluster: String(decoding: name, as: UTF8.self),
            replica: page.load(fromByteOffset: 14, as: UInt16.self),
            incarnation: page.load(fromByteOffset: 16, as: UInt64.self))
        regionSize = Int(clamping: page.load(fromByteOffset: Self.regionSizeOffset, as: UInt64.self))
        geometry = (0..<Self.geometryWords).map {
            page.load(fromByteOffset: Self.geometryOffset + 8 * $0, as: UInt64.self)
        }
    }

    init(magic: UInt64, version: UInt32, identity: PoolIdentity, regionSize: Int, geometry: [UInt64]) {
        self.magic = magic
        self.version = version
        self.identity = identity
        self.regionSize = regionSize
        self.geometry = geometry + Array(repeating: 0, count: Self.geometryWords - geometry.count)
    }
}
