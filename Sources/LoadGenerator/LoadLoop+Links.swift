import MPaxosWire

extension LoadLoop {
    private static let reconnectDelay: UInt64 = 20_000_000
    private static let connectPatience: UInt64 = 1_000_000_000
    /// How long a replica may answer NO_LEADER before another is asked: it may be cut off from those who have one.
    private static let leaderPatience: UInt64 = 1_000_000_000

    /// Begins to connect a link that is down to its endpoint.
    mutating func connect(_ number: Int, now: UInt64) {
        let link = links + number
        if let dialer {
            if !dial(number, by: dialer, now: now) { postpone(number, now: now) }
            return
        }
        let endpoint = endpoints[link.pointee.endpoint]
        if !link.pointee.connect(to: endpoint, number: number, poller: poller, now: now) {
            postpone(number, now: now)
        }
    }

    /// Handles what epoll says about a link.
    mutating func handle(_ number: Int, readable: Bool, writable: Bool) {
        let link = links + number
        // An event of a connection that an earlier event of the same turn has ended.
        if link.pointee.state == .down { return }
        if let curve = link.pointee.curve {
            handleCurve(number, curve)
            return
        }
        if link.pointee.state == .connecting && !link.pointee.finishConnecting() {
            lose(number, now: MonotonicClock.now())
            return
        }
        if readable {
            let outcome = link.pointee.receive()
            let now = MonotonicClock.now()
            switch outcome {
            case .nothing: break
            case .lost:
                lose(number, now: now)
                return
            case .received:
                link.pointee.lastHeard = now
                understand(number, now: now)
                if link.pointee.state == .up { flush(number, now: now) }
                return
            }
        }
        if writable && !link.pointee.flush(number: number, poller: poller) {
            lose(number, now: MonotonicClock.now())
        }
    }

    /// Sends what a link has gathered. It stays in the dirty queue if it was there, with nothing more to send.
    mutating func flush(_ number: Int, now: UInt64) {
        let link = links + number
        guard link.pointee.state == .up else { return }
        if let curve = link.pointee.curve {
            flushCurve(number, curve, now: now)
            return
        }
        if !link.pointee.flush(number: number, poller: poller) { lose(number, now: now) }
    }

    /// The handshake is done: everything outstanding of this link's sessions goes out, again or for the first time.
    mutating func linkIsUp(_ number: Int, now: UInt64) {
        links[number].state = .up
        if links[number].hasStood { counts.reconnects += 1 }
        links[number].hasStood = true
        var session = number
        while session < sessionCount {
            if sessions[session].pending != .nothing && !sessions[session].isWaiting { transmit(session, now: now) }
            session += linkCount
        }
    }

    /// A connection ended, is of no use or could not be made: the next attempt goes to the next endpoint.
    mutating func lose(_ number: Int, now: UInt64) {
        let stood = links[number].state == .up
        links[number].disconnect()
        if stood {
            counts.disconnects += 1
            links[number].endpoint = (links[number].endpoint + 1) % endpoints.count
            connect(number, now: now)
        } else {
            postpone(number, now: now)
        }
    }

    /// Connects a link to the endpoint that a REDIRECT names. All its sessions' requests follow.
    mutating func redirect(_ number: Int, to text: String, now: UInt64) {
        let link = links + number
        if let known = endpoints.firstIndex(where: { $0.text == text }) {
            link.pointee.endpoint = known
        } else if let dialer, !dialer.knows(text) {
            failure = BenchError(
                .usage,
                "\(endpoints[link.pointee.endpoint].text) redirects to '\(text)', whose key the topology does not have")
            return
        } else if let endpoint = try? Endpoint(text) {
            endpoints.append(endpoint)
            link.pointee.endpoint = endpoints.count - 1
        } else {
            failure = BenchError(.usage, "\(endpoints[link.pointee.endpoint].text) redirects to '\(text)', no endpoint")
            return
        }
        link.pointee.disconnect()
        // While replicas disagree on who leads, they may send us round in circles: not faster than this.
        if now < link.pointee.redirectedAt + LoadLoop.reconnectDelay {
            link.pointee.retryAt = now + LoadLoop.reconnectDelay
        } else {
            connect(number, now: now)
        }
        link.pointee.redirectedAt = now
    }

    mutating func sweepLinks(_ now: UInt64, patience: UInt64) {
        for number in 0..<linkCount {
            let link = links + number
            switch link.pointee.state {
            case .down:
                if link.pointee.retryAt <= now { connect(number, now: now) }
            case .connecting, .greeting, .handshake:
                if now >= link.pointee.lastHeard + LoadLoop.connectPatience { lose(number, now: now) }
            case .up:
                let isSilent = now >= link.pointee.lastHeard + patience && isAwaited(number, now: now)
                let since = link.pointee.leaderlessSince
                if isSilent || since != 0 && now >= since + LoadLoop.leaderPatience { lose(number, now: now) }
            }
        }
    }

    /// Whether a session of the link waits for a reply: then silence means that the replica is gone.
    private func isAwaited(_ number: Int, now: UInt64) -> Bool {
        let patience = UInt64(configuration.requestTimeout * 1e9)
        var session = number
        while session < sessionCount {
            let awaited = sessions[session].pending != .nothing && !sessions[session].isWaiting
            if awaited && now >= sessions[session].askedAt + 3 * patience { return true }
            session += linkCount
        }
        return false
    }

    private mutating func postpone(_ number: Int, now: UInt64) {
        links[number].endpoint = (links[number].endpoint + 1) % endpoints.count
        links[number].retryAt = now + LoadLoop.reconnectDelay
    }
}
