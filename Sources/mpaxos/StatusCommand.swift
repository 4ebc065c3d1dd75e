import ArgumentParser
import Foundation
import MPaxosTopology

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Ask every replica how it is.",
        discussion: "Exit code 0 when one answers, 1 when the states of replicas differ, 4 when none answers.")

    @OptionGroup var topology: TopologyOptions
    @OptionGroup var key: KeyOptions

    @Flag(help: "Print one JSON array: the STATUS body of each replica, or what it is not up for.")
    var json = false

    @OptionGroup var timeout: TimeoutOptions

    func run() throws {
        let topology = try topology.read()
        let query = StatusQuery(
            members: topology.replicas, keys: try key.read(for: topology), timeout: timeout.timeout)
        let answers = query.ask()
        let rows = zip(topology.replicas, answers).map { member, answer in Row(id: member.id, answer: answer) }
        try Output.line(json ? Self.array(of: rows) : Self.table(of: rows, named: topology.name))
        guard rows.contains(where: { $0.status != nil }) else {
            throw Failure(.noAnswer, "no replica of \(topology.name) answers")
        }
        if let difference = Self.difference(of: rows) { throw Failure(.notSo, difference) }
    }

    /// What replicas say of their states that cannot all be true: with the same instances executed the digests of sound
    /// ones are equal. (At equal positions they may differ for a moment: a repeated command takes no position, but
    /// counts as a use of its session.)
    private static func difference(of rows: [Row]) -> String? {
        var values: [UInt64: [(id: UInt16, value: String)]] = [:]
        // What was never part of the cluster is not compared with it.
        for row in rows where row.status?.founded != false {
            guard let digest = row.status?.digest, let executed = digest.executed, let value = digest.value else {
                continue
            }
            values[executed, default: []].append((row.id, value))
        }
        guard let (executed, found) = values.first(where: { Set($0.value.map(\.value)).count > 1 }) else { return nil }
        let told = found.map { "replica \($0.id) has \($0.value)" }.joined(separator: ", ")
        return
            "the states of replicas differ: with all up to instance \(executed) executed, \(told). One is damaged, or the state machine is not deterministic: stop the one that differs from the others, keep its pools, see docs/troubleshooting.md"
    }

    /// What is known of one replica.
    private struct Row {
        let id: UInt16
        var body = ""
        var status: ReplicaStatus?
        var problem = ""

        init(id: UInt16, answer: Result<String, StatusQuery.Problem>) {
            self.id = id
            switch answer {
            case .failure(let problem): self.problem = problem.description
            case .success(let body):
                do {
                    status = try JSONDecoder().decode(ReplicaStatus.self, from: Data(body.utf8))
                    self.body = body
                } catch {
                    problem = "its answer is no STATUS of this version"
                }
            }
        }
    }

    private static func array(of rows: [Row]) -> String {
        struct Down: Encodable {
            let id: UInt16
            let down = true
            let error: String
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let elements = rows.map { row in
            if row.status != nil { return row.body }
            let down = try? encoder.encode(Down(id: row.id, error: row.problem))
            return String(decoding: down ?? Data(), as: UTF8.self)
        }
        return "[" + elements.joined(separator: ",\n ") + "]"
    }

    /// - Parameter name: the cluster's.
    private static func table(of rows: [Row], named name: String) -> String {
        let decided = rows.compactMap { $0.status?.decided }.max() ?? 0
        var cells = [
            [
                "ID", "UP", "ROLE", "VIEW", "LEADER", "DECIDED", "EXECUTED", "LAG", "SESSIONS", "ACCEPTOR POOL",
                "STATE POOL", "UPTIME", "DIGEST AT POSITION",
            ]
        ]
        for row in rows {
            guard let status = row.status else {
                cells.append(["\(row.id)", "down", row.problem])
                continue
            }
            cells.append([
                "\(row.id)", "up", status.role, "\(status.view)", status.leader.map { "\($0)" } ?? "-",
                "\(status.decided)", "\(status.executed)",
                "\(decided > status.executed ? decided - status.executed : 0)", "\(status.sessions)",
                status.acceptorPool.text, status.statePool.text, duration(status.uptime),
                status.digest?.text ?? Digest.none,
            ])
        }
        // Both say the same: once for each two.
        var refused = Set<[UInt16]>()
        let refusals = rows.flatMap { row in
            (row.status?.peers ?? []).compactMap { peer -> String? in
                guard let refusal = peer.refusal, refused.insert([row.id, peer.id].sorted()).inserted else {
                    return nil
                }
                return "replica \(row.id) and replica \(peer.id) are not linked: \(refusal)"
            }
        }
        let foundings = rows.compactMap { row -> String? in
            guard let awaited = row.status?.waitingFor, !awaited.isEmpty else { return nil }
            let others = awaited.map { "replica \($0)" }.joined(separator: ", ")
            let founders = rows.filter { $0.status?.founded == true }.map { "replica \($0.id)" }
            guard founders.isEmpty else {
                return
                    "replica \(row.id) takes no part: the cluster is founded, as \(founders.joined(separator: ", ")) says, and replica \(row.id) does not know that from \(others) yet, or has other pools than those that it was founded with"
            }
            return
                "the cluster is not founded yet and serves nobody: replica \(row.id) waits for \(others) to have met all the others"
        }
        return ([Table.aligned(cells)] + foundings + refusals + openness(of: rows, named: name)).joined(separator: "\n")
    }

    /// Who of the cluster can be taken for another, as a line; none where nobody can, or nobody tells.
    private static func openness(of rows: [Row], named name: String) -> [String] {
        let levels = Set(rows.compactMap { $0.status?.security })
        if levels.contains("none") {
            return [
                "replicas and clients of \(name) are in the clear: whoever reaches a port may vote, write and read; see docs/security.md"
            ]
        }
        if levels.contains("peers") {
            return [
                "clients of \(name) are in the clear: whoever reaches a client port may write and read; see docs/security.md"
            ]
        }
        return []
    }

    private static func duration(_ seconds: Double) -> String {
        guard seconds >= 60, seconds < 1e12 else { return "\(decimal(seconds, 1)) s" }
        let whole = Int(seconds)
        let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60)
        if days > 0 { return "\(days) d \(hours) h" }
        if hours > 0 { return "\(hours) h \(minutes) min" }
        return "\(minutes) min \(whole % 60) s"
    }
}

/// A digest of the state as the table shows it.
private struct Digest: Decodable {
    static let none = "not computed yet"
    let position: UInt64?
    let executed: UInt64?
    let value: String?

    var text: String {
        guard let position, let value else { return Self.none }
        return "\(value) at \(position)"
    }
}

/// The part of a STATUS body that the table shows.
private struct ReplicaStatus: Decodable {
    struct Pool: Decodable {
        let used: UInt64
        let size: UInt64

        var text: String {
            let share = size == 0 ? 0 : Double(used) * 100 / Double(size)
            return "\(decimal(share, 0))% of \(byteCount(size))"
        }
    }

    struct Peer: Decodable {
        let id: UInt16
        /// Why there is no link; nil, too, where the replica does not tell.
        let refusal: String?
    }

    let role: String
    let view: UInt64
    let leader: UInt16?
    let decided: UInt64
    let executed: UInt64
    let sessions: UInt64
    let acceptorPool: Pool
    let statePool: Pool
    let uptime: Double
    let digest: Digest?
    let peers: [Peer]?
    /// Whether the replica belongs to a founded cluster, and whom the founding waits for; nil where it does not tell.
    let founded: Bool?
    let waitingFor: [UInt16]?
    /// Who has keys: nobody ("none"), replicas ("peers"), clients, too ("curve"); nil where it does not tell.
    let security: String?

    enum CodingKeys: String, CodingKey {
        case role, view, leader, decided, executed, sessions, digest, peers, founded, security
        case acceptorPool = "acceptor_pool"
        case statePool = "state_pool"
        case uptime = "uptime_s"
        case waitingFor = "waiting_for"
    }
}
