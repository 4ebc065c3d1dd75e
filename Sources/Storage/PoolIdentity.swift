import MPaxosConsensus
import MPaxosInvariants
import MPaxosPersistentMemory

/// Whose pool it is: written once at format and compared at every open, so that a replica never votes or executes on
/// memory that is not its own.
package struct PoolIdentity: Equatable, Sendable, Codable {
    /// The name in the topology file; at most 255 bytes of UTF-8.
    package var cluster: String
    package var replica: UInt16
    /// Drawn at random at format: tells a replica that lost its pools from one that crashed.
    package var incarnation: UInt64
    /// What it was formatted for.
    package var charter: Charter

    package init(cluster: String, replica: UInt16, incarnation: UInt64, charter: Charter) {
        self.cluster = cluster
        self.replica = replica
        self.incarnation = incarnation
        self.charter = charter
    }
}

/// The page at the start of a pool's region: identity, charter and geometry under one checksum. Magic, layout version
/// and checksum lie at the same place in all layouts.
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
/// | 96 | max_request, sessions, state_size, the machine's version, 4 x u64 |
/// | 128 | the cluster's name |
/// | 384 | number of members, u16; their ids, 9 x u16 |
/// | 404 | length of the machine's name, u16 |
/// | 406 | the machine's name |
/// | 4092 | CRC32C of all before it |
struct IdentityPage: Equatable {
    static let size = 4096
    static let geometryWords = 8
    private static let geometryOffset = 24
    private static let regionSizeOffset = 88
    private static let charterOffset = 96
    private static let nameOffset = 128
    private static let membersOffset = 384
    private static let machineOffset = 404
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
        let charter = identity.charter
        invariant(identity.cluster.utf8.count <= 255, "a cluster's name has at most 255 bytes")
        invariant(charter.isSound, "a pool is formatted for 1 to 9 members, ascending, and a machine with a name")
        invariant(geometry.count <= Self.geometryWords, "the geometry's words fit their page")
        page.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
        func store<T: BitwiseCopyable>(_ value: T, _ offset: Int) {
            page.storeBytes(of: value, toByteOffset: offset, as: T.self)
        }
        func store(_ text: String, _ offset: Int) {
            (page + offset).copyMemory(from: Array(text.utf8), byteCount: text.utf8.count)
        }
        store(magic, 0)
        store(version, 8)
        store(UInt16(identity.cluster.utf8.count), 12)
        store(identity.replica, 14)
        store(identity.incarnation, 16)
        for (index, word) in geometry.enumerated() { store(word, Self.geometryOffset + 8 * index) }
        store(UInt64(regionSize), Self.regionSizeOffset)
        let words = [
            charter.maxRequest, charter.sessions, charter.stateSize, UInt64(bitPattern: charter.machineVersion),
        ]
        for (index, word) in words.enumerated() { store(word, Self.charterOffset + 8 * index) }
        store(identity.cluster, Self.nameOffset)
        store(UInt16(charter.members.count), Self.membersOffset)
        for (index, id) in charter.members.enumerated() { store(id, Self.membersOffset + 2 + 2 * index) }
        store(UInt16(charter.machine.utf8.count), Self.machineOffset)
        store(charter.machine, Self.machineOffset + 2)
        store(Checksum.of(page, Self.checksumOffset), Self.checksumOffset)
    }

    /// The layout version of a page; nil when it is none, or is damaged.
    static func version(of page: UnsafeRawPointer, magic expected: UInt64) -> UInt32? {
        let checksum = page.load(fromByteOffset: checksumOffset, as: UInt32.self)
        guard page.load(as: UInt64.self) == expected, checksum == Checksum.of(page, checksumOffset) else { return nil }
        return page.load(fromByteOffset: 8, as: UInt32.self)
    }

    /// Reads a page of the present layout; nil when it is none, or is damaged.
    init?(reading page: UnsafeRawPointer, magic expected: UInt64) {
        func load<T: BitwiseCopyable>(_ offset: Int) -> T { page.load(fromByteOffset: offset, as: T.self) }
        /// nil when it is longer than a name may be.
        func text(_ offset: Int, count: UInt16) -> String? {
            count > 255
                ? nil
                : String(validating: UnsafeRawBufferPointer(start: page + offset, count: Int(count)), as: UTF8.self)
        }
        let memberCount: UInt16 = load(Self.membersOffset)
        guard let version = Self.version(of: page, magic: expected), Int(memberCount) <= Charter.mostMembers,
            let cluster = text(Self.nameOffset, count: load(12)),
            let machine = text(Self.machineOffset + 2, count: load(Self.machineOffset))
        else { return nil }
        let charter = Charter(
            members: (0..<Int(memberCount)).map { load(Self.membersOffset + 2 + 2 * $0) },
            maxRequest: load(Self.charterOffset), sessions: load(Self.charterOffset + 8),
            stateSize: load(Self.charterOffset + 16), machine: machine, machineVersion: load(Self.charterOffset + 24))
        guard charter.isSound else { return nil }
        magic = expected
        self.version = version
        identity = PoolIdentity(cluster: cluster, replica: load(14), incarnation: load(16), charter: charter)
        regionSize = Int(clamping: load(Self.regionSizeOffset) as UInt64)
        geometry = (0..<Self.geometryWords).map { load(Self.geometryOffset + 8 * $0) }
    }

    init(magic: UInt64, version: UInt32, identity: PoolIdentity, regionSize: Int, geometry: [UInt64]) {
        self.magic = magic
        self.version = version
        self.identity = identity
        self.regionSize = regionSize
        self.geometry = geometry + Array(repeating: 0, count: Self.geometryWords - geometry.count)
    }
}
