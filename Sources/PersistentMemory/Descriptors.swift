import Glibc

/// What this process has open.
enum Descriptors {
    /// Sees to it that no program that this process starts inherits the file: libpmemobj opens it without saying so, and
    /// its lock would outlive this process in the child, so that the next start found the pool in use.
    /// - Parameter descriptor: the file, opened once more.
    static func closeOnExec(of descriptor: Int32) {
        var wanted = stat()
        guard fstat(descriptor, &wanted) == 0, let folder = opendir("/proc/self/fd") else { return }
        defer { closedir(folder) }
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            var found = stat()
            guard let number = Int32(name), fstat(number, &found) == 0, found.st_dev == wanted.st_dev,
                found.st_ino == wanted.st_ino
            else { continue }
            let flags = fcntl(number, F_GETFD)
            if flags >= 0 { _ = fcntl(number, F_SETFD, flags | FD_CLOEXEC) }
        }
    }
}
