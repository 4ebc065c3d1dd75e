import MPaxosCZeroMQ
import MPaxosInvariants

/// Options of a socket, to be set before `bind` and `connect`: most take effect for later connections only.
extension Socket {
    /// Messages queued per peer on the way out, 0 for no limit. Inexact: with TCP some more fit into the kernel's
    /// buffers.
    package borrowing func setSendHighWaterMark(_ messages: Int) throws(MessagingError) {
        try set(ZMQ_SNDHWM, to: Int32(clamping: messages), named: "the send high-water mark")
    }

    /// Messages queued per peer on the way in, 0 for no limit.
    package borrowing func setReceiveHighWaterMark(_ messages: Int) throws(MessagingError) {
        try set(ZMQ_RCVHWM, to: Int32(clamping: messages), named: "the receive high-water mark")
    }

    /// A peer that sends a frame above this many bytes is disconnected before memory is allocated for it; -1 for no
    /// limit.
    package borrowing func setMaxMessageSize(_ bytes: Int) throws(MessagingError) {
        try set(ZMQ_MAXMSGSIZE, toWide: Int64(bytes), named: "the largest message size")
    }

    /// Queue only for completed connections: otherwise messages pile up for a peer that is away and flood it when it is
    /// back.
    package borrowing func setImmediate(_ on: Bool) throws(MessagingError) {
        try set(ZMQ_IMMEDIATE, to: on ? 1 : 0, named: "immediate")
    }

    /// ROUTER: report unknown and full peers from `send` instead of dropping silently.
    package borrowing func setRouterMandatory(_ on: Bool) throws(MessagingError) {
        try set(ZMQ_ROUTER_MANDATORY, to: on ? 1 : 0, named: "router mandatory")
    }

    /// The name under which a ROUTER peer knows this socket: 1 to 255 bytes, the first not zero.
    package borrowing func setRoutingID(_ id: [UInt8]) throws(MessagingError) {
        invariant((1...255).contains(id.count) && id[0] != 0, "a routing id has 1 to 255 bytes, the first not zero")
        try set(ZMQ_ROUTING_ID, toBytes: id, named: "the routing id")
    }

    /// Pause before a lost connection is tried again, ms; grows with each failure up to `maximum` when that is above 0.
    package borrowing func setReconnectInterval(milliseconds: Int, maximum: Int = 0) throws(MessagingError) {
        try set(ZMQ_RECONNECT_IVL, to: Int32(clamping: milliseconds), named: "the reconnect interval")
        try set(ZMQ_RECONNECT_IVL_MAX, to: Int32(clamping: maximum), named: "the largest reconnect interval")
    }

    /// How long a TCP connect may take, ms; 0 leaves it to the kernel (minutes).
    package borrowing func setConnectTimeout(milliseconds: Int) throws(MessagingError) {
        try set(ZMQ_CONNECT_TIMEOUT, to: Int32(clamping: milliseconds), named: "the connect timeout")
    }

    /// The kernel's buffers of each connection, bytes; -1 leaves them to the kernel.
    package borrowing func setTCPBuffers(send: Int, receive: Int) throws(MessagingError) {
        try set(ZMQ_SNDBUF, to: Int32(clamping: send), named: "the TCP send buffer")
        try set(ZMQ_RCVBUF, to: Int32(clamping: receive), named: "the TCP receive buffer")
    }

    /// Connections waiting to be accepted.
    package borrowing func setBacklog(_ connections: Int) throws(MessagingError) {
        try set(ZMQ_BACKLOG, to: Int32(clamping: connections), named: "the backlog")
    }

    /// How long a peer may take over the ZMTP handshake, ms; 0 for ever. Guards against connections that stay silent.
    package borrowing func setHandshakeInterval(milliseconds: Int) throws(MessagingError) {
        try set(ZMQ_HANDSHAKE_IVL, to: Int32(clamping: milliseconds), named: "the handshake interval")
    }

    /// Accept and resolve IPv6 addresses, too.
    package borrowing func setIPv6(_ on: Bool) throws(MessagingError) {
        try set(ZMQ_IPV6, to: on ? 1 : 0, named: "IPv6")
    }

    /// ZMTP pings at this interval; a peer silent for `timeout` after one is disconnected. ms; 0 for none.
    package borrowing func setHeartbeat(intervalMilliseconds interval: Int, timeout: Int) throws(MessagingError) {
        try set(ZMQ_HEARTBEAT_IVL, to: Int32(clamping: interval), named: "the heartbeat interval")
        try set(ZMQ_HEARTBEAT_TIMEOUT, to: Int32(clamping: timeout), named: "the heartbeat timeout")
        // What the peer is told to hold us to: it disconnects this side when it hears nothing for so long (tenths of a
        // second).
        try set(ZMQ_HEARTBEAT_TTL, to: Int32(clamping: timeout), named: "the heartbeat time to live")
    }

    /// TCP keep-alive probes on or off.
    package borrowing func setTCPKeepAlive(_ on: Bool) throws(MessagingError) {
        try set(ZMQ_TCP_KEEPALIVE, to: on ? 1 : 0, named: "TCP keep-alive")
    }

    /// TCP finds out within about so many seconds that the peer's host is gone: by probes when nothing comes, three of
    /// them in vain, or by bytes that nobody acknowledges.
    package borrowing func setTCPKeepAlive(findingDeadAfter seconds: Int) throws(MessagingError) {
        try setTCPKeepAlive(true)
        let (idle, interval) = (Int32(clamping: seconds / 2), Int32(clamping: seconds / 6))
        try set(ZMQ_TCP_KEEPALIVE_IDLE, to: min(32_767, max(1, idle)), named: "keep-alive's idle time")
        try set(ZMQ_TCP_KEEPALIVE_INTVL, to: min(32_767, max(1, interval)), named: "keep-alive's interval")
        try set(ZMQ_TCP_KEEPALIVE_CNT, to: 3, named: "keep-alive's count")
        try set(ZMQ_TCP_MAXRT, to: Int32(clamping: seconds * 1000), named: "the time of retransmissions")
    }
}
