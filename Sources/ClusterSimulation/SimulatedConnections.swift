import MPaxosFrames
import MPaxosInvariants
import MPaxosLinks

/// The connections between the replicas of a simulated cluster: frames as bytes, in the time of whoever simulates.
///
/// A simulation gives its event queue and its faults from outside. All that happens here is an event of that queue, and
/// nothing is drawn at random: one run is like another with the same schedule. One thread.
package final class SimulatedConnections {
    /// What the simulation decides.
    package struct Surroundings {
        /// Hands a number to `happen` after so many microseconds; those of one moment in the order in which they came.
        package var schedule: (_ delay: UInt64, _ number: Int) -> Void
        /// Microseconds from now on at which a frame arrives: none when it is lost, more than one when it is repeated.
        /// A later one may overtake it.
        package var deliveries: (_ from: Int, _ to: Int, _ frame: UnsafeRawBufferPointer) -> [UInt64]
        /// Whether a connection comes about that is to stand now.
        package var reaches: (_ from: Int, _ to: Int) -> Bool
        /// Microseconds that it takes until it stands.
        package var handshakeTime: (_ from: Int, _ to: Int) -> UInt64
        /// Something has come for this replica, whose links are to be polled.
        package var arrived: (_ replica: Int) -> Void

        package init(
            schedule: @escaping (_ delay: UInt64, _ number: Int) -> Void,
            deliveries: @escaping (_ from: Int, _ to: Int, _ frame: UnsafeRawBufferPointer) -> [UInt64],
            reaches: @escaping (_ from: Int, _ to: Int) -> Bool,
            handshakeTime: @escaping (_ from: Int, _ to: Int) -> UInt64,
            arrived: @escaping (_ replica: Int) -> Void
        ) {
            self.schedule = schedule
            self.deliveries = deliveries
            self.reaches = reaches
            self.handshakeTime = handshakeTime
            self.arrived = arrived
        }
    }

    /// What an event is about.
    private enum Pending {
        case attempt(Outgoing, UInt64)
        case frame(RawFrame, over: Connection, toPort: Bool)
    }

    /// Frames under way in one direction of a connection, or waiting at its end: what libzmq's queues hold on both
    /// sides.
    private static let mostUnderWay = 8192
    /// Microseconds before the next attempt.
    private static let retryInterval: UInt64 = 20_000

    private let surroundings: Surroundings
    /// Who listens, by index.
    private var listening: [SimulatedLinkSockets?]
    private var standing: [Connection] = []
    private var pending: [Pending?] = []
    private var freePlaces: [Int] = []
    private var lastConnection: Int32 = 0

    package init(replicaCount: Int, in surroundings: Surroundings) {
        self.surroundings = surroundings
        listening = Array(repeating: nil, count: replicaCount)
    }

    deinit {
        for case .frame(let frame, _, _)? in pending { frame.discard() }
    }

    // MARK: For the simulation

    /// What was scheduled under this number happens.
    package func happen(_ number: Int) {
        guard let event = pending[number] else { broken("what was scheduled happens once") }
        pending[number] = nil
        freePlaces.append(number)
        switch event {
        case .attempt(let end, let attempt): connect(end, attempt)
        case .frame(let frame, let connection, let toPort): deliver(frame, over: connection, toPort: toPort)
        }
    }

    /// Ends all connections between two replicas, whoever has made them. What is under way is lost; both sides get to
    /// know. New ones come about as soon as `reaches` lets them. A real one ends by itself when nothing of the other
    /// side gets through for three seconds.
    package func cut(_ first: Int, _ second: Int) {
        for connection in standing where connection.isBetween(first, second) { end(connection) }
    }

    // MARK: Forged

    /// A connection to a replica's port that nobody's links have made; nil where none comes about. What is sent back
    /// over it goes to nobody.
    /// - Parameter key: with which it is made; nil: with none.
    func connectStranger(to member: Int, key: Int?) -> Connection? {
        guard let listener = listening[member] else { return nil }
        let end = Outgoing(
            from: SimulatedLinkSockets(ofStrangerWith: key, over: self), to: member, key: listener.ownKey,
            isForCalls: true)
        guard listener.objection(to: end) == nil else { return nil }
        lastConnection += 1
        let connection = Connection(number: lastConnection, from: end, to: listener, key: key)
        standing.append(connection)
        listener.routes[connection.route] = connection
        return connection
    }

    /// The connection of a link between two replicas, and whether what `one` sends goes to the other's port.
    func link(from one: Int, to other: Int) -> (connection: Connection, toPort: Bool)? {
        for connection in standing where connection.isBetween(one, other) && !connection.from.isForCalls {
            return (connection, connection.to.index == other)
        }
        return nil
    }

    /// Bytes arrive over a connection that neither of its sides has sent. False: it has ended.
    func slip(_ bytes: [UInt8], over connection: Connection, toPort: Bool) -> Bool {
        guard connection.isStanding else { return false }
        let frame = Frame()
        bytes.withUnsafeBytes { frame.rebuild(copying: $0) }
        connection.count(1, toPort: toPort)
        deliver(frame.take(), over: connection, toPort: toPort)
        return true
    }

    // MARK: For the sockets

    func listen(_ sockets: SimulatedLinkSockets) {
        invariant(listening[sockets.index] == nil, "one process of a replica listens")
        listening[sockets.index] = sockets
    }

    /// A replica is gone.
    func close(_ sockets: SimulatedLinkSockets) {
        if listening[sockets.index] === sockets { listening[sockets.index] = nil }
        for connection in standing where connection.from.sockets === sockets || connection.to === sockets {
            end(connection)
        }
    }

    /// Tries to make a connection, unless `end` has begun another attempt by then.
    func begin(_ end: Outgoing, after delay: UInt64 = 0) {
        let time = surroundings.handshakeTime(end.sockets.index, end.member)
        schedule(.attempt(end, end.attempt), after: delay + time)
    }

    private func connect(_ end: Outgoing, _ attempt: UInt64) {
        guard attempt == end.attempt, !end.sockets.isClosed else { return }
        guard surroundings.reaches(end.sockets.index, end.member), let listener = listening[end.member] else {
            return tryAgain(end, .attempted)
        }
        if let event = listener.objection(to: end) {
            guard event == .handshakeFailed else { return tell(end, event) }
            return tryAgain(end, event)
        }
        lastConnection += 1
        let connection = Connection(number: lastConnection, from: end, to: listener, key: end.sockets.ownKey)
        standing.append(connection)
        end.connection = connection
        listener.routes[connection.route] = connection
        tell(end, .connected)
        end.sendWaiting()
    }

    private func tryAgain(_ end: Outgoing, _ event: LinkSockets.Event) {
        tell(end, event)
        begin(end, after: Self.retryInterval)
    }

    private func tell(_ end: Outgoing, _ event: LinkSockets.Event) {
        guard !end.isForCalls else { return }
        end.events.append(event)
        surroundings.arrived(end.sockets.index)
    }

    /// The connection is gone for both. Whose it was tries again.
    func end(_ connection: Connection) {
        guard connection.isStanding else { return }
        connection.isStanding = false
        standing.removeAll { $0 === connection }
        connection.to.routes[connection.route] = nil
        let end = connection.from
        guard end.connection === connection else { return }
        end.connection = nil
        tell(end, .lost)
        if !end.sockets.isClosed { begin(end, after: Self.retryInterval) }
    }

    func send(_ frame: borrowing Frame, over connection: Connection, toPort: Bool) -> LinkSockets.Outcome {
        guard connection.underWay(toPort: toPort) < Self.mostUnderWay else { return .full }
        let (from, to) = (connection.from.sockets.index, connection.to.index)
        let delays = surroundings.deliveries(
            toPort ? from : to, toPort ? to : from, UnsafeRawBufferPointer(frame.bytes))
        for delay in delays {
            // Nobody writes to what is shared.
            let copy = Frame()
            copy.share(from: frame)
            connection.count(1, toPort: toPort)
            schedule(.frame(copy.take(), over: connection, toPort: toPort), after: delay)
        }
        frame.clear()
        return .sent
    }

    private func deliver(_ frame: RawFrame, over connection: Connection, toPort: Bool) {
        guard connection.isStanding else { return frame.discard() }
        if toPort {
            connection.to.arrived.append((frame, connection))
        } else {
            connection.from.arrived.append((frame, connection))
        }
        surroundings.arrived(toPort ? connection.to.index : connection.from.sockets.index)
    }

    private func schedule(_ event: Pending, after delay: UInt64) {
        let place = freePlaces.popLast() ?? pending.count
        if place == pending.count { pending.append(event) } else { pending[place] = event }
        surroundings.schedule(delay, place)
    }
}

/// A connection that stands or has ended.
final class Connection {
    /// Tells it from all others.
    let number: Int32
    let from: Outgoing
    let to: SimulatedLinkSockets
    /// With which it was made.
    let key: Int?
    var isStanding = true
    private var toPort = 0
    private var fromPort = 0

    init(number: Int32, from: Outgoing, to: SimulatedLinkSockets, key: Int?) {
        self.number = number
        self.from = from
        self.to = to
        self.key = key
    }

    var route: Route { Route(number: UInt64(number)) }

    func isBetween(_ first: Int, _ second: Int) -> Bool {
        let (a, b) = (from.sockets.index, to.index)
        return (a, b) == (first, second) || (a, b) == (second, first)
    }

    func underWay(toPort isToPort: Bool) -> Int { isToPort ? toPort : fromPort }

    func count(_ change: Int, toPort isToPort: Bool) {
        if isToPort { toPort += change } else { fromPort += change }
    }
}

/// A replica's end of the connections that it makes to one other, for a link or to call it back; one at a time.
final class Outgoing {
    /// Calls that wait for the connection.
    private static let mostWaiting = 64

    /// Which let go of this end when they are closed.
    let sockets: SimulatedLinkSockets
    let member: Int
    let isForCalls: Bool
    /// That the other side is expected to have.
    var key: Int?
    /// Counts the connections that were begun on purpose.
    var attempt: UInt64 = 0
    var connection: Connection?
    var events = Line<LinkSockets.Event>()
    var arrived = Line<(RawFrame, Connection)>()
    private var waiting = Line<RawFrame>()

    init(from sockets: SimulatedLinkSockets, to member: Int, key: Int?, isForCalls: Bool) {
        self.sockets = sockets
        self.member = member
        self.key = key
        self.isForCalls = isForCalls
    }

    deinit {
        while let frame = waiting.removeFirst() { frame.discard() }
        while let (frame, _) = arrived.removeFirst() { frame.discard() }
    }

    /// Sends as soon as there is a connection.
    func call(_ frame: borrowing Frame) {
        guard waiting.count < Self.mostWaiting else { return }
        waiting.append(frame.take())
        sendWaiting()
    }

    func sendWaiting() {
        guard let connection else { return }
        let frame = Frame()
        while let next = waiting.removeFirst() {
            frame.adopt(next)
            _ = sockets.connections.send(frame, over: connection, toPort: true)
        }
    }
}

/// First in, first out.
struct Line<Element> {
    private var elements: [Element] = []
    private var head = 0

    var count: Int { elements.count - head }

    mutating func append(_ element: Element) { elements.append(element) }

    mutating func removeFirst() -> Element? {
        guard head < elements.count else { return nil }
        defer {
            head += 1
            if 2 * head >= elements.count {
                elements.removeFirst(head)
                head = 0
            }
        }
        return elements[head]
    }
}
