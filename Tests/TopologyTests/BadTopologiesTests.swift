import Testing

@testable import MPaxosTopology

/// What each bad file is told: the whole line, since people and scripts read it.
@Suite struct BadTopologiesTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let text: String
        let message: String
        var testDescription: String { message }

        init(_ text: String, _ message: String) {
            self.text = text
            self.message = message
        }

        /// A good file with `addition` after it.
        static func appended(_ addition: String, _ message: String) -> Case {
            Case(TopologyTests.smallest + "\n" + addition, message)
        }

        /// A file whose first replica is good and whose second is `second`.
        static func second(_ second: String, _ message: String) -> Case {
            appended("[[replica]]\n" + second, message)
        }

        /// A good file with `line` in place of the one that starts with `key`.
        static func replacing(_ key: String, with line: String, _ message: String) -> Case {
            let lines = TopologyTests.smallest.split(separator: "\n")
            precondition(lines.contains { $0.hasPrefix("\(key) = ") }, "no such key in the good file")
            return Case(
                lines.map { $0.hasPrefix("\(key) = ") ? line : String($0) }.joined(separator: "\n"), message)
        }
    }

    static let ids: [Case] = [
        .replacing("id", with: "", "replica[0].id: missing, expected an integer from 0 to 65535"),
        .replacing("id", with: "id = -1", "replica[0].id: -1 is out of range, expected an integer from 0 to 65535"),
        .replacing(
            "id", with: "id = 65536", "replica[0].id: 65536 is out of range, expected an integer from 0 to 65535"),
        .replacing("id", with: "id = \"0\"", "replica[0].id: is a string, expected an integer from 0 to 65535"),
        .replacing(
            "id", with: "id = 1.0", "replica[0].id: is a floating-point number, expected an integer from 0 to 65535"),
        .second(
            "id = 0\npeer = \"tcp://h:1\"\nclient = \"tcp://h:2\"",
            "replica[1].id: 0 is replica[0].id already, expected a unique id"),
    ]

    static let endpoints: [Case] = [
        .replacing("peer", with: "", "replica[0].peer: missing, expected tcp://HOST:PORT or ipc://PATH"),
        .replacing("client", with: "", "replica[0].client: missing, expected tcp://HOST:PORT or ipc://PATH"),
        .replacing("peer", with: "peer = 7100", "replica[0].peer: is an integer, expected a string"),
        .replacing(
            "peer", with: "peer = \"localhost:7100\"",
            "replica[0].peer: \"localhost:7100\" is not an endpoint, expected tcp://HOST:PORT or ipc://PATH"),
        .replacing(
            "client", with: "client = \"tcp://*:7200\"",
            "replica[0].client: \"tcp://*:7200\" is nothing to connect to, expected tcp://HOST:PORT or ipc://PATH"
                + " with a host that others can reach, and the wildcard as client_bind"),
        .replacing(
            "client", with: "client = \"tcp://127.0.0.1:7100\"",
            "replica[0].client: \"tcp://127.0.0.1:7100\" is replica[0].peer already, expected a unique endpoint"),
        .second(
            "id = 1\npeer = \"tcp://127.0.0.1:7200\"\nclient = \"tcp://h:2\"",
            "replica[1].peer: \"tcp://127.0.0.1:7200\" is replica[0].client already, expected a unique endpoint"),
        .replacing(
            "client", with: "client = \"tcp://127.0.0.1:7200\"\nclient_bind = \"tcp://*:7100\"",
            "replica[0].client_bind: is taken by replica[0].peer_bind, expected a unique endpoint"),
        .replacing(
            "client", with: "client = \"tcp://127.0.0.1:7200\"\nclient_bind = \"*:7200\"",
            "replica[0].client_bind: \"*:7200\" is not an endpoint, expected tcp://HOST:PORT or ipc://PATH"),
        .replacing(
            "client", with: "client = \"tcp://127.0.0.1:7200\"\nhttp = \"tcp://127.0.0.1:7300\"",
            "replica[0].http: \"tcp://127.0.0.1:7300\" is not an address, expected HOST:PORT, or PORT for one of 127.0.0.1"
        ),
        .replacing(
            "client", with: "client = \"tcp://127.0.0.1:7200\"\nhttp = \"127.0.0.1:7200\"",
            "replica[0].http: is taken by replica[0].client_bind, expected a unique endpoint"),
        .second(
            "id = 1\npeer = \"tcp://127.0.0.1:7101\"\nclient = \"tcp://127.0.0.1:7201\"\nhttp = \"0.0.0.0:7100\"",
            "replica[1].http: \"0.0.0.0:7100\" is taken by replica[0], expected a unique address"),
    ]

    static let structure: [Case] = [
        Case("", "name: missing, expected a string of 1 to 255 bytes"),
        Case("name = \"x\"", "replica: missing, expected 1 to 9 tables, [[replica]]"),
        Case("name = \"x\"\nreplica = []", "replica: there are 0, expected 1 to 9 tables, [[replica]]"),
        Case("name = \"x\"\nreplica = [1]", "replica[0]: is an integer, expected a table, [[replica]]"),
        Case("name = \"x\"\n[replica]\nid = 0", "replica: is a table, expected 1 to 9 tables, [[replica]]"),
        Case(
            "name = \"x\"\n"
                + (0..<10).map { "[[replica]]\nid=\($0)\npeer=\"tcp://h:1\($0)\"\nclient=\"tcp://h:2\($0)\"\n" }
                .joined(),
            "replica: there are 10, expected 1 to 9 tables, [[replica]]"),
        .replacing("name", with: "name = \"\"", "name: has 0 bytes, expected a string of 1 to 255 bytes"),
        .replacing("name", with: "name = 5", "name: is an integer, expected a string"),
        .replacing(
            "name", with: "name = \"a\\nb\"",
            "name: has control characters, expected a string of 1 to 255 bytes without them"),
        .replacing(
            "name", with: "name = \"a\u{202E}b\"",
            "name: has control characters, expected a string of 1 to 255 bytes without them"),
        .replacing(
            "name", with: "name = \"a/b\"",
            "storage.directory: missing, expected one, as the cluster's name is no name for a folder"),
        .replacing(
            "name", with: "name = \"x\"\nnames = 1",
            "names: unknown key, expected one of name, replica, storage, protocol, client, pipeline, limits, http, security"
        ),
        .replacing(
            "name", with: "name = \"x\"\n\"a\\nb\" = 1",
            "\"a\\nb\": unknown key, expected one of name, replica, storage, protocol, client, pipeline, limits, http, security"
        ),
        .appended(
            "port = 1",
            "replica[0].port: unknown key, expected one of id, peer, client, http, peer_bind, client_bind, directory, public_key"
        ),
        .appended(
            "[storage]\nlogsize = 1", "storage.logsize: unknown key, expected one of directory, log_size, state_size"),
        .appended("[pipeline]\nthread = 1", "pipeline.thread: unknown key, expected one of threads, io_threads"),
        .appended("[[protocol]]", "protocol: is an array, expected a table, [protocol]"),
    ]

    static let values: [Case] = [
        .appended("[storage]\ndirectory = \"\"", "storage.directory: \"\" is no folder, expected the path of a folder"),
        .appended(
            "[storage]\nlog_size = \"7MiB\"",
            "storage.log_size: \"7MiB\" is out of range, expected a size from 8 MiB to 14 GiB"),
        .appended(
            "[storage]\nlog_size = \"8MB\"",
            "storage.log_size: \"8MB\" is not a size, expected a size like \"64MiB\" (KiB, MiB, GiB) or a number of bytes"
        ),
        .appended(
            "[storage]\nlog_size = true",
            "storage.log_size: is a bool, expected a size like \"64MiB\" (KiB, MiB, GiB) or a number of bytes"),
        .appended(
            "[storage]\nstate_size = 33554431",
            "storage.state_size: 33554431 is out of range, expected a size from 32 MiB to 14 GiB"),
        .appended("[protocol]\nwindow = 0", "protocol.window: 0 is out of range, expected an integer from 1 to 1024"),
        .appended(
            "[protocol]\nwindow = 1025", "protocol.window: 1025 is out of range, expected an integer from 1 to 1024"),
        .appended(
            "[protocol]\nbatch_bytes = 4095",
            "protocol.batch_bytes: 4095 is out of range, expected a size from 4 KiB to 4 MiB"),
        .appended(
            "[protocol]\nbatch_bytes = \"5MiB\"",
            "protocol.batch_bytes: \"5MiB\" is out of range, expected a size from 4 KiB to 4 MiB"),
        .appended(
            "[protocol]\nbatch_delay_us = -1",
            "protocol.batch_delay_us: -1 is out of range, expected an integer from 0 to 1000000"),
        .appended(
            "[protocol]\nheartbeat_ms = 0",
            "protocol.heartbeat_ms: 0 is out of range, expected an integer from 1 to 60000"
        ),
        .appended(
            "[protocol]\nheartbeat_ms = 100\nsuspect_ms = 199",
            "protocol.suspect_ms: 199 is too short for a heartbeat of 100 ms, expected at least 2 heartbeats, 200"),
        .appended(
            "[client]\nsessions = 15", "client.sessions: 15 is out of range, expected an integer from 16 to 1048576"),
        .appended(
            "[client]\nsessions = 1048577",
            "client.sessions: 1048577 is out of range, expected an integer from 16 to 1048576"),
        .appended(
            "[client]\nmax_request = \"17MiB\"",
            "client.max_request: \"17MiB\" is out of range, expected a size from 1 byte to 16 MiB"),
        .appended(
            "[storage]\nlog_size = \"8MiB\"\n[client]\nmax_request = 1048577",
            "client.max_request: 1048577 bytes is too large for a log_size of 8 MiB, expected at most an eighth of it, 1 MiB"
        ),
        .appended(
            "[client]\nmax_outstanding = 0",
            "client.max_outstanding: 0 is out of range, expected an integer from 1 to 1048576"),
        .appended(
            "[client]\nsocket = \"REP\"",
            "client.socket: \"REP\" is unknown, expected \"router\" or \"libzmq-router\" or \"rep\""),
        .appended(
            "[pipeline]\nthreads = 2", "pipeline.threads: is an integer, expected \"auto\" or \"fused\" or \"staged\""),
        .appended(
            "[pipeline]\nio_threads = 0", "pipeline.io_threads: 0 is out of range, expected an integer from 1 to 64"),
    ]

    @Test(arguments: ids + endpoints + structure + values)
    func meaning(_ bad: Case) {
        expectError(Array(bad.text.utf8), "t.toml: " + bad.message)
    }

    /// The wording is the parser's own; the position and the single line are ours to keep.
    @Test(arguments: [
        ("name = ", "1:"), ("name = \"x\"\n[[replica]\n", "2:"), ("name = \"x\"\nname = \"y\"", "2:"),
        ("\n\n  = 1", "3:3: "), ("name = \"a\nb\"", "1:"), ("a = 1 b", "1:7: "), ("[storage]\n[storage]", "2:"),
        ("a = 99999999999999999999", "1:"),
    ])
    func syntax(text: String, position: String) {
        do throws(TopologyError) {
            _ = try TopologyTests.parse(text)
            Issue.record("it was accepted")
        } catch {
            #expect(error.description.hasPrefix("t.toml:\(position)"), "\(error)")
            let fields = error.description.split(separator: ":", maxSplits: 3)
            #expect(fields.count == 4 && Int(fields[1]) != nil && Int(fields[2]) != nil, "\(error)")
            #expect(!error.description.contains { $0.isNewline }, "\(error)")
        }
    }

    @Test func bytesThatAreNoText() {
        expectError(Array("name = 1\nx\0y".utf8), "t.toml:2:2: a zero byte is not allowed in TOML")
        expectError(Array("name = 1\n# é".utf8) + [0xFF, 0x41], "t.toml:2:4: not UTF-8 text")
    }

    private func expectError(_ bytes: [UInt8], _ message: String) {
        do throws(TopologyError) {
            _ = try Topology(parsing: bytes, file: "t.toml")
            Issue.record("it was accepted; expected: \(message)")
        } catch {
            #expect(error.description == message)
        }
    }
}
