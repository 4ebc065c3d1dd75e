import MPaxosFrames
import MPaxosInvariants
import MPaxosLinks

/// The sockets of one process of a replica in a simulated cluster.
package final class SimulatedLinkSockets: LinkSockets {
    /// Keys as numbers: a connection proves which one it was made with, as CURVE does.
    package struct Keys {
        /// This replica's own.
        package var own: Int
        /// Of each member, by index, the one in use first.
        package var named: [[Int]]

        package init(own: Int, named: [[Int]]) {
            self.own = own
            self.named = named
        }
    }

    package let index: Int
    let connections: SimulatedConnections
    private(set) var isClosed = false
    /// The connections to the port that stand.
    var routes: [Route: Connection] = [:]
    var arrived = Line<(RawFrame, Connection)>()
    private var links: [Outgoing] = []
    private var callers: [Outgoing?]
    private var keys: Keys?
    private var generation: UInt64 = 0
    private var lastSource = Source(connection: nil, key: nil)

    /// Listens from now on, and connects to members of lower index, until it is closed.
    /// - Parameter keys: nil: the cluster has none.
    package init(index: Int, memberCount: Int, over connections: SimulatedConnections, keys: Keys? = nil) {
        self.index = index
        self.connections = connections
        self.keys = keys
        callers = Array(repeating: nil, count: memberCount)
        super.init(hasKeys: keys != nil)
        connections.listen(self)
        links = (0..<index).map { Outgoing(from: self, to: $0, key: keys?.named[$0].first, isForCalls: false) }
        for end in links { connections.begin(end) }
    }

    /// Of somebody who is no replica: nobody listens, and nothing that is sent to them arrives.
    init(ofStrangerWith key: Int?, over connections: SimulatedConnections) {
        index = Self.stranger
        self.connections = connections
        keys = key.map { Keys(own: $0, named: []) }
        callers = []
        isClosed = true
        super.init(hasKeys: key != nil)
    }

    /// In the place of an index.
    static let stranger = -1

    deinit {
        while let (frame, _) = arrived.removeFirst() { frame.discard() }
    }

    /// Takes keys in place of those before, as SIGHUP does. Its own stays.
    package func load(_ named: [[Int]]) {
        keys?.named = named
        generation += 1
    }

    var ownKey: Int? { keys?.own }

    /// Why the connection that `end` wants to make does not come about; nil: it does.
    func objection(to end: Outgoing) -> Event? {
        guard (keys == nil) == (end.sockets.ownKey == nil) else { return .mechanismsDiffer }
        guard let keys, let key = end.sockets.ownKey else { return nil }
        // A CURVE server says nothing to who expects another key of it than it has.
        if end.key != keys.own { return .handshakeFailed }
        return holder(ofKey: key) == nil ? .keyRefused : nil
    }

    override package func close() {
        guard !isClosed else { return }
        isClosed = true
        connections.close(self)
        (routes, links) = ([:], [])
        for member in callers.indices { callers[member] = nil }
    }

    // MARK: To a member of lower index

    override package func nextEvent(of member: Int) -> Event? { links[member].events.removeFirst() }

    override package func connectAnew(to member: Int) {
        let end = links[member]
        if let keys {
            let named = keys.named[member]
            let place = end.key.flatMap(named.firstIndex) ?? -1
            end.key = named[(place + 1) % named.count]
        }
        end.attempt += 1
        if let connection = end.connection { connections.end(connection) } else { connections.begin(end) }
    }

    override package func receive(_ frame: borrowing Frame, from member: Int) -> Reception {
        guard let (arrived, connection) = links[member].arrived.removeFirst() else { return .nothing }
        frame.adopt(arrived)
        connection.count(-1, toPort: false)
        return .frame
    }

    override package func send(_ frame: borrowing Frame, to member: Int) -> Outcome {
        guard let connection = links[member].connection else { return .full }
        return connections.send(frame, over: connection, toPort: true)
    }

    // MARK: At the port

    override package func receive(_ frame: borrowing Frame) -> Reception {
        guard let (arrived, connection) = arrived.removeFirst() else { return .nothing }
        frame.adopt(arrived)
        connection.count(-1, toPort: true)
        route = connection.route
        lastSource = Source(connection: connection.number, key: connection.key)
        return .frame
    }

    override package func send(_ frame: borrowing Frame, along route: Route) -> Outcome {
        guard let connection = routes[route] else { return .unreachable }
        return connections.send(frame, over: connection, toPort: false)
    }

    override package func source(of frame: borrowing Frame) -> Source { lastSource }

    override package func end(_ source: Source) {
        guard let number = source.connection, let connection = routes[Route(number: UInt64(number))] else { return }
        connections.end(connection)
    }

    // MARK: Calls

    override package func beginCalls(to member: Int, key: Int?) -> Bool {
        let end = Outgoing(from: self, to: member, key: key, isForCalls: true)
        callers[member] = end
        connections.begin(end)
        return true
    }

    override package func call(_ member: Int, _ frame: borrowing Frame) { callers[member]?.call(frame) }

    override package func endCalls(to member: Int) {
        guard let end = callers[member] else { return }
        callers[member] = nil
        end.attempt += 1
        if let connection = end.connection {
            end.connection = nil
            connections.end(connection)
        }
    }

    // MARK: Keys

    override package var keyGeneration: UInt64 { generation }

    override package func holder(ofKey key: Int?) -> Int? {
        guard let keys, let key else { return nil }
        return keys.named.firstIndex { $0.contains(key) }
    }

    override package func hasOtherKeys(_ member: Int) -> Bool { (keys?.named[member].count ?? 0) > 1 }

    override package func isKeyWithdrawn(of member: Int) -> Bool {
        guard let keys, let key = links[member].key else { return false }
        return !keys.named[member].contains(key)
    }
}
