import Dispatch
import Glibc
import Logging
import MPaxosCSupport
import MPaxosTopology
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// /metrics, /healthz and /status over HTTP, on a thread of its own that yields to the lanes. It reads the board alone,
/// so that a scrape never delays a stage.
///
/// What takes its address away, a port in use, a host that is not known yet, a process without descriptors, is said in
/// the log, and tried again each second: a replica that cannot be looked at still serves its clients.
package final class StatusServer: Sendable {
    private struct State {
        var listener: Channel?
        /// Why it does not listen, as it was said last.
        var problem: String?
        var isStopped = false
    }

    private let address: Address
    private let report: StatusReport
    private let secrets: HTTPSecrets
    private let logger: Logger
    private let group: MultiThreadedEventLoopGroup
    private let loop: any EventLoop
    private let crowd: NIOLoopBoundBox<HTTPCrowd>
    private let state = Mutex(State())

    private static let pause = TimeAmount.seconds(1)
    /// Added to the nice value: where cores are scarce, the lanes go first.
    private static let niceness: Int32 = 3

    /// Serves from now on, as soon as it can have the address.
    package init(
        address: Address, limits: Topology.Limits, report: StatusReport, secrets: HTTPSecrets, logger: Logger
    ) {
        self.address = address
        self.report = report
        self.secrets = secrets
        self.logger = logger
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = group.next()
        crowd = .makeBoxSendingValue(
            HTTPCrowd(most: Self.share(of: limits.httpConnections), silence: .seconds(Int64(limits.silenceSeconds))),
            eventLoop: loop)
        loop.execute {
            csupport_name_thread("http")
            // On Linux that is the calling thread's alone.
            setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, Self.niceness)
            self.listen()
        }
    }

    /// At most a quarter of the process's descriptors, whatever the topology allows.
    private static func share(of connections: Int) -> Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return max(1, min(connections, Int(clamping: limit.rlim_cur) / 4))
    }

    private func listen() {
        guard !state.withLock(\.isStopped) else { return }
        let resolved: SocketAddress
        do {
            resolved = try SocketAddress.makeAddressResolvingHost(
                address.isWildcard ? "0.0.0.0" : address.host, port: Int(address.port))
        } catch {
            return tryAgain("its host is unknown")
        }
        let (report, secrets, crowd) = (report, secrets, crowd)
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try Self.closeOnExec(channel) }
            }
            // A client that sends much is read a little at a time, between the others.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try Self.closeOnExec(channel)
                    let pipeline = channel.pipeline.syncOperations
                    if let tls = secrets.current.tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
                    try pipeline.configureHTTPServerPipeline(
                        withEncoderConfiguration: .init(), withDecoderLimitConfiguration: HTTPExchange.headerLimits)
                    try pipeline.addHandler(HTTPExchange(report: report, secrets: secrets, crowd: crowd.value))
                }
            }
            .bind(to: resolved)
            .whenComplete { result in
                switch result {
                case .success(let channel): self.serve(channel)
                case .failure(let error as IOError): self.tryAgain(String(cString: strerror(error.errnoCode)))
                case .failure(let error): self.tryAgain("\(error)")
                }
            }
    }

    private func serve(_ channel: Channel) {
        let (before, isStopped) = state.withLock { state in
            state.listener = channel
            defer { state.problem = nil }
            return (state.problem, state.isStopped)
        }
        if isStopped { return channel.close(promise: nil) }
        if before != nil { logger.info("HTTP at \(address): it listens now") }
        channel.closeFuture.whenComplete { _ in self.tryAgain("its socket was closed") }
    }

    private func tryAgain(_ problem: String) {
        let isNews = state.withLock { state in
            state.listener = nil
            guard !state.isStopped else { return false }
            defer { state.problem = problem }
            return state.problem != problem
        }
        if isNews {
            logger.error(
                "no HTTP at \(address): \(problem); free the port or change `http` in the topology: it is tried again each second"
            )
        }
        loop.scheduleTask(in: Self.pause) { self.listen() }
    }

    /// A process that is started by this one, or by its end (a backtracer), must not keep the port.
    private static func closeOnExec(_ channel: Channel) throws {
        try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
            _ = fcntl($0, F_SETFD, FD_CLOEXEC)
        }
    }

    /// The port it listens at; nil while it does not.
    package var listeningPort: UInt16? {
        state.withLock { $0.listener?.localAddress?.port }.map { UInt16($0) }
    }

    /// Closes the port and all connections, and waits, a second at most, until that is done.
    package func stop() {
        state.withLock { $0.isStopped = true }
        let done = DispatchSemaphore(value: 0)
        group.shutdownGracefully(queue: .global()) { _ in done.signal() }
        _ = done.wait(timeout: .now() + 1)
    }
}
