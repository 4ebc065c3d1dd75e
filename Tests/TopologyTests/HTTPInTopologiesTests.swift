import Testing

@testable import MPaxosTopology

/// Where HTTP is served, and the files of its secrets.
@Suite struct HTTPInTopologiesTests {
    /// One replica with these lines in its table, and `rest` after them.
    private static func topology(_ lines: String, _ rest: String = "") throws(TopologyError) -> Topology {
        let text = TopologyTests.smallest + "\n\(lines)\n\(rest)\n"
        return try Topology(parsing: Array(text.utf8), file: "some/folder/t.toml")
    }

    private static let key = "public_key = \"\(KeysInTopologiesTests.first)\""
    private static let certified = "[http]\ncertificate = \"c.pem\"\nprivate_key = \"/k.pem\""
    private static let whole = certified + "\ntoken = \"t\""

    @Test func portAlone() throws {
        #expect(try Self.topology("http = \"7300\"").replicas[0].http?.description == "127.0.0.1:7300")
        #expect(try Self.topology("http = \"[::]:7300\"").replicas[0].http?.description == "[::]:7300")
    }

    @Test func files() throws {
        let http = try Self.topology("", Self.whole).http
        #expect(http.certificate?.chain == "some/folder/c.pem")
        #expect(http.certificate?.privateKey == "/k.pem")
        #expect(http.token == "some/folder/t")
        #expect(try Self.topology("").http.hasFiles == false)
        #expect(try Self.topology("", "[http]").http.hasFiles == false)
    }

    @Test(
        arguments: [
            (
                "", "[http]\ncertificate = \"c.pem\"",
                "http.private_key: missing, expected it beside certificate, or neither"
            ),
            (
                "", "[http]\nprivate_key = \"c.pem\"",
                "http.certificate: missing, expected it beside private_key, or neither"
            ),
            ("", "[http]\ntoken = \"\"", "http.token: \"\" is no path, expected the path of a file or folder"),
            ("", "[http]\ntoken = 7", "http.token: is an integer, expected a string"),
            ("", "[http]\ntokens = \"a\"", "http.tokens: unknown key, expected one of certificate, private_key, token"),
            ("", "[[http]]\ntoken = \"a\"", "http: is an array, expected a table, [http]"),
        ]
            + ["0", "65536", "", "-1", "7300 ", "host"].map {
                (
                    "http = \"\($0)\"", "",
                    "replica[0].http: \"\($0)\" is not an address, expected HOST:PORT, or PORT for one of 127.0.0.1"
                )
            })
    func refused(lines: String, rest: String, message: String) {
        let error = #expect(throws: TopologyError.self) { try Self.topology(lines, rest) }
        #expect(error?.description == "some/folder/t.toml: " + message)
    }

    static let reachable = [
        "10.0.0.1", "0.0.0.0", "*", "[::]", "example.com", "127.example.com", "localhost.example.com",
    ]

    /// With keys nothing is told to other hosts without a token, or in the clear.
    @Test(arguments: reachable)
    func addressesThatOthersReach(host: String) throws {
        let line = "http = \"\(host):7300\"\n"
        for rest in ["", Self.certified, "[http]\ntoken = \"t\""] {
            let error = #expect(throws: TopologyError.self) { try Self.topology(line + Self.key, rest) }
            #expect(
                error?.description
                    == "some/folder/t.toml: replica[0].http: \"\(host):7300\" can be reached from other hosts, while replicas have keys, expected 127.0.0.1, or `certificate`, `private_key` and `token` under [http]"
            )
            #expect(try Self.topology(line, rest).replicas[0].http?.port == 7300)
        }
        #expect(try Self.topology(line + Self.key, Self.whole).replicas[0].http?.port == 7300)
    }

    @Test(arguments: ["127.0.0.1:7300", "127.1.2.3:7300", "[::1]:7300", "localhost:7300", "7300"])
    func addressesOfThisHost(address: String) throws {
        #expect(try Self.topology("http = \"\(address)\"\n" + Self.key).http.hasFiles == false)
    }
}
