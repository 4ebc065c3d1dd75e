import Foundation
import Logging
import MPaxosKeys
import MPaxosTopology

@testable import MPaxosMetrics
@testable import MPaxosTransport

/// A cluster with keys in a folder of its own: pairs of its replicas, and of a client of each role.
final class KeyedTopology {
    let folder = FileManager.default.temporaryDirectory.appending(
        path: "mpaxos-keyed-\(UInt32.random(in: 0...UInt32.max))")
    var file: String { folder.appending(path: "t.toml").path }
    private(set) var replicas: [KeyPair] = []
    private(set) var clients: [Role: KeyPair] = [:]
    /// Named beside the first one, or in its place, by replica.
    var publicKeys: [[PublicKey]]

    /// - Parameter replicas: how many.
    init(replicas count: Int = 3) throws {
        for _ in 0..<count { replicas.append(try KeyPair.generate()) }
        publicKeys = replicas.map { [$0.publicKey] }
        for role in Role.allCases { clients[role] = try KeyPair.generate() }
        try FileManager.default.createDirectory(
            at: folder.appending(path: "keys"), withIntermediateDirectories: true)
        for (id, pair) in replicas.enumerated() { try KeyFile.write(pair, named: "", to: secretFile(of: id)) }
        try write()
        try writeClients(Role.allCases)
    }

    func secretFile(of id: Int) -> String { folder.appending(path: "keys/replica-\(id).key").path }
    var clientsFile: String { folder.appending(path: "keys/clients.toml").path }

    /// Writes the topology file.
    func write() throws {
        var text = "name = \"counter\"\n[client]\nsecurity = \"curve\"\nsessions = 64\n"
        text += "[storage]\ndirectory = \"\(folder.path)\"\nlog_size = \"8MiB\"\nstate_size = \"32MiB\"\n"
        for (id, keys) in publicKeys.enumerated() {
            let named = keys.map { "\"\($0)\"" }.joined(separator: ", ")
            text += """
                [[replica]]
                id = \(id)
                peer = "ipc://\(folder.path)/p\(id)"
                client = "ipc://\(folder.path)/c\(id)"
                public_key = [\(named)]

                """
        }
        try text.write(toFile: file, atomically: true, encoding: .utf8)
    }

    /// Writes the file of client keys, with one of each of the roles.
    func writeClients(_ roles: [Role]) throws {
        let text = roles.map {
            "[[client]]\nname = \"\($0)\"\npublic_key = \"\(clients[$0]!.publicKey)\"\nrole = \"\($0)\"\n"
        }
        try text.joined().write(toFile: clientsFile, atomically: true, encoding: .utf8)
    }

    func topology() throws -> Topology { try Topology(contentsOf: file) }

    func ring(of id: UInt16, board: StatusBoard = StatusBoard(members: [0, 1, 2]), log: any LogHandler) throws
        -> KeyRing
    {
        try KeyRing(try topology(), id: id, board: board, logger: Logger(label: "keys", factory: { _ in log }))
    }

    deinit { try? FileManager.default.removeItem(at: folder) }
}
