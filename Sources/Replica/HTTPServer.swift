import Dispatch
import FlyingFox
import FlyingSocks
import Foundation
import Logging
import Topology

/// /metrics, /healthz and /status over HTTP. It reads the board alone, so that a scrape never delays a stage.
package final class StatusServer: Sendable {
    private let server: HTTPServer
    private let task: Task<Void, Never>

    /// Binds and serves from now on. A port that is taken is logged as an error: a replica that cannot be looked at
    /// still serves its clients.
    /// - Throws: `StatusServerError` when the address names no host.
    package init(address: Address, report: StatusReport, logger: Logger) throws(StatusServerError) {
        // The two kinds of socket address are two types, which a generic initialiser takes.
        switch try Self.resolve(address) {
        case .inet(let resolved): server = HTTPServer(address: resolved, logger: .disabled)
        case .inet6(let resolved): server = HTTPServer(address: resolved, logger: .disabled)
        }
        let server = server
        task = Task {
            await server.appendRoute("GET /metrics") { _ in
                HTTPResponse(
                    statusCode: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                    body: Data(report.prometheus().utf8))
            }
            await server.appendRoute("GET /status") { _ in
                HTTPResponse(
                    statusCode: .ok, headers: [.contentType: "application/json"], body: Data(report.json().utf8))
            }
            await server.appendRoute("GET /healthz") { _ in
                let isReady = report.board.isReady
                let text =
                    isReady
                    ? "ready"
                    : "not ready: the cluster not founded, no leader known, catching up, or its state in dispute"
                return HTTPResponse(
                    statusCode: isReady ? .ok : .serviceUnavailable, headers: [.contentType: "text/plain"],
                    body: Data("\(text)\n".utf8))
            }
            do {
                try await server.run()
            } catch is CancellationError {
                // Stopped.
            } catch {
                if !Task.isCancelled {
                    logger.error("no HTTP at \(address): \(error); free the port or change `http` in the topology")
                }
            }
        }
    }

    /// The port it listens at, once it does; nil when it does not within the time.
    package func listeningPort(within seconds: TimeInterval) async -> UInt16? {
        try? await server.waitUntilListening(timeout: seconds)
        switch await server.listeningAddress {
        case .ip4(_, let port), .ip6(_, let port): return port
        default: return nil
        }
    }

    /// Closes the port and waits, a second at most, until that is done. Not to be called from a task: it blocks.
    package func stop() {
        let done = DispatchSemaphore(value: 0)
        Task { [server, task] in
            task.cancel()
            await server.stop(timeout: 0)
            await task.value
            done.signal()
        }
        _ = done.wait(timeout: .now() + 1)
    }

    private enum Resolved {
        case inet(sockaddr_in)
        case inet6(sockaddr_in6)
    }

    private static func resolve(_ address: Address) throws(StatusServerError) -> Resolved {
        var hints = addrinfo()
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let host = address.isWildcard ? "0.0.0.0" : address.host
        let code = getaddrinfo(host, "\(address.port)", &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        guard code == 0, let found = list, let raw = UnsafeRawPointer(found.pointee.ai_addr) else {
            throw StatusServerError(
                "the host of http address \(address) is unknown: \(String(cString: gai_strerror(code)))")
        }
        switch found.pointee.ai_family {
        case AF_INET: return .inet(raw.load(as: sockaddr_in.self))
        case AF_INET6: return .inet6(raw.load(as: sockaddr_in6.self))
        default: throw StatusServerError("http address \(address) is neither of IPv4 nor of IPv6")
        }
    }
}

/// Why the status server could not be made, as a sentence.
package struct StatusServerError: Error, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}
