import Glibc
import MPaxosConsensus
import Testing

@testable import MPaxosPersistentMemory
@testable import MPaxosStorage

/// `docs/pool-format.md`, held against the layouts and against what is written.
@Suite struct PoolFormatDocumentTests {
    let document: FormatDocument
    static let charter = Charter(
        members: [0, 1], maxRequest: 1 << 20, sessions: 65_536, stateSize: 256 << 20, machine: "KeyValueService",
        machineVersion: 1)

    init() throws { document = try FormatDocument("pool-format.md") }

    private static func stored<T: BitwiseCopyable>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

    /// Rows of a table of fields, in each of which type and field may be told: offset, size, head of the field.
    private func fields(_ heading: String, _ first: String = "offset", after row: String? = nil) throws
        -> [(offset: Int, size: Int, name: String)]
    {
        try document.rows(under: heading, columns: [first, "size", "type", "field"], after: row).map { row in
            let offset = try #require(FormatDocument.number(row[0]), "\(row)")
            let size = try #require(FormatDocument.number(row[1]), "\(row)")
            return (Int(offset), Int(size), FormatDocument.head(row[3]))
        }
    }

    /// Fields follow each other without a gap up to `end`, and those with a name lie where the code has them.
    private func expect(_ fields: [(offset: Int, size: Int, name: String)], _ places: [String: Int?], end: Int) {
        var next = 0
        for field in fields {
            #expect(field.offset == next, "\(field)")
            next = field.offset + field.size
            if let place = places[field.name] { #expect(field.offset == place, "\(field)") }
        }
        #expect(next == end)
        #expect(Set(places.keys).isSubset(of: Set(fields.map(\.name))))
    }

    private func contains(_ sentence: String) -> Bool { document.lines.joined(separator: " ").contains(sentence) }

    @Test func linesAreNotTooLong() {
        #expect(document.overlongLines == [])
    }

    @Test func versionsAreThoseOfTheLayouts() throws {
        let (acceptor, state) = (AcceptorGeometry.version, StateLayout.version)
        #expect(document.title.hasSuffix("acceptor version \(acceptor), state version \(state)"))
        let page = try document.rows(under: "The identity page", "offset", "size", "type", "field")
        #expect(page[1][3] == "version: \(acceptor) (acceptor), \(state) (state)")
        let heap = try document.rows(
            under: "The header of the heap", "offset in the page", "size", "type", "field")
        #expect(heap[1][3] == "version: \(HeapLayout.version)")
        #expect(contains("`\(AcceptorGeometry.poolLayout) size=N` or `\(StateLayout.poolLayout) size=N`"))
        let raised = try document.rows(under: "Versions and salts", "what", "where", "is raised when").map { $0[0] }
        #expect(
            raised == [
                "layout, \(AcceptorGeometry.poolLayout.last!) and \(StateLayout.poolLayout.last!)",
                "version, \(acceptor) and \(state)", "heap, \(HeapLayout.version)",
            ])
    }

    // MARK: Examples

    /// An example is what is written, and each field of its table begins with a line of it.
    private func expectExample(_ name: String, _ written: [UInt8], _ heading: String) throws {
        #expect(try document.example(name) == written)
        let lines = try document.offsets(ofExample: name)
        for field in try fields(heading) { #expect(lines.contains(field.offset), "\(field)") }
        expect(try fields(heading), [:], end: written.count)
    }

    @Test func voteIsAsItIsWritten() throws {
        let vote = VoteLine(
            instance: 42, view: 3, batch: Batch(offset: 4096, length: 56, checksum: 0x049A_D53B),
            group: CheckedNumber(17))
        try expectExample("vote", Self.stored(vote), "Votes")
        #expect(contains("12,288 + 128 x 42 = 17,664"))
        #expect(AcceptorGeometry.slotsOffset + 42 * AcceptorGeometry.slotSize == 17_664)
    }

    @Test func recordIsAsItIsWritten() throws {
        let record = PairedRecord(kind: RecordCell.promise.kind, sequence: 5, epoch: 17, first: 3, second: 0)
        try expectExample("record", Self.stored(record), "Records")
    }

    @Test func identityPageIsAsItIsWritten() throws {
        let geometry = AcceptorGeometry(regionSize: 68 << 20)
        let page = IdentityPage(
            magic: AcceptorGeometry.magic, version: AcceptorGeometry.version,
            identity: PoolIdentity(
                cluster: "demo", replica: 1, incarnation: 0x1122_3344_5566_7788, charter: Self.charter),
            regionSize: 68 << 20, geometry: geometry.words)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: IdentityPage.size, alignment: IdentityPage.size)
        defer { memory.deallocate() }
        page.write(to: memory.baseAddress!)
        try expectExample("identity", Array(memory), "The identity page")
        for magic in [AcceptorGeometry.magic, StateLayout.magic] {
            let text = String(decoding: Self.stored(magic).filter { $0 > 1 }, as: UTF8.self)
            #expect(
                try document.rows(under: "The identity page", "offset", "size", "type", "field")[0][3].contains(text))
        }
    }

    @Test func journalRecordIsAsItIsWritten() throws {
        let page = UInt64(Pool.pageSize)
        let layout = HeapLayout(
            regionSize: 4 * page, journalSize: page, dataSize: 2 * page, progressSize: 0, reserveSize: 0,
            salt: 0x0123_4567_89AB_CDEF)
        let pool = try emptyPool(pages: 4)
        let header = pool.region.baseAddress!
        Journal.format(header: header)
        var journal = try Journal(pool: pool, header: header, layout: layout)
        let lines = Int(layout.dataSize) / DirtyLines.lineSize
        let view = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(layout.dataSize), alignment: Pool.pageSize)
        defer { view.deallocate() }
        for index in 0..<64 { view[5 * 64 + index] = UInt8(index) }
        var dirty = DirtyLines(lines: lines, capacity: lines)
        defer { dirty.deallocate() }
        _ = dirty.mark(5 * 64, 64)
        journal.commit(dirty, from: view.baseAddress!, to: header + layout.dataOffset)
        let record = UnsafeRawBufferPointer(
            start: header + layout.journalOffset, count: Journal.recordSize(lines: 1))
        #expect(try document.example("commit") == Array(record))
        let head = try document.rows(under: "The journal", "offset", "size", "type", "field").prefix(5)
        let places = [
            MemoryLayout<Journal.Head>.offset(of: \Journal.Head.commit),
            MemoryLayout<Journal.Head>.offset(of: \Journal.Head.lines),
            MemoryLayout<Journal.Head>.offset(of: \Journal.Head.sums),
            MemoryLayout<Journal.Head>.offset(of: \Journal.Head.salt),
            MemoryLayout<Journal.Head>.offset(of: \Journal.Head.unused),
        ]
        #expect(head.map { Int($0[0]) } == places)
    }

    // MARK: In front of the region

    @Test func rootAndSealAreWhereTheyAreSaidToBe() throws {
        let folder = Folder()
        let path = folder.file("pool")
        try Pool.create(path: path, layout: StateLayout.poolLayout, size: Pool.minimumSize)
        let (region, size) = try { () throws -> (Int, Int) in
            let pool = try Pool(opening: path, layout: StateLayout.poolLayout)
            defer { pool.close() }
            return (pool.fileOffsetOfRegion, pool.region.count)
        }()
        var file = [UInt8](repeating: 0, count: region)
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(pread(descriptor, &file, region, 0) == region)
        func word(_ at: Int) -> Int { file.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: at, as: Int.self)) } }
        func sum(_ range: Range<Int>) -> UInt32 {
            file[range].withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
        }
        func number(_ at: Int) -> UInt32 {
            file.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: at, as: UInt32.self) }
        }
        #expect(file.starts(with: "PMEMOBJ\0".utf8))
        #expect(file[4096...].starts(with: "\(StateLayout.poolLayout) size=\(Pool.minimumSize)\0".utf8))
        let heading = "In front of the region"
        let root = try fields(heading)
        let start = try #require(file.indices.first { file[$0...].starts(with: [1] + "MPXREG1".utf8) })
        #expect(root.map(\.offset) == [0, 8, 16] && word(start + root[1].offset) == region)
        #expect(word(start + root[2].offset) == size)

        let seal = try fields(heading, after: "bytes, a multiple of 4,096")
        expect(seal, ["magic": 0, "region": 8, "metadata": 16, "own": 20], end: 64)
        let place = region - 64
        #expect(file[place...].starts(with: "MPXSEAL1".utf8) && word(place + 8) == region)
        #expect(contains("bytes 4,096 to 6,151, 6,160 to 6,655, and 8,192 to the seal"))
        let sums = [sum(4096..<6152), sum(6160..<6656), sum(8192..<place)]
        #expect(number(place + 16) == sums.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) })
        #expect(number(place + 20) == sum(place..<place + 20))
    }

    // MARK: The acceptor pool

    @Test func partsOfTheAcceptorPoolAreWhereTheyAreSaidToBe() throws {
        let rows = try document.rows(under: "The acceptor pool", "offset in the region", "size", "holds")
        let cells = 2 * AcceptorGeometry.line
        let groups = Dictionary(grouping: RecordCell.all) { cell in
            switch cell.primary {
            case ..<AcceptorGeometry.pastOffset: AcceptorGeometry.recordsOffset
            case ..<AcceptorGeometry.incarnationsOffset: AcceptorGeometry.pastOffset
            default: AcceptorGeometry.incarnationsOffset
            }
        }
        func size(_ offset: Int) -> Int { groups[offset]!.count * cells }
        let expected = [
            (0, IdentityPage.size), (AcceptorGeometry.recordsOffset, size(AcceptorGeometry.recordsOffset)),
            (AcceptorGeometry.fencedOffset, 8), (AcceptorGeometry.pastOffset, size(AcceptorGeometry.pastOffset)),
            (AcceptorGeometry.incarnationsOffset, size(AcceptorGeometry.incarnationsOffset)),
        ]
        for (row, (offset, size)) in zip(rows, expected) {
            #expect(FormatDocument.number(row[0]) == UInt64(offset) && FormatDocument.number(row[1]) == UInt64(size))
        }
        #expect(FormatDocument.number(rows[5][0]) == UInt64(AcceptorGeometry.slotsOffset))
        #expect(rows[5][1] == "\(AcceptorGeometry.slotSize) x slots")
        #expect(AcceptorGeometry.slotLimit == 262_144 && contains("an eighth of the region, 262,144 at most"))
        #expect(AcceptorGeometry.fileSize(logSize: 64 << 20) == 72 << 20 && contains("`log_size` and 8 MiB"))
    }

    @Test func recordsAreWhereTheyAreSaidToBe() throws {
        var indices: [Int] = []
        for row in try document.rows(under: "Records", "index", "primary at", "first", "second") {
            let bounds = row[0].split(separator: " ").compactMap { Int($0) }
            // `8,192 + 128 x (index - 7)`, or a number.
            let numbers = row[1].split { !"0123456789,".contains($0) }.compactMap { FormatDocument.number(String($0)) }
            for index in bounds[0]...bounds.last! {
                indices.append(index)
                let place =
                    numbers.count == 3
                    ? Int(numbers[0]) + Int(numbers[1]) * (index - Int(numbers[2])) : Int(numbers[0])
                #expect(RecordCell(index: index).primary == place, "\(row)")
            }
        }
        #expect(indices == Array(0..<RecordCell.count))
        #expect(contains("kind: 0x5041495200 + the record's index") && RecordCell.floor.kind == 0x50_4149_5200 + 2)
        #expect(
            [RecordCell.promise, .established, .floor, .shutdown, .life, .begun, .founding].map(\.index)
                == Array(0..<7))
        #expect([RecordCell.peer(0), .peerLife(0), .refusedLife(0)].map(\.index) == [7, 17, 27])
        #expect(RecordCell.nonce(of: 32) == (RecordCell(index: 37), false))
        #expect(RecordCell.nonce(of: 63) == (RecordCell(index: 52), true))
    }

    @Test func zeroAsACheckedNumberIsAsItIsSaid() {
        #expect(contains("Zero as a number is 0x" + String(CheckedNumber(0).word, radix: 16, uppercase: true)))
    }

    // MARK: The state pool

    @Test func headerOfTheHeapHasItsFields() throws {
        let rows = try document.rows(
            under: "The header of the heap", "offset in the page", "size", "type", "field")
        let layout = [
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.magic),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.version),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.regionSize),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.journalSize),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.dataSize),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.progressSize),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.reserveSize),
            MemoryLayout<HeapLayout>.offset(of: \HeapLayout.salt),
            HeapLayout.checksumOffset, HeapLayout.firstCommitOffset, HeapLayout.newestCommitOffset,
            HeapLayout.ownerOffset,
        ]
        #expect(rows.map { Int($0[0]) } == layout)
    }

    @Test func partsOfTheDataAreaAreWhereTheyAreSaidToBe() throws {
        let page = UInt64(Pool.pageSize)
        let layout = HeapLayout(
            regionSize: 0, journalSize: page, dataSize: 0, progressSize: page, reserveSize: 0, salt: 1)
        let rows = try document.rows(under: "The data area", "offset", "size", "holds", "digest")
        let places = rows.map { row -> UInt64 in
            let number = row[0].split { !"0123456789,".contains($0) }.compactMap { FormatDocument.number(String($0)) }
            return (row[0].hasPrefix("progress size") ? page : 0) + (number.first ?? 0)
        }
        #expect(places[0...3] == [0, layout.systemRoot, layout.machineRoot, layout.allocator])
        #expect((places[4] + 63) & ~63 == layout.blocks)
        #expect(FormatDocument.number(rows[1][1]) == UInt64(HeapLayout.systemRootSize))
        #expect(FormatDocument.number(rows[2][1]) == UInt64(HeapLayout.machineRootSize))
        #expect(FormatDocument.number(rows[3][1]) == UInt64(AllocatorLayout.size))
    }

    @Test func linesOfTheStateHaveTheirFields() throws {
        expect(
            try fields("The data area"),
            [
                "executed": MemoryLayout<Progress>.offset(of: \Progress.executed),
                "records": MemoryLayout<Progress>.offset(of: \Progress.records),
                "useClock": MemoryLayout<Progress>.offset(of: \Progress.useClock),
                "installed": MemoryLayout<Progress>.offset(of: \Progress.installed),
                "bootCount": MemoryLayout<Progress>.offset(of: \Progress.bootCount),
                "digest": MemoryLayout<Progress>.offset(of: \Progress.digest),
                "checksum": MemoryLayout<Progress>.offset(of: \Progress.checksum),
            ], end: MemoryLayout<Progress>.size)
        expect(
            try fields("The data area", after: "A stamp is"),
            [
                "magic": MemoryLayout<StateRoot>.offset(of: \StateRoot.magic),
                "position": MemoryLayout<StateRoot>.offset(of: \StateRoot.position),
                "openings": MemoryLayout<StateRoot>.offset(of: \StateRoot.openings),
                "sessions": MemoryLayout<StateRoot>.offset(of: \StateRoot.sessions),
                "usedSlots": MemoryLayout<StateRoot>.offset(of: \StateRoot.usedSlots),
                "table": MemoryLayout<StateRoot>.offset(of: \StateRoot.table),
                "tableBlock": MemoryLayout<StateRoot>.offset(of: \StateRoot.tableBlock),
                "capacity": MemoryLayout<StateRoot>.offset(of: \StateRoot.capacity),
                "checksum": MemoryLayout<StateRoot>.offset(of: \StateRoot.checksum),
            ], end: MemoryLayout<StateRoot>.size)
        expect(
            try fields("The data area", after: "A slot of the table"),
            [
                "id of the session": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.id),
                "sequence": Int(SessionSlot.sequenceOffset), "block": Int(SessionSlot.blockOffset),
                "position": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.position),
                "replyLength": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.replyLength),
                "status": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.status),
                "replyStart": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.replyStart),
                "stamp": MemoryLayout<SessionSlot>.offset(of: \SessionSlot.stamp), "the reply": SessionSlot.size,
            ], end: StateLayout.slotSize)
        #expect(contains("magic: `MPXROOT1`") && Self.stored(StateRoot.magic) == bytes("MPXROOT1"))
    }

    @Test func blocksAndTheirRecordsHaveTheirFields() throws {
        expect(
            try fields("Blocks"),
            [
                "dataBytes": Int(AllocatorLayout.dataBytes), "reserveBytes": Int(AllocatorLayout.reserveBytes),
                "highWater": Int(AllocatorLayout.highWater), "firstLevelMap": Int(AllocatorLayout.firstLevelMap),
                "sum": Int(AllocatorLayout.sum), "secondLevelMaps": Int(AllocatorLayout.secondLevelMaps),
                "heads": Int(AllocatorLayout.heads),
            ], end: AllocatorLayout.size)
        let header = try document.rows(
            under: "Blocks", columns: ["offset", "size", "type", "field"], after: "Blocks lie")
        #expect(header.map { $0[0] } == ["0", "8", "14", "16", "24"])
        let block = BlockHeader(size: 64, before: 48, isFree: false, isReserve: true)
        #expect(Self.stored(block) == [66, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0x10, 0xA1])
        let free = BlockHeader(size: 32, before: 0, isFree: true, isReserve: false)
        #expect(Self.stored(free) == [33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xEE, 0xF4])
        #expect(contains("tag: 0xA110 allocated, 0xF4EE free"))
        for size in stride(from: 32 as UInt64, to: 100_000, by: 16) {
            let place = 63 - size.leadingZeroBitCount
            let expected =
                size < 512
                ? SizeClass(first: 0, second: Int(size / 16))
                : SizeClass(first: place - 8, second: Int(size >> UInt64(place - 5) & 31))
            #expect(SizeClass(holding: size) == expected)
        }
    }

    /// The formula of the document, with the constants that stand there.
    @Test func digestIsWhatItIsSaidToBe() throws {
        let lines = document.lines
        let keys = try (0..<8).map { index in
            let line = try #require(lines.first { $0.contains("k\(index) = ") })
            let text = line[line.firstRange(of: "k\(index) = ")!.upperBound...].prefix { $0 != " " }
            return try #require(UInt64(text, radix: 16))
        }
        #expect(contains("0xD6E8FEB86659FD93"))
        func fold(_ x: UInt64, _ y: UInt64) -> UInt64 {
            let product = x.multipliedFullWidth(by: y)
            return product.high ^ product.low
        }
        for number in [0, 1, 77, 1 << 40] as [UInt64] {
            let words = (0..<8).map { UInt64($0 + 1) &* 0x0102_0304_0506_0708 &+ number }
            let place = (number &+ 1) &* 0xD6E8_FEB8_6659_FD93
            let first = fold(words[0] ^ keys[0], words[1] ^ keys[1] ^ place)
            let second = fold(words[2] ^ keys[2] ^ place, words[3] ^ keys[3])
            let third = fold(words[4] ^ keys[4], words[5] ^ keys[5] ^ place)
            let fourth = fold(words[6] ^ keys[6] ^ place, words[7] ^ keys[7])
            let hash = fold((first &+ third) ^ place, (second &+ fourth) ^ keys[0])
            #expect(words.withUnsafeBytes { LineHash.hash($0.baseAddress!, number: number) } == hash)
        }
    }

    @Test func geometryAndFingerprintAreWhatTheyAreSaidToBe() throws {
        let rig = try StateRig(sessions: 16)
        let region = rig.region.region
        let header = (region.baseAddress! + StateLayout.heapOffset).load(as: HeapLayout.self)
        let words = [
            UInt64(StateLayout.version), 16, UInt64(region.count), header.version, header.regionSize,
            header.journalSize, header.dataSize, header.progressSize, header.reserveSize,
        ]
        #expect(contains("the CRC32C of nine words") && words.count == 9)
        let sum = words.withUnsafeBytes { Checksum.of($0.baseAddress!, $0.count) }
        let geometry = UInt64(region.count / Pool.pageSize) << 32 | UInt64(sum)
        #expect(rig.pool.geometry.fingerprint == geometry)

        let values = [2, 0, 1, 1 << 20, 65_536, 256 << 20, 1, geometry] as [UInt64]
        let input = values.flatMap { Self.stored($0) } + bytes("KeyValueService")
        #expect(contains("CBF29CE484222325") && contains("100000001B3"))
        let hash = input.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        #expect(Self.charter.fingerprint(layout: geometry) == hash)
    }
}
