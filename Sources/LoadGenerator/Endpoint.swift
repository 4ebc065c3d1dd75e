import Glibc

/// A client endpoint and the socket address behind it, looked up once.
struct Endpoint: Sendable {
    let text: String
    let address: sockaddr_storage
    let addressSize: socklen_t
    /// The replica runs on this host, so that its process can be looked at.
    let isLocal: Bool

    /// `tcp://host:port` or `ipc://path`, as in a topology.
    init(_ text: String) throws(BenchError) {
        self.text = text
        if text.hasPrefix("ipc://") {
            (address, addressSize) = try Endpoint.unix(String(text.dropFirst(6)), text)
            isLocal = true
        } else if text.hasPrefix("tcp://"), let colon = text.lastIndex(of: ":"), colon > text.startIndex {
            let hostStart = text.index(text.startIndex, offsetBy: 6)
            guard colon >= hostStart else { throw BenchError(.usage, "\(text): a port is missing") }
            var host = String(text[hostStart..<colon])
            if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
            (address, addressSize) = try Endpoint.internet(host, String(text[text.index(after: colon)...]), text)
            isLocal = Endpoint.isLoopback(address)
        } else {
            throw BenchError(.usage, "\(text): an endpoint must be tcp://host:port or ipc://path")
        }
    }

    var family: Int32 { Int32(address.ss_family) }

    private static func internet(
        _ host: String, _ port: String, _ text: String
    ) throws(BenchError) -> (sockaddr_storage, socklen_t) {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let result = getaddrinfo(host, port, &hints, &found)
        guard result == 0, let first = found else {
            throw BenchError(.usage, "\(text): the host is not known: \(String(cString: gai_strerror(result)))")
        }
        defer { freeaddrinfo(first) }
        var storage = sockaddr_storage()
        let size = first.pointee.ai_addrlen
        precondition(Int(size) <= MemoryLayout<sockaddr_storage>.size, "a socket address is larger than its storage")
        withUnsafeMutableBytes(of: &storage) {
            $0.baseAddress!.copyMemory(from: UnsafeRawPointer(first.pointee.ai_addr), byteCount: Int(size))
        }
        return (storage, size)
    }

    private static func unix(_ path: String, _ text: String) throws(BenchError) -> (sockaddr_storage, socklen_t) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw BenchError(.usage, "\(text): the path must have 1 to 107 bytes")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // An abstract name (`@name` in ZeroMQ) begins with a zero byte and has no terminator.
        if bytes[0] == UInt8(ascii: "@") { withUnsafeMutableBytes(of: &address.sun_path) { $0[0] = 0 } }
        let size = MemoryLayout<sa_family_t>.size + bytes.count + (bytes[0] == UInt8(ascii: "@") ? 0 : 1)
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) { target in
            withUnsafeBytes(of: &address) { target.copyBytes(from: $0) }
        }
        return (storage, socklen_t(size))
    }

    private static func isLoopback(_ address: sockaddr_storage) -> Bool {
        withUnsafeBytes(of: address) { bytes in
            switch Int32(address.ss_family) {
            case AF_INET: bytes[4] == 127
            // ::1, or an IPv4 loopback address mapped into IPv6.
            case AF_INET6:
                bytes[8..<23].allSatisfy { $0 == 0 } && bytes[23] == 1
                    || bytes[8..<18].allSatisfy { $0 == 0 } && bytes[18] == 0xFF && bytes[19] == 0xFF
                        && bytes[20] == 127
            default: false
            }
        }
    }
}
