import Glibc
import MPaxosCSupport
import MPaxosInvariants
import MPaxosMetrics

/// The STATUS body and /metrics: what a replica says about itself, made from its board whenever somebody asks. Any
/// thread.
package struct StatusReport: Sendable {
    let board: StatusBoard
    let cluster: String
    let id: UInt16
    let durability: String
    let version: String
    /// Microseconds of the monotonic clock at which the process began.
    let started: UInt64
    let security: Security

    /// Who has keys.
    package enum Security: String, Sendable {
        /// Nobody: both ports are in the clear.
        case none
        /// Replicas; clients are in the clear.
        case peers
        /// Replicas and clients.
        case curve
    }

    /// - Parameters:
    ///   - durability: of the pools, in the words of STATUS: pmem, emulated or msync.
    ///   - started: microseconds of the monotonic clock at which the process began.
    package init(
        board: StatusBoard, cluster: String, id: UInt16, durability: String, version: String,
        started: UInt64, security: Security = .none
    ) {
        invariant(board.peers.contains { $0.id == id }, "a replica reports on its own cluster")
        self.board = board
        self.cluster = cluster
        self.id = id
        self.durability = durability
        self.version = version
        self.started = started
        self.security = security
    }

    /// The STATUS body: the keys of the client protocol, and `pid`, by which tools on the same host find the process.
    package func json() -> String {
        let now = csupport_monotonic_us()
        // Read in this order, a replica that is at work never seems to have executed what it has not decided.
        let digest = board.digest
        let position = board.position.load()
        let executed = board.executed.load()
        let decided = board.decided.load()
        var object = JSONObject()
        object.add("id", "\(id)")
        object.add("cluster", quoting: cluster)
        object.add("role", quoting: board.role.name)
        object.add("view", "\(board.view.load())")
        object.add("leader", board.knownLeader.map { "\(board.peers[$0].id)" } ?? "null")
        object.add("decided", "\(max(decided, executed))")
        object.add("executed", "\(executed)")
        object.add("position", "\(position)")
        object.add("sessions", "\(board.sessions.load())")
        object.add("outstanding", "\(board.outstanding.load())")
        var rejected = JSONObject()
        rejected.add("malformed", "\(board.rejectedMalformed.load())")
        rejected.add("too_large", "\(board.rejectedTooLarge.load())")
        rejected.add("busy", "\(board.rejectedBusy.load())")
        object.add("rejected", rejected.text)
        object.add("denied", "\(board.denied.load())")
        object.add("security", quoting: security.rawValue)
        object.add("log_lines_dropped", "\(board.logLinesDropped.load())")
        object.add("votes_dropped_torn", "\(board.votesDroppedTorn.load())")
        object.add("acceptor_pool", Self.pool(board.acceptorPoolUsed, board.acceptorPoolSize))
        object.add("state_pool", Self.pool(board.statePoolUsed, board.statePoolSize))
        object.add("durability", quoting: durability)
        object.add("uptime_s", uptimeSeconds)
        object.add("version", quoting: version)
        var digestObject = JSONObject()
        if let digest {
            digestObject.add("position", "\(digest.position)")
            digestObject.add("executed", "\(digest.executed)")
            digestObject.add("value", quoting: Self.hex(digest.value))
        } else {
            digestObject.add("position", "null")
            digestObject.add("executed", "null")
            digestObject.add("value", "null")
        }
        object.add("digest", digestObject.text)
        var verification = JSONObject()
        let passes = board.statePasses.load()
        verification.add("passes", "\(passes)")
        verification.add(
            "age_s", passes == 0 ? "null" : Self.thousandths((now - min(now, board.statePassedAt.load())) / 1000))
        object.add("verification", verification.text)
        object.add("pid", "\(getpid())")
        object.add("ready", board.unreadiness(now: now) == nil ? "true" : "false")
        object.add("founded", board.isFounded ? "true" : "false")
        let awaited = board.awaited
        let waitingFor = board.peers.indices.filter { awaited & 1 << UInt16($0) != 0 }.map { "\(board.peers[$0].id)" }
        object.add("waiting_for", "[" + waitingFor.joined(separator: ",") + "]")
        object.add("peers", "[" + board.peers.filter { $0.id != id }.map(Self.peer).joined(separator: ",") + "]")
        return object.text
    }

    private static func peer(_ peer: StatusBoard.Peer) -> String {
        let roundTrip = peer.roundTrip.load()
        var object = JSONObject()
        object.add("id", "\(peer.id)")
        object.add("connected", peer.connected.load() == 0 ? "false" : "true")
        if let refusal = peer.refusal.read() {
            object.add("refusal", quoting: refusal)
        } else {
            object.add("refusal", "null")
        }
        object.add("round_trip_us", roundTrip == 0 ? "null" : "\(roundTrip)")
        object.add("window", "\(peer.window.load())")
        object.add("under_way", "\(peer.underWay.load())")
        object.add("queued", "\(peer.queued.load())")
        object.add("resent", "\(peer.resent.load())")
        object.add("behind", "\(peer.behind.load())")
        return object.text
    }

    var uptimeSeconds: String {
        let now = csupport_monotonic_us()
        return Self.thousandths((now > started ? now - started : 0) / 1000)
    }

    /// A digest as `mpaxos digest` and STATUS spell it: 16 digits.
    package static func hex(_ digest: UInt64) -> String {
        let digits = String(digest, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Milliseconds as seconds.
    package static func thousandths(_ milliseconds: UInt64) -> String {
        let fraction = String(milliseconds % 1000)
        return "\(milliseconds / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
    }

    private static func pool(_ used: Gauge, _ size: Gauge) -> String {
        var object = JSONObject()
        object.add("used", "\(used.load())")
        object.add("size", "\(size.load())")
        return object.text
    }
}

/// Writes one JSON object, keys in the order they are added.
private struct JSONObject {
    private var members = ""

    var text: String { "{\(members)}" }

    /// - Parameter value: JSON already.
    mutating func add(_ key: String, _ value: String) {
        if !members.isEmpty { members += "," }
        members += "\"\(key)\":\(value)"
    }

    mutating func add(_ key: String, quoting text: String) {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        add(key, quoted + "\"")
    }
}
