import Histogram
import MPaxosInvariants
import MPaxosWire
import MPaxosZMTP

/// The generator at work: one thread, one epoll set, sessions and links in raw memory. What handles replies is in
/// `LoadLoop+Replies.swift`, what handles connections in `LoadLoop+Links.swift`.
struct LoadLoop: ~Copyable {
    enum Phase {
        /// Sessions are being opened.
        case opening
        /// Requests flow.
        case running
        /// No new requests; those outstanding are awaited.
        case draining
        /// Sessions are being closed.
        case closing
    }

    let configuration: BenchConfiguration
    var endpoints: [Endpoint]
    let poller: Epoll
    let links: UnsafeMutablePointer<Link>
    let linkCount: Int
    let sessions: UnsafeMutablePointer<Session>
    let sessionCount: Int
    let templates: Templates
    var workload: Workload
    var schedule: ArrivalSchedule?
    /// Open sessions without a request, in an open loop or when sessions take turns.
    var idle: NumberQueue
    /// Links with output that is not yet sent.
    var dirty: NumberQueue
    /// Links by CURVE with something to receive of which no event tells.
    var unsignalled: NumberQueue
    /// Where replicas know their clients by keys.
    let dialer: CurveDialer?

    var phase = Phase.opening
    var openSessions = 0
    /// Sessions with something outstanding.
    var pendingSessions = 0
    /// Sessions turned away, to be sent again at their time.
    var waitingSessions = 0
    var completed: UInt64 = 0
    var counts = BenchCounts()
    /// Latencies since the last report, nanoseconds.
    var latencies: Histogram<UInt64>
    /// Ends the run when set.
    var failure: BenchError?
    /// Sessions below this number send, in a closed loop; a ramp raises it.
    var activeSessions = 0
    /// Fewer requests are outstanding than there are sessions, which send in turn.
    let takesTurns: Bool
    private var nextSweep: UInt64 = 0
    private var nextSessionSweep: UInt64 = 0

    struct Templates {
        let open: RequestTemplate
        let close: RequestTemplate
        let put: RequestTemplate
        let query: RequestTemplate
        let localQuery: RequestTemplate
        let orderedGet: RequestTemplate
        let delete: RequestTemplate
        let create: RequestTemplate

        init(_ flags: RequestFlags, valueSizes: ClosedRange<Int>) {
            open = .open(flags)
            close = .close(flags)
            put = .put(flags, valueSizes: valueSizes)
            query = .get(.query, flags)
            localQuery = .get(.query, flags.union(.local))
            orderedGet = .get(.submit, flags)
            delete = .delete(flags)
            create = .create(flags, valueSizes: valueSizes)
        }

        @inline(__always) func operation(_ operation: Operation) -> RequestTemplate {
            switch operation {
            case .put: put
            case .query: query
            case .localQuery: localQuery
            case .orderedGet: orderedGet
            case .delete: delete
            case .create: create
            }
        }

        func release() {
            for template in [open, close, put, query, localQuery, orderedGet, delete, create] { template.release() }
        }
    }

    static func emptyHistogram() -> Histogram<UInt64> {
        // A microsecond to an hour in nanoseconds, three digits.
        Histogram(lowestDiscernibleValue: 1, highestTrackableValue: 3_600_000_000_000)
    }

    /// - Parameters:
    ///   - dialer: where replicas know their clients by keys.
    ///   - leader: index of the endpoint to begin with when the load goes to the leader.
    init(
        _ configuration: BenchConfiguration, endpoints: [Endpoint], dialer: CurveDialer?, leader: Int
    ) throws(BenchError) {
        self.configuration = configuration
        self.endpoints = endpoints
        self.dialer = dialer
        poller = try LoadLoop.makePoller()
        let linkCount = configuration.connectionCount
        let sessionCount = configuration.sessions
        self.linkCount = linkCount
        self.sessionCount = sessionCount
        links = .allocate(capacity: linkCount)
        for number in 0..<linkCount {
            let endpoint = configuration.target == .leader ? leader : number % endpoints.count
            (links + number).initialize(to: Link(endpoint: endpoint))
        }
        sessions = .allocate(capacity: sessionCount)
        for number in 0..<sessionCount { (sessions + number).initialize(to: Session(number: number)) }
        let flags: RequestFlags = configuration.target == .leader ? .noForward : []
        templates = Templates(flags, valueSizes: configuration.valueSizes)
        workload = Workload(configuration)
        takesTurns = configuration.outstanding.map { $0 < configuration.sessions } ?? false
        idle = NumberQueue(capacity: sessionCount)
        dirty = NumberQueue(capacity: linkCount)
        unsignalled = NumberQueue(capacity: linkCount)
        latencies = LoadLoop.emptyHistogram()
    }

    private static func makePoller() throws(BenchError) -> Epoll {
        do {
            return try Epoll()
        } catch {
            throw BenchError(.system, error.description)
        }
    }

    deinit {
        for number in 0..<linkCount { links[number].release() }
        links.deallocate()
        sessions.deallocate()
        templates.release()
        idle.release()
        dirty.release()
        unsignalled.release()
    }

    // MARK: The phases

    mutating func openAll(now: UInt64) {
        for number in 0..<sessionCount { ask(number, .open, now: now) }
        for number in 0..<linkCount { connect(number, now: now) }
    }

    /// All sessions are open: lets the requests flow.
    ///
    /// - Parameter level: of the first step.
    mutating func start(_ level: Double, now: UInt64) {
        invariant(phase == .opening && openSessions == sessionCount, "the load starts when all sessions are open")
        phase = .running
        if configuration.isOpenLoop {
            for number in 0..<sessionCount { idle.push(number) }
        } else if takesTurns {
            let first = configuration.outstanding!
            for number in first..<sessionCount { idle.push(number) }
            for number in 0..<first { begin(number, start: now, now: now) }
        }
        change(to: level, now: now)
    }

    /// Goes on with another rate, or another number of clients. What an open loop was late with is forgotten.
    mutating func change(to level: Double, now: UInt64) {
        if configuration.isOpenLoop {
            schedule = ArrivalSchedule(rate: level, origin: now)
        } else if !takesTurns {
            activeSessions = Int(level)
            for number in 0..<activeSessions where sessions[number].pending == .nothing {
                begin(number, start: now, now: now)
            }
        }
    }

    /// What an open loop owes at the end of a measurement counts with the time that it has waited so far: a cluster
    /// that stopped answering would otherwise look as fast as it was before. What waits no longer than half of all did
    /// tells nothing yet.
    mutating func recordUnanswered(now: UInt64) {
        guard var schedule else { return }
        let usual = latencies.totalCount > 0 ? latencies.valueAtPercentile(50) : 0
        for number in 0..<sessionCount where sessions[number].pending == .operation {
            let start = sessions[number].start
            if now > start + usual { latencies.record(min(now - start, 3_600_000_000_000)) }
        }
        while schedule.next + usual < now { latencies.record(min(now - schedule.take(), 3_600_000_000_000)) }
    }

    mutating func drain() {
        phase = .draining
        schedule = nil
    }

    mutating func closeAll(now: UInt64) {
        phase = .closing
        for number in 0..<sessionCount where sessions[number].pending == .nothing && sessions[number].id != 0 {
            sessions[number].advance()
            ask(number, .close, now: now)
        }
    }

    // MARK: One turn

    /// Waits for something to happen, until `deadline` at the latest, and handles it.
    mutating func turn(until deadline: UInt64) {
        var now = MonotonicClock.now()
        startDue(now)
        flushDirty(now)
        var wake = min(deadline, nextSweep)
        if !unsignalled.isEmpty { wake = now }
        if let schedule, !idle.isEmpty { wake = min(wake, schedule.next) }
        let events = poller.wait(nanoseconds: wake > now ? wake - now : 0)
        for index in 0..<events {
            let event = poller.event(index)
            handle(Int(event.number), readable: event.readable, writable: event.writable)
            if failure != nil { return }
        }
        if !unsignalled.isEmpty {
            handleUnsignalled()
            if failure != nil { return }
        }
        now = MonotonicClock.now()
        if now >= nextSweep { sweep(now) }
    }

    private mutating func startDue(_ now: UInt64) {
        while let due = schedule?.next, due <= now, let number = idle.pop() {
            begin(number, start: schedule!.take(), now: now)
        }
    }

    private mutating func flushDirty(_ now: UInt64) {
        while let number = dirty.pop() {
            links[number].isDirty = false
            flush(number, now: now)
        }
    }

    /// Looks after what no event tells of: retries that are due, replies and connections that do not come.
    private mutating func sweep(_ now: UInt64) {
        let patience = UInt64(configuration.requestTimeout * 1e9)
        if waitingSessions > 0 || now >= nextSessionSweep {
            sweepSessions(now, patience: patience)
            nextSessionSweep = now + min(100_000_000, patience / 4)
        }
        sweepLinks(now, patience: 3 * patience)
        // Waits are given in milliseconds; all else is slow.
        nextSweep = now + (waitingSessions > 0 ? 1_000_000 : min(20_000_000, patience / 4))
    }

    private mutating func sweepSessions(_ now: UInt64, patience: UInt64) {
        for number in 0..<sessionCount where sessions[number].pending != .nothing {
            let session = sessions + number
            if session.pointee.isWaiting {
                if session.pointee.retryAt <= now { transmit(number, now: now) }
            } else if now >= session.pointee.sentAt + patience {
                let link = links + number % linkCount
                // What has not left yet is not lost.
                if link.pointee.state == .up && link.pointee.output.isEmpty {
                    counts.timeouts += 1
                    transmit(number, now: now)
                }
            }
        }
    }

    // MARK: Requests

    /// Begins the next operation of an open session without a request.
    @inline(__always) mutating func begin(_ number: Int, start: UInt64, now: UInt64) {
        let session = sessions + number
        session.pointee.advance()
        session.pointee.start = start
        session.pointee.operation = workload.nextOperation()
        session.pointee.key = workload.nextKey()
        session.pointee.valueSize = UInt32(truncatingIfNeeded: workload.nextValueSize())
        ask(number, .operation, now: now)
    }

    /// Makes `pending` the outstanding request of a session that has none, and sends it.
    @inline(__always) mutating func ask(_ number: Int, _ pending: Session.Pending, now: UInt64) {
        invariant(sessions[number].pending == .nothing, "a session has one request outstanding")
        sessions[number].pending = pending
        sessions[number].askedAt = now
        pendingSessions += 1
        transmit(number, now: now)
    }

    /// Puts the outstanding request of a session into its link's output, or leaves it until the link is up.
    mutating func transmit(_ number: Int, now: UInt64) {
        let session = sessions + number
        let linkNumber = number % linkCount
        let link = links + linkNumber
        stopWaiting(number)
        guard link.pointee.state == .up else { return }
        session.pointee.sentAt = now
        let template: RequestTemplate
        var id = session.pointee.id
        var position: UInt64 = 0
        switch session.pointee.pending {
        case .open:
            template = templates.open
            id = 0
        case .operation:
            let operation = session.pointee.operation
            template = templates.operation(operation)
            if operation.isQuery { id = 0 }
            if operation == .localQuery { position = session.pointee.position }
        case .close: template = templates.close
        case .nothing: broken("a session that sends has a request")
        }
        let valueSize = Int(session.pointee.valueSize)
        let count = template.count(valueSize: valueSize)
        template.write(
            into: link.pointee.output.reserve(count), session: id, sequence: session.pointee.sequence,
            position: position, key: session.pointee.key, valueSize: valueSize)
        link.pointee.output.commit(count)
        if !link.pointee.isDirty {
            link.pointee.isDirty = true
            dirty.push(linkNumber)
        }
    }

    @inline(__always) mutating func stopWaiting(_ number: Int) {
        guard sessions[number].isWaiting else { return }
        sessions[number].isWaiting = false
        waitingSessions -= 1
    }

    mutating func wait(_ number: Int, milliseconds: UInt64, now: UInt64) {
        let session = sessions + number
        session.pointee.retryAt = now + milliseconds * 1_000_000
        if !session.pointee.isWaiting {
            session.pointee.isWaiting = true
            waitingSessions += 1
        }
        nextSweep = min(nextSweep, session.pointee.retryAt)
    }
}
