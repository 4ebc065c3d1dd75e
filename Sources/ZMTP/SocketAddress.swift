import Glibc
import MPaxosInvariants

/// What a ZeroMQ endpoint, `tcp://HOST:PORT` or `ipc://PATH`, means to the operating system; looked up once.
package struct SocketAddress: Sendable {
    /// The endpoint as it was given.
    package let endpoint: String
    let storage: sockaddr_storage
    let size: socklen_t
    /// The path of an `ipc://` endpoint with a name in the file system.
    let path: String?

    package var family: Int32 { Int32(storage.ss_family) }

    /// - Parameter passive: to listen at: then the host may be `*`, all interfaces, or the name of one; and the port
    ///   `*` or 0, any that is free.
    package init(_ endpoint: String, passive: Bool) throws(SocketError) {
        self.endpoint = endpoint
        if endpoint.hasPrefix("ipc://") {
            let path = String(endpoint.dropFirst(6))
            (storage, size) = try Self.unix(path, endpoint)
            self.path = path.utf8.first == UInt8(ascii: "@") ? nil : path
        } else if endpoint.hasPrefix("tcp://"), let colon = endpoint.lastIndex(of: ":"), colon > endpoint.startIndex {
            let start = endpoint.index(endpoint.startIndex, offsetBy: 6)
            guard colon >= start else { throw SocketError("\(endpoint): a port is missing") }
            var host = String(endpoint[start..<colon])
            if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
            let digits = endpoint[endpoint.index(after: colon)...]
            guard !digits.isEmpty else { throw SocketError("\(endpoint): a port is missing") }
            // The look-up would take names of services as well, and of larger numbers the last 16 bits.
            guard let port = passive && digits == "*" ? 0 : UInt16(digits) else {
                throw SocketError("\(endpoint): the port must be a number up to 65535")
            }
            // Some look-ups take `*` for a name, and find this host.
            guard passive || host != "*" else { throw SocketError("\(endpoint): `*` is not a host to connect to") }
            path = nil
            (storage, size) = try Self.internet(host, port, endpoint, passive: passive)
        } else {
            throw SocketError("\(endpoint): an endpoint must be tcp://host:port or ipc://path")
        }
    }

    /// Hands the address to a system call.
    package func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, size) }
        }
    }

    /// Whether a process listens at the path of an `ipc://` endpoint: to bind there would take the path from it.
    package var isListenedAt: Bool {
        guard path != nil else { return false }
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let file = socket(family, type, 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        // EAGAIN: it has more to accept than its queue takes.
        return withPointer { connect(file, $0, $1) } == 0 || errno == EAGAIN
    }

    private static func internet(
        _ host: String, _ port: UInt16, _ endpoint: String, passive: Bool
    ) throws(SocketError) -> (sockaddr_storage, socklen_t) {
        if passive, let found = interface(host, port) { return found }
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        let isWildcard = passive && host == "*"
        if isWildcard {
            // One IPv6 socket takes IPv4 connections, too, where there is IPv6 at all.
            hints.ai_flags = AI_PASSIVE
            hints.ai_family = hasIPv6 ? AF_INET6 : AF_INET
        }
        var found: UnsafeMutablePointer<addrinfo>?
        let result = getaddrinfo(isWildcard ? nil : host, String(port), &hints, &found)
        guard result == 0, let first = found else {
            throw SocketError(
                "\(endpoint): the host is not known: \(String(cString: gai_strerror(result)))", code: EADDRNOTAVAIL)
        }
        defer { freeaddrinfo(first) }
        // A name with addresses of both kinds means the IPv4 one, since that is what libzmq's clients connect to.
        var chosen = first
        var next: UnsafeMutablePointer<addrinfo>? = first
        while let entry = next {
            if entry.pointee.ai_family == AF_INET {
                chosen = entry
                break
            }
            next = entry.pointee.ai_next
        }
        return copy(UnsafeRawPointer(chosen.pointee.ai_addr), chosen.pointee.ai_addrlen)
    }

    private static let hasIPv6: Bool = {
        let file = socket(AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        if file >= 0 { close(file) }
        return file >= 0
    }()

    /// The address of a network interface by its name, IPv4 before IPv6.
    private static func interface(_ name: String, _ port: UInt16) -> (sockaddr_storage, socklen_t)? {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return nil }
        defer { freeifaddrs(list) }
        for family in [AF_INET, AF_INET6] {
            var next = list
            while let entry = next {
                next = entry.pointee.ifa_next
                guard let address = entry.pointee.ifa_addr, Int32(address.pointee.sa_family) == family,
                    String(cString: entry.pointee.ifa_name) == name
                else { continue }
                let size = family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
                var (storage, length) = copy(UnsafeRawPointer(address), socklen_t(size))
                // The port lies behind the family in both kinds of address.
                withUnsafeMutableBytes(of: &storage) {
                    $0.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
                }
                return (storage, length)
            }
        }
        return nil
    }

    private static func copy(_ address: UnsafeRawPointer, _ size: socklen_t) -> (sockaddr_storage, socklen_t) {
        invariant(Int(size) <= MemoryLayout<sockaddr_storage>.size, "a socket address fits its storage")
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) { $0.baseAddress!.copyMemory(from: address, byteCount: Int(size)) }
        return (storage, size)
    }

    private static func unix(_ path: String, _ endpoint: String) throws(SocketError) -> (sockaddr_storage, socklen_t) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw SocketError("\(endpoint): the path must have 1 to 107 bytes")
        }
        // An abstract name (`@name` in ZeroMQ) begins with a zero byte and has no terminator.
        let isAbstract = bytes[0] == UInt8(ascii: "@")
        withUnsafeMutableBytes(of: &address.sun_path) {
            $0.copyBytes(from: bytes)
            if isAbstract { $0[0] = 0 }
        }
        let size = MemoryLayout<sa_family_t>.size + bytes.count + (isAbstract ? 0 : 1)
        return withUnsafeBytes(of: &address) { copy($0.baseAddress!, socklen_t(size)) }
    }
}
