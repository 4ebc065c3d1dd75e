import Glibc
import MPaxosZMTP

/// A client endpoint and the socket address behind it, looked up once.
struct Endpoint: Sendable {
    let address: SocketAddress
    /// The replica runs on this host, so that its process can be looked at.
    let isLocal: Bool

    /// `tcp://host:port` or `ipc://path`, as in a topology.
    init(_ text: String) throws(BenchError) {
        do {
            address = try SocketAddress(text, passive: false)
        } catch {
            throw BenchError(.usage, error.description)
        }
        isLocal = address.family == AF_UNIX || Endpoint.isLoopback(address)
    }

    var text: String { address.endpoint }

    /// A socket to connect with; negative when there is none to be had.
    func makeSocket(nonBlocking: Bool) -> Int32 {
        let flags = SOCK_CLOEXEC.rawValue | (nonBlocking ? SOCK_NONBLOCK.rawValue : 0)
        return socket(address.family, Int32(SOCK_STREAM.rawValue | flags), 0)
    }

    /// As `connect(2)`.
    func connect(_ file: Int32) -> Int32 {
        address.withPointer { Glibc.connect(file, $0, $1) }
    }

    private static func isLoopback(_ address: SocketAddress) -> Bool {
        address.withPointer { pointer, size in
            let bytes = UnsafeRawBufferPointer(start: pointer, count: Int(size))
            return switch address.family {
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
