import MPaxosZMTP

/// Links by CURVE: what differs from plain sockets.
extension LoadLoop {
    /// Begins to connect; false when there is no connection to be had.
    mutating func dial(_ number: Int, by dialer: CurveDialer, now: UInt64) -> Bool {
        let link = links + number
        guard let connection = dialer.dial(endpoints[link.pointee.endpoint].text) else { return false }
        link.pointee.connect(connection, number: number, poller: poller, now: now)
        return true
    }

    /// Handles what may have happened to a link that is not down.
    mutating func handleCurve(_ number: Int, _ connection: CurveConnection) {
        let link = links + number
        let now = MonotonicClock.now()
        if link.pointee.state == .connecting {
            switch connection.progress() {
            case .pending: return
            case .failed:
                dialer?.failed(connection)
                lose(number, now: now)
                return
            case .up:
                dialer?.succeeded()
                link.pointee.lastHeard = now
                linkIsUp(number, now: now)
            }
        }
        if connection.receive(into: &link.pointee.input) {
            link.pointee.lastHeard = now
            understand(number, now: now)
            // A redirect or a loss has ended the connection.
            guard link.pointee.state == .up, failure == nil else { return }
        }
        flushCurve(number, connection, now: now)
    }

    /// Sends what a link has gathered. What is received meanwhile may not be signalled any more.
    mutating func flushCurve(_ number: Int, _ connection: CurveConnection, now: UInt64) {
        let link = links + number
        guard connection.send(&link.pointee.output) else {
            lose(number, now: now)
            return
        }
        let state = connection.state
        if state.isReadable {
            if !link.pointee.isUnsignalled {
                link.pointee.isUnsignalled = true
                unsignalled.push(number)
            }
        } else if !state.isUp {
            lose(number, now: now)
        }
    }

    /// Handles links that have something to receive and would not be told of it.
    mutating func handleUnsignalled() {
        for _ in 0..<unsignalled.count {
            guard let number = unsignalled.pop() else { return }
            links[number].isUnsignalled = false
            // Another connection may have come in its place.
            if let connection = links[number].curve { handleCurve(number, connection) }
            if failure != nil { return }
        }
    }
}
