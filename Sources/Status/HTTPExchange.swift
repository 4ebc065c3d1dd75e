import MPaxosCSupport
import NIOCore
import NIOHTTP1
import NIOSSL

/// One HTTP connection: requests in, answers out, one at a time and each within its time.
final class HTTPExchange: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    /// Request line and headers together; some fields more than any scraper sends.
    static let headerLimits: NIOHTTPDecoderLimitConfiguration = {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = 8 << 10
        limits.maxHeaderListSize = 8 << 10
        limits.maxHeaderFieldCount = 64
        return limits
    }()

    /// No route takes a body: so much is read over.
    private static let largestBody = 8 << 10
    /// For a request from the connection's begin on, and for an answer to be taken.
    private static let patience = TimeAmount.seconds(10)
    /// Between two answers on one connection: one with many requests is not to take all turns.
    private static let pace = TimeAmount.milliseconds(1)
    private static let lingering = TimeAmount.seconds(1)

    private let report: StatusReport
    private let secrets: HTTPSecrets
    private let crowd: HTTPCrowd
    private var head: HTTPRequestHead?
    private var bodyBytes = 0
    /// The request is whole, and is answered as soon as the client has taken what it was sent before.
    private var isAsked = false
    private var isEnding = false
    private var answeredAt = NIODeadline.distantPast
    private var deadline: Scheduled<Void>?

    init(report: StatusReport, secrets: HTTPSecrets, crowd: HTTPCrowd) {
        self.report = report
        self.secrets = secrets
        self.crowd = crowd
    }

    /// With TLS, too, that is when the connection is there: its handshake is in the same crowd and has the same time.
    func channelActive(context: ChannelHandlerContext) {
        crowd.enter(context.channel)
        allow(Self.patience, context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        crowd.leave(context.channel)
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isEnding else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            bodyBytes = 0
            let announced = head.headers.first(name: "Content-Length").flatMap { Int($0) } ?? 0
            if announced > Self.largestBody { refuse(.payloadTooLarge, context) }
        case .body(let part):
            bodyBytes += part.readableBytes
            if bodyBytes > Self.largestBody { refuse(.payloadTooLarge, context) }
        case .end:
            isAsked = true
            let next = answeredAt + Self.pace
            if next < .now() {
                answer(context)
            } else {
                context.eventLoop.assumeIsolated().scheduleTask(deadline: next) { self.answer(context) }
            }
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        answer(context)
        context.fireChannelWritabilityChanged()
    }

    /// A client that breaks the protocol has had its answer from the pipeline, and one that is gone needs none.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is HTTPParserError else { return context.channel.cut() }
        isEnding = true
        end(context)
    }

    private func answer(_ context: ChannelHandlerContext) {
        guard isAsked, !isEnding, context.channel.isWritable, let head else { return }
        isAsked = false
        self.head = nil
        answeredAt = .now()
        let (status, type, body) = response(to: head)
        send(status, type, body, keepAlive: head.isKeepAlive, context)
    }

    private func refuse(_ status: HTTPResponseStatus, _ context: ChannelHandlerContext) {
        head = nil
        isEnding = true
        send(status, nil, "", keepAlive: false, context)
    }

    private func send(
        _ status: HTTPResponseStatus, _ type: String?, _ body: String, keepAlive: Bool, _ context: ChannelHandlerContext
    ) {
        var headers: HTTPHeaders = ["Content-Length": "\(body.utf8.count)"]
        if let type { headers.add(name: "Content-Type", value: type) }
        if status == .unauthorized { headers.add(name: "WWW-Authenticate", value: "Bearer") }
        context.write(
            wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        if !body.isEmpty {
            let bytes = context.channel.allocator.buffer(string: body)
            context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
        }
        if !keepAlive { isEnding = true }
        allow(Self.patience, context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { result in
            let (exchange, context) = bound.value
            guard case .success = result else { return context.channel.cut() }
            guard keepAlive else { return exchange.end(context) }
            exchange.crowd.touch(context.channel)
            exchange.allow(exchange.crowd.silence, context)
        }
    }

    /// Nothing more is said. What the client still sends is read over for a moment: closed at once, the connection
    /// would be reset, and the last answer lost.
    private func end(_ context: ChannelHandlerContext) {
        context.close(mode: .output, promise: nil)
        allow(Self.lingering, context)
    }

    /// The connection has this long for what comes next.
    private func allow(_ time: TimeAmount, _ context: ChannelHandlerContext) {
        deadline?.cancel()
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: time) { context.channel.cut() }
    }

    private func response(to head: HTTPRequestHead) -> (HTTPResponseStatus, type: String?, body: String) {
        let path = head.uri.prefix { $0 != "?" }.split(separator: "/")
        let isKnown = head.method == .GET && path.count == 1
        // Balancers ask for health, and have no token.
        if let token = secrets.current.token, !(isKnown && path[0] == "healthz"), !token.isIn(head.headers) {
            report.board.httpRequestsDenied.add(1)
            return (.unauthorized, nil, "")
        }
        guard isKnown else { return (.notFound, nil, "") }
        switch path[0] {
        case "metrics": return (.ok, "text/plain; version=0.0.4; charset=utf-8", report.prometheus())
        case "status": return (.ok, "application/json", report.json())
        case "healthz":
            guard let reason = report.board.unreadiness(now: csupport_monotonic_us()) else {
                return (.ok, "text/plain", "ready\n")
            }
            return (.serviceUnavailable, "text/plain", "not ready: \(reason)\n")
        default: return (.notFound, nil, "")
        }
    }
}

/// The HTTP connections there are. When there are too many, the one that has waited for longest goes: whoever holds
/// connections and asks nothing takes no place from one that asks. The event loop's alone.
final class HTTPCrowd {
    let silence: TimeAmount
    private let most: Int
    private var lastSigns: [ObjectIdentifier: (channel: Channel, sign: UInt64)] = [:]
    private var signs: UInt64 = 0

    init(most: Int, silence: TimeAmount) {
        self.most = most
        self.silence = silence
    }

    func enter(_ channel: Channel) {
        signs += 1
        lastSigns[ObjectIdentifier(channel)] = (channel, signs)
        guard lastSigns.count > most, let oldest = lastSigns.values.min(by: { $0.sign < $1.sign }) else { return }
        leave(oldest.channel)
        oldest.channel.cut()
    }

    /// A request of it was answered.
    func touch(_ channel: Channel) {
        signs += 1
        lastSigns[ObjectIdentifier(channel)]?.sign = signs
    }

    func leave(_ channel: Channel) { lastSigns[ObjectIdentifier(channel)] = nil }
}

extension Channel {
    /// Closes it at once: TLS would keep the descriptor until its client has said goodbye. The event loop's alone.
    fileprivate func cut() {
        guard let tls = try? pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self) else {
            return close(promise: nil)
        }
        tls.close(promise: nil)
    }
}
