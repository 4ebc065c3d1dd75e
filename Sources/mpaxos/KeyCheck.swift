import Foundation
import Glibc
import MPaxosKeys
import MPaxosReplica
import MPaxosStatus
import MPaxosTopology

/// What this host has of a cluster's keys, and what is wrong with it.
struct KeyCheck {
    /// What is to be said of one file.
    struct Finding {
        let line: String
        let isGood: Bool
        /// Whether it is about something that this host has.
        var isFound = true

        static func good(_ path: String, _ what: String) -> Finding {
            Finding(line: "\(path): ok, \(what)", isGood: true)
        }

        static func bad(_ sentence: String) -> Finding { Finding(line: sentence, isGood: false) }
        static func bad(_ path: String, _ problem: String) -> Finding { bad("\(path): \(problem)") }
    }

    private(set) var findings: [Finding] = []
    private let topology: Topology
    /// The pairs in the folder's files, whoever's they are.
    private let pairs: [(file: String, pair: KeyPair)]

    /// - Parameter required: the replica whose secret key has to be here; nil for whatever is here.
    init(of topology: Topology, required: UInt16?) {
        self.topology = topology
        pairs = Self.pairs(in: topology.security.folder)
        checkTopology()
        let members = topology.replicas.filter { required == nil || $0.id == required }
        let local = members.filter { required != nil || Self.isThere(topology.secretKeyFile(of: $0.id)) }
        for member in members {
            if local.contains(where: { $0.id == member.id }) {
                check(member)
            } else {
                findings.append(
                    Finding(
                        line: "\(topology.secretKeyFile(of: member.id)): not on this host", isGood: true, isFound: false
                    ))
            }
        }
        let clients = checkClients(isNeeded: topology.clientsHaveKeys && !local.isEmpty)
        if Self.isThere(topology.operatorKeyFile) { checkOperator(clients) }
        checkHTTP(isNeeded: !local.isEmpty)
        if !findings.contains(where: { $0.isFound }) {
            findings = [.bad(topology.security.folder, "has no key of this cluster, and no file of clients")]
        }
    }

    /// Keys that everybody can read in the topology must not be the secret ones.
    private mutating func checkTopology() {
        for member in topology.replicas {
            for key in member.publicKeys {
                guard let file = fileWhoseSecret(is: key) else { continue }
                findings.append(
                    .bad(
                        topology.file,
                        "public_key of replica \(member.id) is the secret key of \(file), and so a secret no more: delete that file, make another pair, and put the key in its place that `mpaxos keys new` prints"
                    ))
            }
        }
    }

    private mutating func check(_ member: Topology.Member) {
        let path = topology.secretKeyFile(of: member.id)
        do throws(KeyFileError) {
            let key = try KeyFile.read(path).publicKey
            if let place = member.publicKeys.firstIndex(of: key) {
                let which = member.publicKeys.count == 1 ? "" : ", number \(place + 1) of its two in the topology"
                findings.append(.good(path, "replica \(member.id)'s\(which)"))
            } else if let other = topology.replicas.first(where: { $0.publicKeys.contains(key) }) {
                findings.append(
                    .bad(path, "has the key of replica \(other.id): put the file of replica \(member.id) there"))
            } else if !member.publicKeys.contains(where: { fileWhoseSecret(is: $0) != nil }) {
                // Else it was said what to do about the topology.
                findings.append(
                    .bad(
                        path,
                        "its public key is \(key), and the public_key of replica \(member.id) in \(topology.file) another one: put this one there, on all hosts, or bring back the file that belongs to that one"
                    ))
            }
        } catch {
            findings.append(.bad(error.description))
        }
    }

    /// - Parameter isNeeded: whether a replica of this host lets nobody in without it.
    /// - Returns: the clients; nil when the file is not here, or has a fault.
    private mutating func checkClients(isNeeded: Bool) -> [ClientKeys.Entry]? {
        let path = topology.security.clientKeysFile
        guard isNeeded || Self.isThere(path) else { return nil }
        do throws(TopologyError) {
            let clients = try ClientKeys(contentsOf: path).entries
            let problems = clients.enumerated().compactMap { number, client in
                problem(of: client).map { "client[\(number)].public_key \($0)" }
            }
            guard problems.isEmpty else {
                findings += problems.map { .bad(path, $0) }
                return nil
            }
            guard !clients.isEmpty else {
                findings.append(.bad(path, "names no client: nobody can come in"))
                return clients
            }
            let roles = Role.allCases.map { role in "\(role.rawValue) \(clients.count { $0.role == role })" }
            findings.append(
                .good(path, "\(clients.count) client\(clients.count == 1 ? "" : "s"): \(roles.joined(separator: ", "))")
            )
            return clients
        } catch {
            findings.append(.bad(error.description))
            return nil
        }
    }

    private func problem(of client: ClientKeys.Entry) -> String? {
        if let file = fileWhoseSecret(is: client.publicKey) {
            return
                "is the secret key of \(file): delete that file, make another pair, and put the key in its place that `mpaxos keys new` prints"
        }
        guard let member = topology.replicas.first(where: { $0.publicKeys.contains(client.publicKey) }) else {
            return nil
        }
        return
            "is that of replica \(member.id): a client needs a pair of its own, which `mpaxos keys new` makes"
    }

    private mutating func checkOperator(_ clients: [ClientKeys.Entry]?) {
        let path = topology.operatorKeyFile
        do throws(KeyFileError) {
            let key = try KeyFile.read(path).publicKey
            if let member = topology.replicas.first(where: { $0.publicKeys.contains(key) }) {
                findings.append(
                    .bad(path, "has the key of replica \(member.id): whoever uses it could pass for that replica"))
            } else if let client = clients?.first(where: { $0.publicKey == key }) {
                findings.append(.good(path, "client \"\(client.name)\", role \(client.role.rawValue)"))
            } else if clients == nil {
                let isThere = Self.isThere(topology.security.clientKeysFile)
                findings.append(
                    .good(
                        path,
                        isThere
                            ? "but the file of clients, which says what it may do, has a fault"
                            : "but no file of clients here that says what it may do"))
            } else {
                findings.append(
                    .bad(path, "its public key is \(key), which no client in \(topology.security.clientKeysFile) has"))
            }
        } catch {
            findings.append(.bad(error.description))
        }
    }

    /// The certificate, its key and the token, which a replica of this host with HTTP reads.
    private mutating func checkHTTP(isNeeded: Bool) {
        guard isNeeded, topology.http.hasFiles else { return }
        do throws(ReplicaError) {
            _ = try HTTPSecrets(topology.http)
            if let certificate = topology.http.certificate {
                findings.append(.good(certificate.chain, "with \(certificate.privateKey)"))
            }
            if let token = topology.http.token { findings.append(.good(token, "the token of HTTP")) }
        } catch {
            findings.append(.bad(error.description))
        }
    }

    private func fileWhoseSecret(is key: PublicKey) -> String? {
        pairs.first { $0.pair.secret == key.bytes }?.file
    }

    /// Those that can be read; what is wrong with one that matters is said where it is looked at.
    private static func pairs(in folder: String) -> [(file: String, pair: KeyPair)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.sorted().filter { $0.hasSuffix(".key") }.compactMap { name in
            let file = "\(folder)/\(name)"
            return (try? KeyFile.read(file)).map { (file, $0) }
        }
    }

    /// Whether there is something, readable or not.
    private static func isThere(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 || errno != ENOENT
    }
}
