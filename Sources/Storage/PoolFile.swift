import Glibc
import MPaxosPersistentMemory

/// A pool file read without libpmemobj and without writing to it, such that recovery can run on what is read while the
/// file stays as it is. Possible while a replica has the pool open; but then what is read is not of one moment.
struct PoolFile {
    enum Kind: String, Codable, Sendable {
        case acceptor
        case state
    }

    let path: String
    let kind: Kind
    let isInUse: Bool
    let fileSize: Int
    let page: IdentityPage
    /// The region: the file's own pages, as long as nobody changes them; else a copy.
    let pool: Pool

    /// What becomes of a pool that a process has open.
    enum Use {
        case copy
        case refuse
    }

    init(reading path: String, ifInUse use: Use = .copy) throws(PoolError) {
        let file = try Self.open(path)
        defer { Glibc.close(file) }
        let (kind, size, offset, page) = try Self.examine(file, path: path)
        self.path = path
        self.kind = kind
        self.page = page
        fileSize = size
        isInUse = Self.isInUse(file)
        guard !isInUse || use == .copy else {
            throw PoolError(.inUse, "\(path): another process has it open; stop that one first")
        }
        pool =
            isInUse
            ? try Pool(path: path, copyOf: file, at: offset, count: page.regionSize)
            : try Pool(path: path, privateViewOf: file, at: offset, count: page.regionSize)
    }

    /// Whose pool it is.
    static func identity(at path: String) throws(PoolError) -> PoolIdentity {
        let file = try open(path)
        defer { Glibc.close(file) }
        return try examine(file, path: path).page.identity
    }

    /// Whether a replica has opened it since.
    var isTakenUp: Bool {
        guard !isInUse, let file = try? Self.open(path) else { return false }
        defer { Glibc.close(file) }
        return Self.isInUse(file)
    }

    /// libpmemobj holds an exclusive lock of this kind for as long as a process has the pool open.
    private static func isInUse(_ file: Int32) -> Bool {
        guard flock(file, LOCK_SH | LOCK_NB) == 0 else { return true }
        flock(file, LOCK_UN)
        return false
    }

    private static func open(_ path: String) throws(PoolError) -> Int32 {
        let file = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else {
            throw errno == ENOENT
                ? PoolError(.missing, "\(path): no such pool; give the path of an acceptor.pool or a state.pool")
                : PoolError(
                    .io,
                    "\(path): cannot read: \(String(cString: strerror(errno))); give a path that this user may read")
        }
        return file
    }

    private static func examine(
        _ file: Int32, path: String
    ) throws(PoolError) -> (kind: Kind, size: Int, offset: Int, page: IdentityPage) {
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw PoolError(.foreign, "\(path): not a regular file; give the path of a pool file")
        }
        let size = Int(status.st_size)
        let kind = try Self.kind(of: file, size: size, path: path)
        guard let mapped = mmap(nil, size, PROT_READ, MAP_SHARED, file, 0), mapped != MAP_FAILED else {
            throw PoolError(
                .io,
                "\(path): cannot map: \(String(cString: strerror(errno))); give the host more memory, or this process more address space (ulimit -v)"
            )
        }
        defer { munmap(mapped, size) }
        let (offset, page) = try region(in: mapped, size: size, kind: kind, path: path)
        return (kind, size, offset, page)
    }

    private static func kind(of file: Int32, size: Int, path: String) throws(PoolError) -> Kind {
        // The descriptor of libpmemobj: a signature at 0, the layout string of at most 1,024 bytes at 4,096.
        var head = [UInt8](repeating: 0, count: 4096 + 1024)
        let got = pread(file, &head, head.count, 0)
        guard got < 8 || Array(head[0..<8]) == Array("PMEMOBJ\0".utf8) else {
            throw PoolError(.foreign, "\(path): not a pool file; give the path of an acceptor.pool or a state.pool")
        }
        guard got == head.count else {
            throw PoolError.damagedPool(path, size == 0 ? "empty" : "truncated to \(size) bytes")
        }
        let stored = String(decoding: head[4096...].prefix { $0 != 0 }, as: UTF8.self)
        let words = stored.split(separator: " ")
        guard words.count == 2, words[1].hasPrefix("size="), let wanted = Int(words[1].dropFirst(5)) else {
            throw PoolError(
                .foreign,
                "\(path): a pool with the layout '\(stored)', which this program does not know: run the program that made it"
            )
        }
        guard wanted == size else {
            throw PoolError.damagedPool(path, "\(size) bytes long, but made with \(wanted)")
        }
        switch words[0] {
        case AcceptorGeometry.poolLayout: return .acceptor
        case StateLayout.poolLayout: return .state
        default:
            throw PoolError(
                .foreign,
                "\(path): a pool with the layout '\(stored)', which this program does not know: run the program that made it"
            )
        }
    }

    /// The region starts with its identity page, on a page of the file, and before it there is only what is
    /// libpmemobj's.
    private static func region(
        in file: UnsafeRawPointer, size: Int, kind: Kind, path: String
    ) throws(PoolError) -> (offset: Int, page: IdentityPage) {
        let magic = kind == .acceptor ? AcceptorGeometry.magic : StateLayout.magic
        let version = kind == .acceptor ? AcceptorGeometry.version : StateLayout.version
        for offset in stride(from: 0, through: size - IdentityPage.size, by: Pool.pageSize) {
            guard (file + offset).load(as: UInt64.self) == magic,
                IdentityPage.version(of: file + offset, magic: magic) != nil
            else { continue }
            let page = try IdentityCheck.page(
                at: file + offset, magic: magic, version: version, what: "\(kind.rawValue)", path: path)
            guard page.regionSize > 0, page.regionSize % Pool.pageSize == 0, page.regionSize <= size - offset else {
                throw PoolError.damagedPool(path, "its region is larger than the file")
            }
            return (offset, page)
        }
        throw PoolError.damagedPool(path, "its header is damaged, or its format was cut short")
    }
}
