import Logging
import MPaxosCSupport
import MPaxosInvariants
import MPaxosKeys
import MPaxosMessaging
import MPaxosMetrics
import MPaxosPipeline
import MPaxosTopology
import Synchronization

/// Who may come in with which key, at both ports of a replica: what the topology and the file of client keys say now.
/// Both can be read again while the replica runs.
///
/// Each key gets a number when it is first named, which it keeps for the life of the process: libzmq brings it with
/// each message of a connection that has the key. A key that is withdrawn has a number and no rights, so that it loses
/// them on connections that stand as well. Thread-safe.
package final class KeyRing: Sendable {
    /// Domains of authentication, by port.
    package static let peers = "peers"
    package static let clients = "clients"

    /// The replica's own.
    package let pair: KeyPair

    private struct Complaint {
        var next: UInt64 = 0
        /// Since the last one.
        var refused = 0

        /// How many there were since the last complaint, when it is time for one; else 0.
        mutating func count(now: UInt64) -> Int {
            refused += 1
            guard now >= next else { return 0 }
            next = now + KeyRing.complaintPause
            defer { refused = 0 }
            return refused
        }
    }

    private struct State {
        var numbers: [PublicKey: Int] = [:]
        /// By number.
        var named: [PublicKey] = []
        /// By member.
        var memberKeys: [[PublicKey]] = []
        /// By number.
        var members: [Int: Int] = [:]
        var clients: [ClientKeys.Entry] = []
        /// About those who came to the peer port, and to the client port.
        var complaints = (peers: Complaint(), clients: Complaint())
    }

    /// Numbers that there can be: keys that were ever named in the life of a process.
    private static let most = 1 << 17
    /// Clients that one line of the log names.
    private static let mostNamed = 10
    /// Microseconds between two lines of the log about keys that were refused.
    private static let complaintPause: UInt64 = 10_000_000

    private let id: UInt16
    private let state = Mutex(State())
    /// Ranks of roles by number, 0 for none: read for each request. Unsafe: atomics, in place as long as the ring is.
    nonisolated(unsafe) private let ranks: UnsafeMutablePointer<Atomic<UInt8>>
    private let changes = Atomic<UInt64>(0)
    private let board: StatusBoard
    private let logger: Logger

    /// Reads the replica's own key, and those of clients where they have some.
    /// - Throws: when a file is not as it must be: `.refused`, or `.configuration` for the file of client keys.
    package init(_ topology: Topology, id: UInt16, board: StatusBoard, logger: Logger) throws(ReplicaError) {
        let file = topology.secretKeyFile(of: id)
        do throws(KeyFileError) {
            try KeyFileError.requireCurve()
            pair = try KeyFile.read(file)
        } catch {
            throw ReplicaError(.refused, error.description)
        }
        guard let index = topology.index(of: id) else { throw .noSuchReplica(id, topology) }
        guard topology.replicas[index].publicKeys.contains(pair.publicKey) else {
            throw ReplicaError(
                .refused,
                "\(file): its public key is \(pair.publicKey), which is none of replica \(id) in \(topology.file): the others would refuse it; put the right file there, or the public key into the topology on all hosts"
            )
        }
        self.id = id
        self.board = board
        self.logger = logger
        ranks = .allocate(capacity: Self.most)
        for number in 0..<Self.most { (ranks + number).initialize(to: Atomic(0)) }
        try load(topology)
    }

    deinit {
        ranks.deinitialize(count: Self.most)
        ranks.deallocate()
    }

    /// Takes the keys that `topology` and its file of client keys name now, in place of those before.
    /// - Returns: which clients have other rights than before, for people; empty when none has.
    /// - Throws: when something is wrong with them; nothing has changed then.
    @discardableResult
    package func load(_ topology: Topology) throws(ReplicaError) -> String {
        guard topology.replicas.contains(where: { $0.id == id && $0.publicKeys.contains(pair.publicKey) }) else {
            throw ReplicaError(
                .configuration,
                "\(topology.file): the public key that replica \(id) runs with, \(pair.publicKey), is not there: the others would refuse it; name it beside the new one until the replica runs with that"
            )
        }
        let clients = try clients(of: topology)
        guard !clients.isEmpty || state.withLock(\.clients).isEmpty else {
            throw ReplicaError(
                .configuration,
                "\(topology.security.clientKeysFile): names no client, so that nobody could come in any more: name those that may; to shut all out, stop the replicas"
            )
        }
        let change = state.withLock { state -> String? in
            let memberKeys = topology.replicas.map(\.publicKeys)
            let news = Set(memberKeys.joined()).union(clients.map(\.publicKey)).filter { state.numbers[$0] == nil }
            guard state.named.count + news.count <= Self.most else { return nil }
            for key in news {
                state.numbers[key] = state.named.count
                state.named.append(key)
            }
            state.memberKeys = memberKeys
            state.members = [:]
            for (member, keys) in memberKeys.enumerated() {
                for key in keys { state.members[state.numbers[key]!] = member }
            }
            var newRanks = [UInt8](repeating: 0, count: state.numbers.count)
            for client in clients { newRanks[state.numbers[client.publicKey]!] = client.role.rank }
            for (number, rank) in newRanks.enumerated() { ranks[number].store(rank, ordering: .relaxed) }
            defer { state.clients = clients }
            return Self.change(from: state.clients, to: clients)
        }
        guard let change else {
            throw ReplicaError(
                .configuration,
                "\(topology.security.clientKeysFile): more than \(Self.most) keys were named since this replica began: start it again"
            )
        }
        changes.add(1, ordering: .releasing)
        return change
    }

    private static func change(from before: [ClientKeys.Entry], to now: [ClientKeys.Entry]) -> String {
        let roles = Dictionary(uniqueKeysWithValues: before.map { ($0.publicKey, $0.role) })
        let rest = Set(now.map(\.publicKey))
        let parts = [
            ("new", now.filter { roles[$0.publicKey] == nil }),
            ("with another role", now.filter { roles[$0.publicKey] ?? $0.role != $0.role }),
            ("withdrawn", before.filter { !rest.contains($0.publicKey) }),
        ]
        return parts.filter { !$0.1.isEmpty }.map { what, clients in
            let names = clients.prefix(mostNamed).map(\.name) + (clients.count > mostNamed ? ["..."] : [])
            return "\(what): \(names.joined(separator: ", "))"
        }.joined(separator: "; ")
    }

    private func clients(of topology: Topology) throws(ReplicaError) -> [ClientKeys.Entry] {
        guard topology.clientsHaveKeys else { return [] }
        let file = topology.security.clientKeysFile
        let entries: [ClientKeys.Entry]
        do throws(TopologyError) {
            entries = try ClientKeys(contentsOf: file).entries
        } catch {
            throw ReplicaError(.configuration, error.description)
        }
        let memberKeys = Set(topology.replicas.flatMap(\.publicKeys))
        if let entry = entries.first(where: { memberKeys.contains($0.publicKey) }) {
            throw ReplicaError(
                .configuration,
                "\(file): the key of client \"\(entry.name)\" is that of a replica: make another with `mpaxos keys new`"
            )
        }
        return entries
    }

    /// Rises with each `load`: whoever keeps what he was told asks again then.
    var generation: UInt64 { changes.load(ordering: .acquiring) }

    /// How many keys replicas and clients have.
    package var counts: (replicas: Int, clients: Int) {
        state.withLock { ($0.members.count, $0.clients.count) }
    }

    /// Keys of the member, the one in use first, if it is known which that is.
    func keys(of member: Int) -> [PublicKey] { state.withLock { $0.memberKeys[member] } }

    /// Whose key it is: a member's index; nil for a client's, for one that was withdrawn, and for none.
    func holder(of number: Int?) -> Int? {
        guard let number else { return nil }
        return state.withLock { $0.members[number] }
    }

    func key(of number: Int?) -> PublicKey? {
        guard let number else { return nil }
        return state.withLock { $0.named.indices.contains(number) ? $0.named[number] : nil }
    }

    /// What the client with the key may do.
    func permission(of number: Int?) -> Permission {
        guard let number, number < Self.most else { return .none }
        return Permission(ofRank: ranks[number].load(ordering: .relaxed))
    }

    /// The number of a key that may come in at the port that it knocks at. What is refused is counted, and said at most
    /// once in ten seconds, without a byte of what the stranger sent.
    package func admit(_ caller: ZAPHandler.Caller) -> Int? {
        let isPeer = caller.domain == Self.peers
        let now = csupport_monotonic_us()
        let (admitted, refused) = state.withLock { state -> (Int?, Int) in
            if let number = state.numbers[caller.key],
                isPeer ? state.members[number] != nil : ranks[number].load(ordering: .relaxed) > 0
            {
                return (number, 0)
            }
            return (nil, isPeer ? state.complaints.peers.count(now: now) : state.complaints.clients.count(now: now))
        }
        if admitted == nil { (isPeer ? board.peerKeysRefused : board.clientKeysRefused).add(1) }
        if refused > 0 {
            let port = isPeer ? "peer" : "client"
            let times = refused == 1 ? "" : " (\(refused) times since this was said last)"
            logger.notice("refused a connection from \(caller.address) at the \(port) port: its key is unknown\(times)")
        }
        return admitted
    }
}

extension Permission {
    /// - Parameter rank: as of `Role`; 0 is nobody's.
    fileprivate init(ofRank rank: UInt8) {
        self =
            switch rank {
            case 0: .none
            case Role.read.rank: .read
            case Role.write.rank: .write
            default: .all
            }
    }
}
