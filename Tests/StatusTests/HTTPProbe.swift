import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import Testing

/// One request over a connection of its own, as a client makes it, and the whole answer.
enum HTTPProbe {
    struct ConnectionRefused: Error {}

    static func request(_ path: String, _ method: String = "GET", headers: [String] = []) -> String {
        let lines = ["\(method) \(path) HTTP/1.1", "Host: localhost", "Connection: close"] + headers
        return lines.joined(separator: "\r\n") + "\r\n\r\n"
    }

    /// In the clear.
    static func get(_ path: String, port: UInt16, headers: [String] = []) throws -> String {
        try say(request(path, headers: headers), port: port)
    }

    /// What is answered in the clear to any text, until the connection is closed.
    static func say(_ text: String, port: UInt16) throws -> String {
        let descriptor = try connect(port: port)
        defer { close(descriptor) }
        try #require(send(descriptor, text, text.utf8.count, Int32(MSG_NOSIGNAL)) == text.utf8.count)
        return String(decoding: remainder(descriptor), as: UTF8.self)
    }

    /// A connection on which nothing was said yet, for the caller to close.
    static func connect(port: UInt16) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(descriptor >= 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafeBytes(of: &address) {
            Foundation.connect(descriptor, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count))
        }
        guard connected == 0 else {
            close(descriptor)
            throw ConnectionRefused()
        }
        // Nothing here takes as long: what does has failed.
        var patience = timeval(tv_sec: 30, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        return descriptor
    }

    /// What comes until the other side closes.
    static func remainder(_ descriptor: Int32) -> [UInt8] {
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return answer }
            answer += buffer[..<count]
        }
    }

    /// Over TLS, by a client that trusts `certificate` alone.
    static func getTLS(
        _ path: String, port: UInt16, trusting certificate: String, headers: [String] = [], atMost: TLSVersion? = nil
    ) async throws -> String {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(certificate))
        configuration.minimumTLSVersion = .tlsv1
        configuration.maximumTLSVersion = atMost
        let context = try NIOSSLContext(configuration: configuration)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: String.self)
        _ = try await ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        NIOSSLClientHandler(context: context, serverHostname: "localhost"),
                        Asker(request(path, headers: headers), promise))
                }
            }
            .connect(host: "127.0.0.1", port: Int(port)).get()
        return try await promise.futureResult.get()
    }

    /// Asks, and gathers all that comes until the connection is closed. It asks on the event loop: a task that waits
    /// for the connection goes on when a thread is free for it, which among many tests may be after the server's
    /// patience.
    private final class Asker: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let text: String
        private var heard = ByteBuffer()
        private var failure: (any Error)?
        private let promise: EventLoopPromise<String>

        init(_ text: String, _ promise: EventLoopPromise<String>) {
            self.text = text
            self.promise = promise
        }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
            context.fireChannelActive()
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            heard.writeImmutableBuffer(unwrapInboundIn(data))
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            failure = failure ?? error
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            if heard.readableBytes == 0, let failure { return promise.fail(failure) }
            promise.succeed(String(buffer: heard))
        }
    }
}
