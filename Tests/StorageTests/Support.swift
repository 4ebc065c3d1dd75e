import Glibc
import MPaxosConsensus
import MPaxosPersistentMemory

@testable import MPaxosStorage

typealias Seeded = CrashModel.Seeded

/// `CRASH_COMMITS` in the environment makes longer runs with crash images, here and in PersistentMemoryTests.
func crashCommits(usually usual: Int) -> Int { getenv("CRASH_COMMITS").flatMap { Int(String(cString: $0)) } ?? usual }

/// A folder under /dev/shm that goes away with its owner.
final class Folder {
    let path: String

    init() {
        var template = Array("/dev/shm/storage-tests-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { fatalError("no folder for tests: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != "." && name != ".." { unlink("\(path)/\(name)") }
            }
            closedir(directory)
        }
        rmdir(path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

let charter = Charter(
    members: [3, 7, 9], maxRequest: 1 << 20, sessions: 1024, stateSize: 32 << 20, machine: "Machine", machineVersion: 2)
let identity = PoolIdentity(
    cluster: "test cluster", replica: 7, incarnation: 0xABCD_EF01_2345_6789, charter: charter)

func emptyPool(pages: Int) throws -> Pool {
    let zeros = [UInt8](repeating: 0, count: pages * Pool.pageSize)
    return try zeros.withUnsafeBytes { try Pool(image: $0) }
}

/// The region as it is now, opened anew.
func copy(of pool: Pool) throws -> Pool { try Pool(image: UnsafeRawBufferPointer(pool.region)) }

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Changes one bit of a file at an offset.
func flipBit(in path: String, at offset: Int) {
    let file = open(path, O_RDWR)
    precondition(file >= 0, "cannot open \(path)")
    var byte: UInt8 = 0
    precondition(pread(file, &byte, 1, offset) == 1)
    byte ^= 0x10
    precondition(pwrite(file, &byte, 1, offset) == 1)
    close(file)
}

/// What an operation threw.
func error(of body: () throws -> Void) -> PoolError? {
    do {
        try body()
        return nil
    } catch {
        return error as? PoolError
    }
}

extension AcceptorPool {
    func store(_ content: [UInt8], for instance: UInt64? = nil) -> Batch? {
        guard let room = reserve(content.count) else { return nil }
        content.withUnsafeBytes { room.copyMemory(from: $0.baseAddress!, byteCount: content.count) }
        return seal(content.count, for: instance)
    }

    func content(of batch: Batch) -> [UInt8] { Array(bytes(of: batch)) }

    var entries: [UInt64: (view: UInt64, batch: Batch)] {
        var found: [UInt64: (view: UInt64, batch: Batch)] = [:]
        forEachEntry { found[$0] = ($1, $2) }
        return found
    }
}
