import Glibc
import MPaxosCEpoll

/// A listening socket.
struct Listener: ~Copyable {
    let file: Int32
    private let address: SocketAddress

    enum Arrival {
        case connection(Int32)
        case nothing
        /// The process, or the system, is out of file descriptors or memory.
        case exhausted
    }

    /// Binds `endpoint` and listens.
    /// - Parameter silenceSeconds: how long TCP waits for a sign of life before it gives a connection up.
    init(at endpoint: String, backlog: Int32, silenceSeconds: Int = .max) throws(SocketError) {
        let address = try SocketAddress(endpoint, passive: true)
        file = try Self.listen(at: address, backlog: backlog)
        self.address = address
        if address.family != AF_UNIX, silenceSeconds < .max { findDead(after: silenceSeconds) }
    }

    /// Connections that are accepted inherit all this: probes when nothing comes, three of them in vain, or bytes that
    /// nobody acknowledges, end a connection.
    private func findDead(after seconds: Int) {
        let tcp = Int32(IPPROTO_TCP)
        let pause = Int32(clamping: max(1, seconds / 6))
        Self.set(TCP_KEEPIDLE, tcp, to: Int32(clamping: min(32_767, max(1, seconds / 2))), of: file)
        Self.set(TCP_KEEPINTVL, tcp, to: min(32_767, pause), of: file)
        Self.set(TCP_KEEPCNT, tcp, to: 3, of: file)
        Self.set(TCP_USER_TIMEOUT, tcp, to: Int32(clamping: seconds * 1000), of: file)
    }

    private static func listen(at address: SocketAddress, backlog: Int32) throws(SocketError) -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let file = socket(address.family, type, 0)
        guard file >= 0 else { throw failure(at: address) }
        if address.family == AF_UNIX {
            // What an earlier process left, and nobody listens at any more.
            if let path = address.path {
                guard !address.isListenedAt else {
                    close(file)
                    throw SocketError("bind \(address.endpoint): \(systemMessage(EADDRINUSE))", code: EADDRINUSE)
                }
                unlink(path)
            }
        } else {
            set(SO_REUSEADDR, SOL_SOCKET, to: 1, of: file)
            if address.family == AF_INET6 { set(IPV6_V6ONLY, Int32(IPPROTO_IPV6), to: 0, of: file) }
        }
        guard address.withPointer({ Glibc.bind(file, $0, $1) }) == 0, Glibc.listen(file, backlog) == 0 else {
            let error = failure(at: address)
            close(file)
            throw error
        }
        return file
    }

    private static func failure(at address: SocketAddress) -> SocketError {
        let code = errno
        return SocketError("bind \(address.endpoint): \(systemMessage(code))", code: code)
    }

    /// An option that the socket works without: a failure is no reason to stop.
    private static func set(_ option: Int32, _ level: Int32, to value: Int32, of file: Int32) {
        var value = value
        _ = setsockopt(file, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit {
        close(file)
        if let path = address.path { unlink(path) }
    }

    /// The port, of a TCP socket.
    var port: UInt16 {
        var storage = sockaddr_storage()
        var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutableBytes(of: &storage) { bytes in
            let name = bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self)
            guard getsockname(file, name, &size) == 0 else { return 0 }
            return UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self))
        }
    }

    /// The next connection that waits to be accepted, ready to use.
    func accept() -> Arrival {
        while true {
            let connection = cepoll_accept(file, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
            if connection >= 0 {
                if address.family != AF_UNIX {
                    // Without the first replies are later; without the second a client that vanished is noticed later.
                    Self.set(TCP_NODELAY, Int32(IPPROTO_TCP), to: 1, of: connection)
                    Self.set(SO_KEEPALIVE, SOL_SOCKET, to: 1, of: connection)
                }
                return .connection(connection)
            }
            switch errno {
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted
            case EAGAIN: return .nothing
            default: continue  // a connection that ended before it was accepted, a signal: the next one
            }
        }
    }
}
