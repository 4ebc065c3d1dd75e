import Foundation
import MPaxosKeys
import Testing

@testable import MPaxosTopology

/// Public keys in topologies, where secret ones are, and the file of clients.
@Suite struct KeysInTopologiesTests {
    static let first = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    static let second = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    static let third = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"

    /// Two replicas with these lines in their tables, and `rest` after them.
    private static func topology(_ keys: [String], _ rest: String = "") throws(TopologyError) -> Topology {
        var text = "name = \"test\"\n"
        for (id, key) in keys.enumerated() {
            text += """
                [[replica]]
                id = \(id)
                peer = "tcp://127.0.0.1:\(7100 + id)"
                client = "tcp://127.0.0.1:\(7200 + id)"
                \(key)

                """
        }
        return try Topology(parsing: Array((text + rest).utf8), file: "some/folder/t.toml")
    }

    private static func key(_ keys: String...) -> String {
        let texts = keys.map { "\"\($0)\"" }
        return "public_key = " + (texts.count == 1 ? texts[0] : "[\(texts.joined(separator: ", "))]")
    }

    /// Who may come in is said by files that not everybody can write.
    @Test func filesThatEverybodyCanWriteAreRefused() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("mpaxos-guard-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let plain = """
            name = "test"
            [[replica]]
            id = 0
            peer = "tcp://127.0.0.1:7100"
            client = "tcp://127.0.0.1:7200"

            """
        let clients = "[[client]]\nname = \"a\"\nrole = \"read\"\npublic_key = \"\(Self.first)\"\n"
        let texts = ["t.toml": plain + Self.key(Self.second), "plain.toml": plain, "clients.toml": clients]
        for (name, text) in texts {
            try text.write(to: folder.appendingPathComponent(name), atomically: false, encoding: .utf8)
        }
        for (mode, isRefused) in [(0o644, false), (0o664, false), (0o666, true), (0o602, true)] {
            for name in texts.keys {
                let path = folder.appendingPathComponent(name).path
                try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
                let result = Result {
                    if name == "clients.toml" {
                        _ = try ClientKeys(contentsOf: path)
                    } else {
                        _ = try Topology(contentsOf: path)
                    }
                }
                guard case .failure(let error) = result else {
                    #expect(!isRefused || name == "plain.toml", "\(name) of mode \(String(mode, radix: 8))")
                    continue
                }
                #expect(isRefused && name != "plain.toml")
                #expect("\(error)".hasPrefix("\(path): its mode is \(String(mode, radix: 8)), so that everybody"))
            }
        }
    }

    @Test func keysOfAll() throws {
        let topology = try Self.topology(
            [Self.key(Self.first), Self.key(Self.second, Self.third)], "[client]\nsecurity = \"curve\"")
        #expect(topology.hasKeys && topology.clientsHaveKeys)
        #expect(
            topology.replicas.map { $0.publicKeys.map(\.description) } == [[Self.first], [Self.second, Self.third]])
        #expect(topology.secretKeyFile(of: 1) == "some/folder/keys/replica-1.key")
        #expect(topology.operatorKeyFile == "some/folder/keys/operator.key")
        #expect(topology.security.clientKeysFile == "some/folder/keys/clients.toml")
    }

    @Test func withoutKeys() throws {
        let topology = try Self.topology(["", ""])
        #expect(!topology.hasKeys && !topology.clientsHaveKeys)
        #expect(try !Self.topology([Self.key(Self.first), Self.key(Self.second)]).clientsHaveKeys)
    }

    @Test func otherPlaces() throws {
        let security = try Self.topology(["", ""], "[security]\nkeys = \"/etc/mpaxos/\"\n").security
        #expect(security.folder == "/etc/mpaxos")
        #expect(security.clientKeysFile == "/etc/mpaxos/clients.toml")
        let apart = try Self.topology(["", ""], "[security]\nclient_keys = \"who.toml\"\n").security
        #expect(apart.folder == "some/folder/keys")
        #expect(apart.clientKeysFile == "some/folder/who.toml")
    }

    @Test(arguments: [
        (
            [key(first), ""], "",
            "replica[1].public_key: missing, while replica[0] has one, expected a key for each replica, or for none"
        ),
        (
            [key(first), key(first)], "",
            "replica[1].public_key: \"\(first)\" is replica[0].public_key already, expected a key that belongs to one replica"
        ),
        (
            [key(first, first), key(second)], "",
            "replica[0].public_key: \"\(first)\" is replica[0].public_key already, expected a key that belongs to one replica"
        ),
        (
            [key(first, second, third), ""], "",
            "replica[0].public_key: has 3, expected a string, or 1 to 2 of them in brackets"
        ),
        (
            ["public_key = []", ""], "",
            "replica[0].public_key: has 0, expected a string, or 1 to 2 of them in brackets"
        ),
        (
            ["public_key = \"short\"", ""], "",
            "replica[0].public_key: \"short\" is no public key, expected 40 characters of Z85, as `mpaxos keys show` prints them"
        ),
        (
            ["public_key = 1", ""], "",
            "replica[0].public_key: is an integer, expected a string, or 1 to 2 of them in brackets"
        ),
        (
            ["", ""], "[client]\nsecurity = \"curve\"",
            "client.security: is \"curve\", and replicas have no keys that clients could know them by, expected a public_key for each [[replica]]"
        ),
        (
            ["", ""], "[client]\nsecurity = \"tls\"",
            "client.security: \"tls\" is unknown, expected \"none\" or \"curve\""
        ),
        (["", ""], "[security]\nkeys = \"\"", "security.keys: \"\" is no path, expected the path of a file or folder"),
        (
            ["", ""], "[security]\nkey = \"a\"", "security.key: unknown key, expected one of keys, client_keys"
        ),
    ])
    func refused(keys: [String], rest: String, message: String) {
        let error = #expect(throws: TopologyError.self) { try Self.topology(keys, rest) }
        #expect(error?.description == "some/folder/t.toml: " + message)
    }

    // MARK: The file of clients

    private static func client(_ name: String, _ key: String, _ role: String) -> String {
        "[[client]]\nname = \"\(name)\"\npublic_key = \"\(key)\"\nrole = \"\(role)\"\n"
    }

    @Test func clients() throws {
        let text = Self.client("a", Self.first, "read") + Self.client("b", Self.second, "admin")
        let entries = try ClientKeys(parsing: Array(text.utf8), file: "clients.toml").entries
        #expect(entries.map(\.name) == ["a", "b"])
        #expect(entries.map(\.publicKey.description) == [Self.first, Self.second])
        #expect(entries.map(\.role) == [.read, .admin])
        #expect(Role.read < .write && .write < .admin)
        #expect(try ClientKeys(parsing: [], file: "clients.toml").entries.isEmpty)
    }

    @Test(arguments: [
        (
            client("a", first, "read") + client("a", second, "read"),
            "client[1].name: \"a\" is client[0].name already, expected a unique name"
        ),
        (
            client("a", first, "read") + client("b", first, "write"),
            "client[1].public_key: \"\(first)\" is client[0].public_key already, expected a key that belongs to one client"
        ),
        (
            client("a", first, "owner"),
            "client[0].role: \"owner\" is unknown, expected \"read\" or \"write\" or \"admin\""
        ),
        (
            client("a", "key", "read"),
            "client[0].public_key: \"key\" is no public key, expected 40 characters of Z85, as `mpaxos keys show` prints them"
        ),
        (
            client("", first, "read"),
            "client[0].name: is no name, expected a string of 1 to 255 bytes without control characters"
        ),
        (
            "[[client]]\nname = \"a\"\npublic_key = \"\(first)\"",
            "client[0].role: missing, expected \"read\" or \"write\" or \"admin\""
        ),
        ("[[clients]]", "clients: unknown key, expected one of client"),
    ])
    func clientsRefused(text: String, message: String) {
        let error = #expect(throws: TopologyError.self) {
            try ClientKeys(parsing: Array(text.utf8), file: "clients.toml")
        }
        #expect(error?.description == "clients.toml: " + message)
    }
}
