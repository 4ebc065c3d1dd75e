import Foundation
import MPaxosInvariants
import MPaxosMessaging
import MPaxosWire

/// The exchange's thread: links to all replicas, requests under way, their retries. One request of a session is under
/// way at a time; more wait their turn here.
final class ExchangeLoop {
    /// What finds a request again from its reply: sequences are the session's own, or free numbers that are unique by
    /// themselves.
    private struct Key: Hashable {
        let session: UInt64
        let sequence: UInt64

        init(session: UInt64, sequence: UInt64) {
            self.session = FreeNumber.contains(sequence) ? 0 : session
            self.sequence = sequence
        }
    }

    private struct Pending {
        let order: Order
        let header: RequestHeader
        let deadline: UInt64
        /// The link of the current attempt.
        var link: Int
        /// When something must be done: the attempt sent (`waiting`), or given up.
        var due: UInt64
        /// Until then no other link will do: a redirect named this one, and it may not be connected yet.
        var insistUntil: UInt64 = 0
        /// Not sent yet, or to be sent again.
        var waiting: Bool
        /// An attempt may have been executed.
        var uncertain = false
        /// What became of the last attempt.
        var trouble = "no replica takes a connection"
    }

    private struct SessionState {
        var lastSequence: UInt64 = 0
        var isBusy = false
        var queue: [(order: Order, deadline: UInt64)] = []
    }

    private let context: Context
    private let options: ClientOptions
    private let inbox: Inbox
    private var links: [Link] = []
    private var poller = Poller(capacity: 1)
    private var preferred = 0
    private var pending: [Key: Pending] = [:]
    private var keys: [UInt64: Key] = [:]
    private var sessions: [UInt64: SessionState] = [:]
    private var lastNumber = FreeNumber.firstBit | UInt64.random(in: 0..<1 << 32) << 16
    private var nextSweep: UInt64 = .max

    /// Pause before a request is offered again when no link took it.
    private static let offerPause: UInt64 = 2_000_000
    /// How long a request insists on the replica that a redirect named.
    private static let insistence: UInt64 = 250_000_000
    /// Endpoints learned from redirects are kept up to this many links altogether.
    private static let mostLinks = 64

    init(endpoints: [String], options: ClientOptions, inbox: Inbox) throws(ClientError) {
        guard !endpoints.isEmpty else { throw .setUp("a client needs at least one endpoint of a replica") }
        do { context = try Context(ioThreads: 1) } catch { throw .setUp(error) }
        self.options = options
        self.inbox = inbox
        for endpoint in endpoints { links.append(try Link(to: endpoint, keys: options.keys, in: context)) }
        watchLinks()
    }

    private func watchLinks() {
        // With keys each link has a monitor besides.
        poller = Poller(capacity: 2 * links.count + 1)
        _ = poller.add(fileDescriptor: inbox.readEnd)
        for link in links { _ = link.add(to: &poller) }
    }

    func run() {
        while true {
            let (entries, closed) = inbox.take()
            let now = monotonicNanoseconds()
            for entry in entries {
                switch entry {
                case .perform(let order): accept(order, deadline: now + options.timeout.nanoseconds, now: now)
                case .cancel(let identifier): cancel(identifier, now: now)
                }
            }
            if closed { break }
            for link in links.indices {
                links[link].look()
                while let reply = links[link].receive() { settle(reply, from: link) }
            }
            let later = monotonicNanoseconds()
            if later >= nextSweep { sweep(later) }
            let pause = nextSweep == .max ? -1 : Int((max(nextSweep, later) - later) / 1_000_000) + 1
            _ = poller.wait(timeoutMilliseconds: pause)
        }
        for request in pending.values { request.order.complete(.failure(.shutDown)) }
        for session in sessions.values {
            for waiting in session.queue { waiting.order.complete(.failure(.shutDown)) }
        }
    }

    // MARK: Beginning and ending

    private func accept(_ order: Order, deadline: UInt64, now: UInt64) {
        guard order.session != 0 else {
            lastNumber += 1
            begin(order, sequence: lastNumber, deadline: deadline, now: now)
            return
        }
        var session = sessions[order.session] ?? SessionState()
        if session.isBusy {
            session.queue.append((order, deadline))
            sessions[order.session] = session
            return
        }
        session.isBusy = true
        var sequence: UInt64
        if order.command == .submit {
            session.lastSequence += 1
            sequence = session.lastSequence
        } else {
            lastNumber += 1
            sequence = lastNumber
        }
        sessions[order.session] = session
        begin(order, sequence: sequence, deadline: deadline, now: now)
    }

    private func begin(_ order: Order, sequence: UInt64, deadline: UInt64, now: UInt64) {
        let header = RequestHeader(
            order.command, flags: order.flags, session: order.session, sequence: sequence, position: order.position)
        let key = Key(session: order.session, sequence: sequence)
        invariant(pending[key] == nil, "a number stands for one request")
        keys[order.identifier] = key
        var request = Pending(
            order: order, header: header, deadline: deadline, link: preferred, due: now, waiting: true)
        attempt(&request, now: now)
        pending[key] = request
        nextSweep = min(nextSweep, request.due, deadline)
    }

    private func finish(_ key: Key, _ result: Result<ClientReply, ClientError>) {
        guard let request = pending.removeValue(forKey: key) else { return }
        keys[request.order.identifier] = nil
        request.order.complete(result)
        guard request.order.session != 0 else { return }
        let identifier = request.order.session
        // A session that has ended leaves nothing behind; what waits for its turn finds out from the replica.
        let ended = request.order.command == .close || isExpired(result)
        guard var session = sessions[identifier] else { return }
        session.isBusy = false
        let next = session.queue.isEmpty ? nil : session.queue.removeFirst()
        sessions[identifier] = ended && next == nil ? nil : session
        if let next { accept(next.order, deadline: next.deadline, now: monotonicNanoseconds()) }
    }

    private func isExpired(_ result: Result<ClientReply, ClientError>) -> Bool {
        if case .failure(.sessionExpired) = result { true } else { false }
    }

    private func cancel(_ identifier: UInt64, now: UInt64) {
        if let key = keys[identifier] {
            finish(key, .failure(.cancelled))
            return
        }
        for (session, state) in sessions {
            guard let place = state.queue.firstIndex(where: { $0.order.identifier == identifier }) else { continue }
            let order = state.queue[place].order
            sessions[session]?.queue.remove(at: place)
            order.complete(.failure(.cancelled))
            return
        }
    }

    // MARK: Attempts

    /// Sends the request on its link, or on the next that takes it.
    private func attempt(_ request: inout Pending, now: UInt64) {
        for _ in links.indices {
            if links[request.link].send(request.header, request.order.body) {
                request.waiting = false
                request.due = now + options.attempt.nanoseconds
                return
            }
            if now < request.insistUntil { break }
            request.link = (request.link + 1) % links.count
        }
        request.waiting = true
        request.due = now + ExchangeLoop.offerPause
    }

    private func settle(_ reply: ClientReply, from link: Int) {
        let key = Key(session: reply.header.session, sequence: reply.header.sequence)
        guard var request = pending[key] else { return }  // settled before, by the answer to another attempt
        let decision = RetryRule.decide(
            reply, to: request.order.command, size: request.order.body.count, session: request.order.session,
            uncertain: request.uncertain)
        switch decision {
        case .finish(let result):
            preferred = link
            finish(key, result)
        case .retry(let place, let wait, let uncertain, let reason):
            let now = monotonicNanoseconds()
            switch place {
            case .same: request.link = link
            case .next: request.link = (link + 1) % links.count
            case .endpoint(let endpoint):
                if let named = self.link(to: endpoint) {
                    request.link = named
                    request.insistUntil = now + ExchangeLoop.insistence
                } else {
                    request.link = (link + 1) % links.count
                }
            }
            if place != .same { preferred = request.link }
            request.waiting = true
            request.uncertain = request.uncertain || uncertain
            request.trouble = "\(links[link].endpoint) \(reason)"
            // Spread: many sessions were told the same time.
            request.due = now + UInt64(wait) * UInt64.random(in: 1_000_000...1_250_000)
            pending[key] = request
            nextSweep = min(nextSweep, request.due)
        }
    }

    /// The link to an endpoint that a redirect named; nil when it is none that can be connected to, or none of a
    /// replica whose key is known.
    private func link(to endpoint: String) -> Int? {
        if let known = links.firstIndex(where: { $0.endpoint == endpoint }) { return known }
        guard links.count < ExchangeLoop.mostLinks,
            let link = try? Link(to: endpoint, keys: options.keys, in: context)
        else { return nil }
        links.append(link)
        watchLinks()
        return links.count - 1
    }

    /// With what keeps links from being made, as far as it is known.
    private func explained(_ trouble: String) -> String {
        ([trouble] + links.compactMap(\.obstacle)).joined(separator: "; ")
    }

    /// Sends what is due, gives up what is overdue, and finds out when to look again.
    private func sweep(_ now: UInt64) {
        nextSweep = .max
        for key in Array(pending.keys) {
            guard var request = pending[key] else { continue }
            if now >= request.deadline {
                let uncertain = request.uncertain || !request.waiting
                let trouble =
                    request.waiting ? explained(request.trouble) : "\(links[request.link].endpoint) sent no reply"
                finish(key, .failure(.unanswered(reason: trouble, uncertain: uncertain)))
                continue
            }
            if now >= request.due {
                if !request.waiting {
                    request.uncertain = true
                    request.trouble = "\(links[request.link].endpoint) sent no reply"
                    let next = (request.link + 1) % links.count
                    if preferred == request.link { preferred = next }
                    request.link = next
                }
                attempt(&request, now: now)
                pending[key] = request
            }
            nextSweep = min(nextSweep, request.due, request.deadline)
        }
    }
}
