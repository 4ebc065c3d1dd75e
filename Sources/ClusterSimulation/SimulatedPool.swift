import Glibc
import MPaxosInvariants
import MPaxosPersistentMemory

/// The persistent memory of one pool: what a crash leaves of it, and the pool that is open on it.
///
/// A crash is decided upon in the midst of some store, by the flush or fence that comes next; the code that runs then
/// runs to its end, on memory that nobody will see again.
final class SimulatedPool {
    /// What is durable while no pool is open.
    private(set) var image: [UInt8]
    private let path: String
    private var pool: Pool?
    private var model: CrashModel?

    /// - Parameter path: in the words of what the pool says.
    init(path: String, size: Int, format: (Pool) throws(PoolError) -> Void) throws(PoolError) {
        self.path = path
        image = []
        let pool = try Pool(path: path, memoryOf: size)
        let view = View(of: pool)
        try format(pool)
        pool.close()
        image = view.content
    }

    var size: Int { image.count }

    /// A pool on what is durable. Each flush and each fence of it is an event.
    func open(atEvent: @escaping (_ isFence: Bool) -> Void) throws(PoolError) -> Pool {
        invariant(pool == nil, "a pool is open once")
        let pool = try Pool(path: path, memoryOf: image.count)
        image.withUnsafeBytes { pool.region.copyMemory(from: $0) }
        let model = CrashModel(of: pool)
        var fences = 0
        model.atEvent = { [unowned model] in
            let isFence = model.fences != fences
            fences = model.fences
            atEvent(isFence)
        }
        pool.crashRecorder = model
        self.pool = pool
        self.model = model
        return pool
    }

    /// A plant: fences, or flushes, for which it answers true are forgotten.
    func forget(fences: (() -> Bool)?, flushes: (() -> Bool)?) {
        model?.forgetsFence = fences.map { forgets in { _ in forgets() } }
        model?.forgetsFlush = flushes.map { forgets in { _ in forgets() } }
    }

    /// What a crash at this moment may leave of an open pool becomes what is durable.
    func crash(_ kind: CrashModel.ImageKind, random: inout CrashModel.Seeded) {
        // One that is not open yet stays as it is.
        guard let model else { return }
        let open = kind == .nothing ? [] : model.openLines
        image.withUnsafeMutableBytes { _ = model.makeImage(kind, open: open, into: $0, random: &random) }
    }

    /// After a crash: the pool goes, and with it what was in its memory.
    func discard(_ close: () -> Void) {
        pool?.crashRecorder = nil
        close()
        forget()
    }

    /// In order: all that the pool holds when `close` has closed it is durable.
    func close(_ close: () -> Void) {
        guard let pool else { return close() }
        let view = View(of: pool)
        pool.crashRecorder = nil
        close()
        image = view.content
        forget()
    }

    private func forget() {
        pool?.close()
        pool = nil
        model = nil
    }

    /// Another pool in the place of this one, of the same size.
    func replace(by image: [UInt8]) {
        invariant(
            pool == nil && image.count == self.image.count, "a pool that is closed is replaced by one of its size")
        self.image = image
    }

    /// The memory of a pool, also after the pool was closed.
    final class View {
        private let descriptor: Int32
        private let count: Int

        init(of pool: Pool) {
            descriptor = fcntl(pool.fileDescriptor, F_DUPFD_CLOEXEC, 0)
            count = pool.region.count
            invariant(descriptor >= 0, "a process has descriptors for its simulations")
        }

        deinit { Glibc.close(descriptor) }

        var content: [UInt8] {
            [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
                while filled < count {
                    let got = pread(descriptor, bytes.baseAddress! + filled, count - filled, off_t(filled))
                    invariant(got > 0, "what is in memory can be read")
                    filled += got
                }
            }
        }
    }
}
