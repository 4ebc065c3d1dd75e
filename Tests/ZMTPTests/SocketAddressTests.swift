import Foundation
import Testing

@testable import MPaxosZMTP

@Suite struct SocketAddressTests {
    @Test(arguments: [false, true]) func iPv4(passive: Bool) throws {
        let address = try SocketAddress("tcp://127.8.0.1:7200", passive: passive)
        #expect(address.endpoint == "tcp://127.8.0.1:7200" && address.family == AF_INET && address.path == nil)
        #expect(address.bytes.count == MemoryLayout<sockaddr_in>.size)
        #expect(Array(address.bytes[2..<8]) == [7200 >> 8, 7200 & 0xFF, 127, 8, 0, 1])
    }

    @Test(arguments: [false, true]) func iPv6InBrackets(passive: Bool) throws {
        let address = try SocketAddress("tcp://[2001:db8::17]:65535", passive: passive)
        #expect(address.family == AF_INET6 && address.bytes.count == MemoryLayout<sockaddr_in6>.size)
        #expect(Array(address.bytes[2..<4]) == [0xFF, 0xFF])
        #expect(Array(address.bytes[8..<24]) == [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [0x17])
    }

    @Test func allInterfaces() throws {
        let address = try SocketAddress("tcp://*:7200", passive: true)
        #expect(Array(address.bytes[2..<4]) == [7200 >> 8, 7200 & 0xFF])
        switch address.family {
        case AF_INET: #expect(address.bytes[4..<8].allSatisfy { $0 == 0 })
        case AF_INET6: #expect(address.bytes[8..<24].allSatisfy { $0 == 0 })
        default: Issue.record("family \(address.family)")
        }
        let error = #expect(throws: SocketError.self) { try SocketAddress("tcp://*:7200", passive: false) }
        #expect(error?.description == "tcp://*:7200: `*` is not a host to connect to")
    }

    @Test func aFreePort() throws {
        for port in ["0", "*"] {
            #expect(
                try Array(SocketAddress("tcp://127.0.0.1:\(port)", passive: true).bytes[2..<8]) == [0, 0, 127, 0, 0, 1])
        }
        #expect(throws: SocketError.self) { try SocketAddress("tcp://127.0.0.1:*", passive: false) }
    }

    @Test func anInterfaceByItsName() throws {
        let address = try SocketAddress("tcp://lo:7200", passive: true)
        #expect(address.family == AF_INET)
        #expect(Array(address.bytes[2..<8]) == [7200 >> 8, 7200 & 0xFF, 127, 0, 0, 1])
    }

    @Test(arguments: [false, true]) func aPath(passive: Bool) throws {
        let address = try SocketAddress("ipc:///tmp/a b", passive: passive)
        #expect(address.family == AF_UNIX && address.path == "/tmp/a b")
        #expect(Array(address.bytes[2...]) == Array("/tmp/a b".utf8) + [0])
    }

    @Test(arguments: [false, true]) func anAbstractName(passive: Bool) throws {
        let address = try SocketAddress("ipc://@name", passive: passive)
        #expect(address.family == AF_UNIX && address.path == nil)
        #expect(Array(address.bytes[2...]) == [0] + Array("name".utf8))
    }

    @Test func theLongestPath() throws {
        let longest = String(repeating: "p", count: 107)
        #expect(try Array(SocketAddress("ipc://\(longest)", passive: true).bytes[2...]) == Array(longest.utf8) + [0])
        #expect(try SocketAddress("ipc://@\(longest.dropLast())", passive: true).bytes.count == 109)
        for path in [longest + "p", "@" + longest, String(repeating: "ö", count: 54), ""] {
            refused("ipc://\(path)", "the path must have 1 to 107 bytes")
        }
    }

    @Test(arguments: [
        ("", "an endpoint must be"), ("127.0.0.1:1", "an endpoint must be"),
        ("udp://127.0.0.1:1", "an endpoint must be"),
        ("tcp:/127.0.0.1:1", "an endpoint must be"), ("TCP://127.0.0.1:1", "an endpoint must be"),
        ("inproc://x", "an endpoint must be"),
        ("tcp://", "a port is missing"), ("tcp://host", "a port is missing"), ("tcp://127.0.0.1:", "a port is missing"),
        ("tcp://:x:", "a port is missing"),
        ("tcp://127.0.0.1:port", "the port must be"), ("tcp://127.0.0.1:http", "the port must be"),
        ("tcp://127.0.0.1:65536", "the port must be"), ("tcp://127.0.0.1:-1", "the port must be"),
        ("tcp://127.0.0.1: 1", "the port must be"), ("tcp://[::1]", "the port must be"),
        ("tcp://no such host:1", "the host is not known"), ("tcp://:1", "the host is not known"),
        ("tcp://[]:1", "the host is not known"), ("tcp://[:1", "the host is not known"),
        ("tcp://[::1::1]:1", "the host is not known"),
    ])
    func whatIsNoEndpointIsRefused(endpoint: String, reason: String) {
        refused(endpoint, reason)
    }

    private func refused(_ endpoint: String, _ reason: String, location: SourceLocation = #_sourceLocation) {
        for passive in [false, true] {
            let error = #expect(throws: SocketError.self, sourceLocation: location) {
                try SocketAddress(endpoint, passive: passive)
            }
            #expect(error?.description.hasPrefix("\(endpoint): \(reason)") == true, sourceLocation: location)
            let isLookedUp = reason == "the host is not known"
            #expect(error?.code == (isLookedUp ? EADDRNOTAVAIL : EINVAL), sourceLocation: location)
        }
    }

    // MARK: What the kernel makes of them

    @Test(arguments: ["tcp://127.0.0.1:*", "tcp://lo:*", "tcp://*:*"])
    func portsAreListenedAt(endpoint: String) throws {
        let listener = try Self.listen(at: SocketAddress(endpoint, passive: true))
        defer { close(listener) }
        let port = Self.port(of: listener)
        #expect(port != 0)
        try connect(to: "tcp://127.0.0.1:\(port)")
    }

    @Test(arguments: [freshPath(), "@\(freshPath())"]) func pathsAreListenedAt(path: String) throws {
        let address = try SocketAddress("ipc://\(path)", passive: true)
        let listener = try Self.listen(at: address)
        defer { close(listener) }
        #expect(FileManager.default.fileExists(atPath: path) == (address.path != nil))
        defer { unlink(path) }
        try connect(to: "ipc://\(path)")
    }

    private static func listen(at address: SocketAddress) throws -> Int32 {
        let file = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        try #require(file >= 0 && address.withPointer { bind(file, $0, $1) } == 0 && Glibc.listen(file, 1) == 0)
        return file
    }

    private static func port(of file: Int32) -> UInt16 {
        var name = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        return withUnsafeMutableBytes(of: &name) { bytes in
            getsockname(file, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), &size) == 0
                ? UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self)) : 0
        }
    }

    private func connect(to endpoint: String) throws {
        let address = try SocketAddress(endpoint, passive: false)
        let file = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(file) }
        #expect(address.withPointer { Glibc.connect(file, $0, $1) } == 0)
    }
}
