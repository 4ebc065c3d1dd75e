import Testing

@testable import MPaxosTopology

/// The files in `topologies/`: they must parse, and what they show as defaults must be the defaults. Those under [http]
/// are none.
@Suite struct ShippedTopologiesTests {
    static let folder = #filePath.split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" } + "/topologies"

    @Test(arguments: [
        ("one-local", [0]), ("three-local", [0, 1, 2]), ("five-local", [0, 1, 2, 3, 4]), ("three-hosts", [0, 1, 2]),
    ])
    func parses(name: String, ids: [Int]) throws {
        let topology = try Topology(contentsOf: "\(Self.folder)/\(name).toml")
        #expect(topology.name == name)
        #expect(topology.replicas.map { Int($0.id) } == ids)
        #expect(topology.replicas.allSatisfy { $0.http != nil })
    }

    @Test(arguments: ["one-local", "three-local", "five-local", "three-hosts"])
    func showsEveryDefault(name: String) throws {
        let file = "\(Self.folder)/\(name).toml"
        let asShipped = try Topology(contentsOf: file)
        let text = String(decoding: try TopologyFile.read(file), as: UTF8.self)
        var inSettings = false
        var shown: [String] = []
        let uncommented = text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> Substring in
            if line == "[storage]" { inSettings = true }
            guard inSettings, let equals = line.firstIndex(of: "=") else { return line }
            let bare = line.hasPrefix("# ") ? line.dropFirst(2) : line
            shown.append(String(bare[..<equals].split(separator: " ")[0]))
            return bare
        }
        let spelledOut = try Topology(parsing: Array(uncommented.joined(separator: "\n").utf8), file: file)
        #expect(settings(of: spelledOut) == settings(of: asShipped))
        #expect(
            shown == [
                "directory", "log_size", "state_size", "window", "batch_bytes", "batch_delay_us", "heartbeat_ms",
                "suspect_ms", "sessions", "max_request", "max_outstanding", "socket", "security",
                "certificate", "private_key", "token", "peer_input", "client_input", "message_s", "silence_s",
                "http_connections", "threads", "io_threads", "keys",
                "client_keys",
            ])
    }

    private func settings(of topology: Topology) -> [String] {
        [
            "\(topology.storage)", "\(topology.protocol)", "\(topology.client)", "\(topology.pipeline)",
            "\(topology.limits)", "\(topology.security)", "\(topology.replicas)",
        ]
    }
}
